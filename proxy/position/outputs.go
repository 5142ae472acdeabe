package position

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// ErrNotKnown: the outputs do not say what the position was.
var ErrNotKnown = errors.New("the position cannot be made from the outputs")

func notKnown(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrNotKnown, fmt.Errorf(format, args...))
}

// errNoOrigin: where the last reading of the source began is not known.
var errNoOrigin = errors.New("say where with --origin")

// stretch is what one epoch has put out.
type stretch struct {
	epoch    uint32
	from, to int64   // the lowest and the highest source offset
	ordered  offsets // in .ordered
	late     offsets // in .late
	unjudged offsets // of those, the ones that no watermark was asked about: future, or without a time
	// floor is the lowest that the watermark can be, by what the headers say of it.
	floor       watermark.Time
	times       times
	first, last *kgo.Record // of .ordered, as the source had them, with the source's offset
	lastLate    *kgo.Record // of .late
}

func newStretch(epoch uint32, offset int64) *stretch {
	return &stretch{epoch: epoch, from: offset, to: offset, ordered: offsets{}, late: offsets{}, unjudged: offsets{}, floor: watermark.None}
}

func (s *stretch) out(offset int64) bool { return s.ordered.has(offset) || s.late.has(offset) }

// outputs are what both outputs of a partition show, in the order of their records.
type outputs struct {
	names   [2]string // of the topics
	readers [2]*emit.Reader
	parts   emit.Parts
	epochs  map[uint32]*stretch
	times   times // of a stretch that has none yet

	// What retention has taken: there were records before the first that is left.
	orderedGone, lateGone bool
	any                   [2]bool // something is left
	firstLate             int64   // the source offset of the first late record that is left
}

func newOutputs(src emit.Source, prefix string, t times) *outputs {
	return &outputs{
		names:   [2]string{src.Ordered, src.Late},
		readers: [2]*emit.Reader{emit.NewReader(prefix, false), emit.NewReader(prefix, true)},
		epochs:  map[uint32]*stretch{},
		times:   t,
	}
}

const (
	ordered = 0
	late    = 1
)

// add takes the next record of an output.
func (o *outputs) add(which int, r *kgo.Record) error {
	p := &o.parts
	if !o.readers[which].Read(r, p) {
		return notKnown("offset %d of %s partition %d does not say which source record it is: TIDEMARK_HEADERS was without source-offset, the record was too large for it, or another program wrote it",
			r.Offset, o.names[which], r.Partition)
	}
	epoch := uint32(p.Epoch)
	s := o.epochs[epoch]
	if s == nil {
		s = newStretch(epoch, p.SourceOffset)
		s.times = o.times
		o.epochs[epoch] = s
	}
	s.from, s.to = min(s.from, p.SourceOffset), max(s.to, p.SourceOffset)
	set := s.ordered
	if which == late {
		set = s.late
	}
	if s.out(p.SourceOffset) {
		return notKnown("source offset %d came out twice in epoch %d, as may happen at least once, or where two groups write to one output", p.SourceOffset, epoch)
	}
	set.add(p.SourceOffset)
	source := p.Source
	source.Offset = p.SourceOffset
	s.times.note(which, p, &source)
	w, has, err := p.Number(emit.WordWatermark)
	if err != nil {
		return notKnown("the watermark of offset %d of %s partition %d is no number", r.Offset, o.names[which], r.Partition)
	}
	if which == ordered {
		if has { // no later record is at or before that millisecond
			s.raise(w+1, 1)
		}
		if s.last = &source; s.first == nil {
			s.first = &source
		}
	} else {
		s.lastLate = &source
		reason := string(p.Value(emit.WordLateReason))
		if has && reason != emit.Reason(reorder.Duplicate) { // what judged it, rounded down; a repeat comes out with what W has still to release
			s.raise(w, 0)
		}
		switch reason {
		case emit.Reason(reorder.Future), emit.Reason(reorder.InvalidTime):
			s.unjudged.add(p.SourceOffset)
		}
		if !o.any[late] {
			o.firstLate = p.SourceOffset
		}
	}
	o.any[which] = true
	return nil
}

// raise raises the floor to a time in ms, less so many ns.
func (s *stretch) raise(ms int64, less watermark.Time) {
	if t, ok := watermark.FromMillis(ms); ok {
		s.floor = max(s.floor, t-less)
	}
}

// generation returns the epochs that belong to one reading of the source, the last one:
// each begins, by re-anchoring, behind what the one before has put out. first says that
// there is none before them.
func (o *outputs) generation() (run []*stretch, first bool) {
	all := slices.SortedFunc(maps.Values(o.epochs), func(a, b *stretch) int { return int(int64(a.epoch) - int64(b.epoch)) })
	from := max(len(all)-1, 0)
	for from > 0 && all[from-1].to < all[from].from {
		from--
	}
	return all[from:], from == 0
}
