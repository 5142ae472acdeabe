package proxy

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// What a fetch is decoded into is used again. A record is done with as soon as
// it has been judged: it is held as a copy. Only a late one is lent to the
// client until it is durable.

// fetchPool hands out the memory of fetched batches. The client asks for it, and
// gives it back when all records of a batch have been recycled.
type fetchPool struct {
	bytes   sync.Pool
	records sync.Pool
}

// GetDecompressBytes returns room for a batch that is about to be decompressed.
func (p *fetchPool) GetDecompressBytes(compressed []byte, _ kgo.CompressionCodecType) []byte {
	if b, ok := p.bytes.Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, 0, 2*len(compressed))
}

// PutDecompressBytes takes it back.
func (p *fetchPool) PutDecompressBytes(b []byte) {
	if cap(b) <= keptBytes {
		p.bytes.Put(&b)
	}
}

// GetRecords returns room for the records of a batch.
func (p *fetchPool) GetRecords(n int) []kgo.Record {
	if rs, ok := p.records.Get().(*[]kgo.Record); ok {
		return *rs
	}
	return make([]kgo.Record, 0, n)
}

// PutRecords takes it back.
func (p *fetchPool) PutRecords(rs []kgo.Record) {
	if cap(rs) <= keptRecords {
		p.records.Put(&rs)
	}
}

// What is larger is left to the collector, so that one large batch does not
// occupy memory from then on.
const (
	keptBytes   = 4 << 20
	keptRecords = 16 << 10
)

// takeBack takes back what was handed to the client for producing.
func (s *session) takeBack() {
	s.outbox.Reset()
	for i, r := range s.lent {
		r.Recycle()
		s.lent[i] = nil
	}
	s.lent = s.lent[:0]
}
