package group

import (
	"math/bits"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// What a fetch is decoded into is used again. A record is done with as soon as
// it has been judged: it is held, or sent to the late topic, as a copy.

// FetchPool hands out the memory of fetched batches. The client asks for it, and
// gives it back when all records of a batch have been recycled. There are a
// few fetches at a time, so a few batches' worth is kept; and not in a sync.Pool,
// which would lose it at each collection, and the collector runs often, for the memory
// it may leave lying about is small.
type FetchPool struct {
	bytes   shelf[byte]
	records shelf[kgo.Record]
}

// GetDecompressBytes returns room for a batch that is about to be decompressed,
// or none: the decoder knows better how much it needs. What is too small
// it replaces.
func (p *FetchPool) GetDecompressBytes([]byte, kgo.CompressionCodecType) []byte {
	return p.bytes.take(0)
}

// PutDecompressBytes takes it back.
func (p *FetchPool) PutDecompressBytes(b []byte) { p.bytes.put(b, keptBytes) }

// GetRecords returns room for the records of a batch.
func (p *FetchPool) GetRecords(n int) []kgo.Record {
	if rs := p.records.take(n); rs != nil {
		return rs
	}
	round := min(16<<bits.Len(uint(n)/16), 256) // batches of a topic are about as large as each other
	return make([]kgo.Record, 0, (n+round-1)/round*round)
}

// PutRecords takes it back.
func (p *FetchPool) PutRecords(rs []kgo.Record) { p.records.put(rs, keptRecords) }

// What is kept of each; more is left to the collector.
const (
	keptBytes   = 16 << 20
	keptRecords = 48 << 10
)

// shelf keeps slices for use again. The one put back last is taken first: it is the
// most likely to be in the processor's cache.
type shelf[T any] struct {
	mu   sync.Mutex
	free [][]T
	size int // of all
}

// take returns an empty slice with room for n elements, nil if there is none.
func (s *shelf[T]) take(n int) []T {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.free) - 1; i >= 0; i-- {
		if found := s.free[i]; cap(found) >= n {
			s.free = slices.Delete(s.free, i, i+1)
			s.size -= cap(found)
			return found[:0]
		}
	}
	return nil
}

// put keeps a slice unless it would be more than most elements.
func (s *shelf[T]) put(v []T, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size+cap(v) <= most {
		s.free = append(s.free, v)
		s.size += cap(v)
	}
}
