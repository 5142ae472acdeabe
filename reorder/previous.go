package reorder

import (
	"encoding/binary"
	"maps"

	"github.com/tidemarkhq/tidemark/watermark"
)

// A record without a time of its own (Record.Previous), such as the tombstone behind a
// delete, takes one from what is held when it is judged:
//
//	of its key something is held     the newest time among that
//	nothing is                       the edge: W + 1 ns, the first time that is not late
//	there is no watermark            none, and it is invalid
//
// Either way it comes out behind everything of its key that came before it: behind what
// is held, for ties are broken by offset, and behind what is out, for that is at or below
// W. At the edge it also comes before everything of its key that is yet to come. It is
// never late, and moves nothing: not W, the maximum, the guard, what a strategy has
// learned, the run of late records or idle time.
//
// Reading again has to give what is still owed the same time, and must not take for owed
// what is not. Take o with a time t, lent by p. As long as o is owed, p is owed too, or
// it is out and the release under way has come to t:
//
//	offset       3    4    5    6    7
//	key          a    b    a    a    c
//	time         20   30   20   20   20       W = 25
//	             p         o    o
//	out          3         5    |             the frontier is (20, 6)
//
// So p keeps its payload until all of its event time is out, which keeps L at or below it,
// as with a group of repeats. What may lend in [L, H) is then what is above W or, in a
// release, at the frontier's time or above: all of that was on time, and nothing of it was
// out when anything in [L, H) was judged, for nothing is judged during a release. Hence
//
//   - where o finds a record of its key that may lend, that was held when o was judged,
//     and the newest of them lends the same time again;
//   - where it finds none it is not owed, or was at the edge. The edge is still ahead if
//     W, or the one before this release, is what it was. From the first offset on that
//     was judged by that W, everything without a lender is at the edge, and in a release
//     the frontier says what of it is out. That offset is in the commit (Snapshot.Edge),
//     for the log does not tell when W came to be what it is.
//
// docs/design/previous.md has the whole argument, and what else was weighed.

// lender is the newest record held of a key, of equal times the first.
type lender struct {
	time watermark.Time
	ref  uint64
}

const (
	// tagSize is what is kept behind a payload: the hash of the record's key, with two
	// of its bits taken for flags.
	tagSize     = 8
	tagPrevious = 1 // the time is not its own
	tagLent     = 2 // another has its time from it
	tagFlags    = tagPrevious | tagLent
	lenderSize  = 48 // what a lender takes in the map, in bytes, more or less
)

// beginPrevious makes a partition ready for records without a time, where a snapshot
// left it.
func (p *Partition) beginPrevious(s *Snapshot) {
	if !p.opts.Previous {
		return
	}
	p.lenders, p.store.tags = map[uint64]lender{}, tagSize
	if s.Edge != 0 {
		p.edge = Position{s.W.Next(), s.Edge}
		if s.Releasing {
			p.edge.Time = s.Frontier.Time
		}
	}
}

// stepPrevious judges a record without a time, and holds it.
func (p *Partition) stepPrevious(r Record) (Verdict, []byte) {
	p.next, p.nextEpoch = r.Offset+1, r.LeaderEpoch
	l, found := p.lenders[r.Key&^tagFlags]
	switch {
	case found:
		p.lend(l)
		r.Time = l.time
	case p.lenders == nil, p.clock.W == watermark.None, p.clock.W == watermark.Max:
		p.doubts.word = true
		return InvalidTime, nil
	default:
		r.Time = p.clock.W.Next()
		if p.edge.Offset == 0 || p.edge.Time != r.Time {
			p.edge = Position{r.Time, r.Offset}
		}
	}
	p.doubts.from(r.Time)
	p.flushed = false // should a new epoch begin next, this one has to be released first
	return OnTime, p.hold(r)
}

// borrowAgain returns the time of a record that is read again, if it is owed or the
// release that was under way has come to its time.
func (p *Partition) borrowAgain(r Record) (t watermark.Time, ok bool) {
	if l, found := p.lenders[r.Key&^tagFlags]; found {
		p.lend(l)
		return l.time, true
	}
	return p.edge.Time, p.replay.Edge != 0 && r.Offset >= p.replay.Edge
}

// keep makes room for the payload of a record, and lets it lend its time.
func (p *Partition) keep(r Record) (ref uint64, body []byte) {
	ref, body = p.store.add(r.Offset, r.LeaderEpoch, r.Size)
	if p.lenders != nil {
		tag := r.Key &^ tagFlags
		if r.Previous {
			tag |= tagPrevious
		}
		binary.LittleEndian.PutUint64(p.store.tag(ref), tag)
		p.mayLend(ref, r.Time)
	}
	return ref, body
}

// mayLend makes a record the lender of its key, if it is the newest.
func (p *Partition) mayLend(ref uint64, t watermark.Time) {
	if p.lenders == nil {
		return
	}
	key := p.key(ref)
	if l, found := p.lenders[key]; !found || t > l.time {
		p.lenders[key] = lender{t, ref}
		p.most = max(p.most, len(p.lenders))
	}
}

func (p *Partition) key(ref uint64) uint64 {
	return binary.LittleEndian.Uint64(p.store.tag(ref)) &^ tagFlags
}

func (p *Partition) lend(l lender) { p.store.tag(l.ref)[0] |= tagLent }

// lent reports whether another record has its time from this one.
func (p *Partition) lent(ref uint64) bool {
	return p.lenders != nil && p.store.tag(ref)[0]&tagLent != 0
}

func isPrevious(store *arena, ref uint64) bool {
	return store.tags != 0 && store.tag(ref)[0]&tagPrevious != 0
}

// take gives up a payload. Its record lends no more: all that was held of its key is no
// newer, and out as well.
func (p *Partition) take(ref uint64) (body []byte) {
	if p.lenders != nil {
		key := p.key(ref)
		if l, found := p.lenders[key]; found && l.ref == ref {
			delete(p.lenders, key)
			if n := len(p.lenders); p.most > keptRun && n < p.most/8 {
				few := make(map[uint64]lender, n) // what a burst needed is not kept
				maps.Copy(few, p.lenders)
				p.lenders, p.most = few, n
			}
		}
	}
	return p.store.take(ref)
}

// newest returns the largest event time that is held or has been seen. A record at the
// edge may be newer than all that were seen, as long as it is held.
func (p *Partition) newest() watermark.Time {
	if p.edge.Offset == 0 || p.edge.Time <= p.clock.W {
		return p.clock.Max
	}
	return max(p.clock.Max, p.edge.Time)
}

// edgeFrom returns what a snapshot has to say of records at the edge.
func (p *Partition) edgeFrom(s *Snapshot) int64 {
	edge := s.W.Next()
	if s.Releasing {
		edge = s.Frontier.Time
	}
	if p.edge.Offset == 0 || p.edge.Time != edge {
		return 0
	}
	return max(p.edge.Offset, s.Low)
}

// rewindEdge forgets who was at the edge, if that is lost.
func (p *Partition) rewindEdge(end int64) {
	if p.edge.Offset >= end {
		p.edge = Position{}
	}
}
