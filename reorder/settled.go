package reorder

import (
	"slices"
	"sort"
)

// A verdict on the word of an outside service is not reproduced by reading again:
// the service may have changed its mind. So as long as something before the record
// is held, its offset travels in the commit, and a recovery takes it for settled
// without another look.
//
//	offset        81 82 83 84 85 86 87 88 89 90
//	held           h  h           h        h
//	by its word          x     x     x  x     x
//	late                    l
//	spans               [-------)   [----)   [-)
//
// Offsets between which nothing was held are one span: what else lies there is
// settled anyway. The list is bounded, for a commit is. When it is full, MakeRoom
// releases early what stands between.

// Span is the offsets from From up to To, which is not one of them.
type Span struct{ From, To int64 }

const (
	// MaxSettled is how many spans a commit has room for.
	MaxSettled = 64
	// settledReach is how far above L a span may end. It keeps their numbers short,
	// and is more than anybody would want to read again.
	settledReach = 1_000_000_000
)

// spans are in order, and no two touch.
type spans []Span

func (l spans) has(offset int64) bool {
	i := sort.Search(len(l), func(i int) bool { return offset < l[i].To })
	return i < len(l) && l[i].From <= offset
}

// continues reports whether an offset above all others lengthens the last span.
// held is the last offset that was held.
func (l spans) continues(offset, held int64) bool {
	n := len(l)
	return n > 0 && (offset == l[n-1].To || held < l[n-1].To)
}

func (l *spans) add(offset, held int64) {
	if l.continues(offset, held) {
		(*l)[len(*l)-1].To = offset + 1
		return
	}
	*l = append(*l, Span{offset, offset + 1})
}

// forget drops what lies below the lowest offset owed. That is in no span.
func (l *spans) forget(low int64) {
	*l = slices.DeleteFunc(*l, func(s Span) bool { return s.To <= low })
}

// rewind drops what lies at or above the next offset to read.
func (l *spans) rewind(next int64) {
	*l = slices.DeleteFunc(*l, func(s Span) bool { return s.From >= next })
	if n := len(*l); n > 0 {
		(*l)[n-1].To = min((*l)[n-1].To, next)
	}
}

// Settles reports whether the partition can remember a verdict on an outside
// service's word about the record at offset, which is read next; while replaying,
// whether it remembers one. Before Step is told of such a record, it has to.
func (p *Partition) Settles(offset int64) bool {
	if p.replay != nil {
		return p.settled.has(offset)
	}
	if p.count == 0 {
		return true // nothing from before it will be read again
	}
	low := p.Low()
	p.settled.forget(low)
	return offset-low < settledReach && (len(p.settled) < MaxSettled || p.settled.continues(offset, p.held))
}

// MakeRoom moves the watermark ahead, as want of memory does. Once Next has released
// what that frees, fewer records stand between the settled ones; when none is held,
// Settles holds for any offset.
func (p *Partition) MakeRoom() { p.force() }

// Recalls reports, while replaying, whether what became of a record is known without
// its event time: it was settled on an outside service's word, or the log has been
// written over and this is another record.
func (p *Partition) Recalls(offset int64, leaderEpoch int32) bool {
	s := p.replay
	return s != nil && (max(p.leader, leaderEpoch) > s.NextEpoch || p.settled.has(offset))
}
