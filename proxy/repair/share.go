package repair

import (
	"cmp"
	"slices"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/reorder"
)

// Stretch is the part of a late topic's partition to repair: the offsets [Start, End).
type Stretch struct {
	Source, Late, To string
	Partition        int32
	Start, End       int64
	Gone             int64 // offsets before Start that were owed and are no longer there
}

// Share is the part of a stretch that one transaction does.
type Share struct {
	Stretch
	Records []*kgo.Record // in order
	From    []int64       // the offset in the late topic of the record that each is made of
	Next    int64         // the offset of the late topic that is to be committed
	counts  Counts
	held    []held
	bytes   int64 // that held takes
}

// held is a correction that waits for its place.
type held struct {
	reorder.Position // by source offset
	epoch            int64
	from             int64
	record           *kgo.Record
}

// recordCost is what a record takes beside its bytes, and headerCost what each
// of its headers does.
const (
	recordCost = int64(unsafe.Sizeof(kgo.Record{}) + unsafe.Sizeof(held{}) + 2*unsafe.Sizeof((*kgo.Record)(nil)) + unsafe.Sizeof(int64(0)))
	headerCost = int64(unsafe.Sizeof(kgo.RecordHeader{})) + 16 // with its name
)

func cost(r *kgo.Record) int64 {
	return recordCost + headerCost*int64(len(r.Headers)) + int64(emit.WireSize(r))
}

// sort sorts the corrections like the ordered topic. A sidecar without transactions may have
// written a late record twice; sort keeps one of those it sees.
func (s *Share) sort() {
	slices.SortStableFunc(s.held, func(a, b held) int {
		switch {
		case a.Before(b.Position):
			return -1
		case b.Before(a.Position):
			return 1
		}
		return cmp.Compare(a.epoch, b.epoch)
	})
	once := slices.CompactFunc(s.held, func(a, b held) bool { return a.Position == b.Position && a.epoch == b.epoch })
	s.counts.Repeated += int64(len(s.held) - len(once))
	s.Records, s.From = make([]*kgo.Record, 0, len(once)), make([]int64, 0, len(once))
	for _, h := range once {
		s.Records, s.From = append(s.Records, h.record), append(s.From, h.from)
		s.counts.publish(h.Time.Millis())
	}
	s.held = nil
}
