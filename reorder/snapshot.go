package reorder

import (
	"slices"

	"github.com/tidemarkhq/tidemark/watermark"
)

// Snapshot is the whole state of a partition at a commit. What it does not
// hold is in the log, between Low and Next.
type Snapshot struct {
	Origin    int64 // where this group began
	Known     int32 // partitions the topic had when the group began with it
	Low       int64 // L: the lowest offset still owed, or needed to know its repeats; the committed offset
	LowEpoch  int32 // leader epoch of the record at Low (of the last read, when nothing is owed)
	Next      int64 // H: the next offset to read
	NextEpoch int32 // leader epoch of the record at Next-1
	W         watermark.Time
	Natural   watermark.Time
	Max       watermark.Time
	Epoch     uint32
	LateRun   int
	Releasing bool     // a release is under way
	Frontier  Position // then: the next record owed by it
	Repeats   int64    // and those of its event time up to this offset are duplicates; 0: nobody knows
	Steps     []watermark.Step
	Disorder  []byte // of the adaptive strategy; see watermark.Disorder
	Settled   []Span // of [Low, Next), on an outside service's word
	Edge      int64  // the first that has the time at the watermark's edge, or is before it; 0: none is owed; see previous.go
	// Event times are made as now from the source offset TimesFrom and the epoch TimesEpoch
	// on. Of the records of before, nothing says how.
	TimesFrom  int64
	TimesEpoch uint32
	Count      uint32 // records buffered
	Sum        uint32 // of OffsetHash over their offsets
}

// Fresh returns the snapshot of a partition that begins at origin.
func Fresh(origin int64, leaderEpoch int32, epoch uint32) Snapshot {
	return Snapshot{
		Origin: origin, Low: origin, LowEpoch: leaderEpoch, Next: origin, NextEpoch: leaderEpoch,
		W: watermark.None, Natural: watermark.None, Max: watermark.None, Epoch: epoch,
	}
}

// FreshAfter returns the snapshot of a partition that begins an epoch at an offset and has
// put out records before, in lower epochs. before is what was committed last, if that says
// from where on event times are made as now; see TimesKnown.
func FreshAfter(before *Snapshot, origin int64, leaderEpoch int32, epoch uint32) Snapshot {
	s := Fresh(origin, leaderEpoch, epoch)
	if before != nil && origin >= before.TimesFrom {
		s.TimesFrom, s.TimesEpoch = before.TimesFrom, before.TimesEpoch
	} else { // offsets do not part what is read again from what came out of it before
		s.TimesEpoch = epoch
	}
	return s
}

// Snapshot returns what to commit together with everything that Next has
// returned so far. It shares Steps with the partition until the next Step.
func (p *Partition) Snapshot() Snapshot {
	if p.replay != nil {
		return *p.replay
	}
	s := Snapshot{
		Origin: p.origin, Known: p.known, Low: p.next, LowEpoch: p.nextEpoch, Next: p.next, NextEpoch: p.nextEpoch,
		W: p.clock.W, Natural: p.clock.Natural, Max: p.clock.Max,
		Epoch: p.epoch, LateRun: p.lateRun, TimesFrom: p.timesFrom, TimesEpoch: p.timesEpoch, Count: p.count, Sum: p.sum,
	}
	if offset, leaderEpoch, ok := p.store.lowest(); ok {
		s.Low, s.LowEpoch = offset, leaderEpoch
	}
	p.guard.Forget(s.Low)
	s.Steps = p.guard.Steps()
	p.settled.forget(s.Low)
	s.Settled = slices.Clone(p.settled)
	if p.disorder != nil {
		s.Disorder = p.disorder.Append(nil)
	}
	if at, due := p.front(); due {
		s.Releasing, s.Frontier = true, at
	}
	s.Repeats = p.lastAside()
	s.Edge = p.edgeFrom(&s)
	return s
}
