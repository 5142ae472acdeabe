package reorder

import (
	"fmt"
	"slices"

	"github.com/tidemarkhq/tidemark/watermark"
)

// Recovery reads [L, H) again. Nothing in there is judged anew: the snapshot
// says what became of each record. A record is held again, without effect on
// clock, counters or epoch, if it is still owed:
//
//	event time   owed if
//	 > W         accepted by the guard's steps
//	<= W         a release is under way and has not come to it: the
//	             frontier, in the order of the output, is at or before it
//
// and if it was not settled on an outside service's word, which the commit lists.
//
// Late records cannot be mistaken for owed ones: when they were judged, the
// watermark that now ends the release, or one before it, had passed them, and
// everything up to that earlier one was out before the frontier was set.
//
// Where repeats are told apart, a commit inside a group of one event time has L
// at or below what of the group is out and has an identity. It is found again at
// the frontier's event time, before the frontier, and is remembered. Nothing else
// is there: had a record of that time been late, so would have been the frontier's,
// which was read after it; and nothing of an earlier epoch is owed any more once
// there is a record of the next, so L is above all of it. What had been set aside
// stays so, by whatever records are known now: a watermark that has come out says
// that it is not in order.
//
// A process that does not tell repeats apart keeps L there too, for the next one
// may. It knows such a commit by L, which is not owed.

// Assign takes up a partition where a snapshot left it, at now: what brokers were
// asked before that proves nothing about it.
func (e *Engine) Assign(s Snapshot, now watermark.Instant) *Partition {
	p := new(Partition)
	p.begin(e, s, now)
	e.parts = append(e.parts, p)
	return p
}

// begin makes a partition one that a snapshot left, with nothing read again yet.
func (p *Partition) begin(e *Engine, s Snapshot, now watermark.Instant) {
	*p = Partition{
		opts: e.opts, eng: e,
		clock:  watermark.Clock{W: s.W, Natural: s.Natural, Max: s.Max},
		guard:  watermark.Guard{Skew: e.opts.MaxFuture},
		idle:   watermark.Idle{Timeout: e.opts.IdleTimeout},
		queue:  newCalendar(),
		window: newWindow(),
		store:  arena{pool: &e.pool},
		origin: s.Origin, timesFrom: s.TimesFrom, timesEpoch: s.TimesEpoch, known: s.Known, next: s.Next, nextEpoch: s.NextEpoch,
		epoch: s.Epoch, lateRun: s.LateRun, settled: slices.Clone(s.Settled),
	}
	p.entry = entrySize
	switch e.opts.Strategy {
	case watermark.WindowMin:
		p.entry = 2 * entrySize // it stands in the window too
	case watermark.Adaptive:
		// Decode has seen that it can be read.
		p.disorder, _ = watermark.ReadDisorder(s.Disorder, e.opts.TargetLate)
	}
	switch {
	case e.opts.Identity != nil:
		p.group = &group{of: e.opts.Identity}
	case s.Repeats != 0 || e.opts.Previous:
		p.group = &group{of: nobody{}}
	}
	p.beginPrevious(&s)
	p.guard.Restore(s.Steps)
	p.idle.Restart(now)
	p.queue.skipTo(s.W)
	if s.Low < s.Next {
		p.replay, p.read, p.leader = &s, s.Low, s.NextEpoch
	}
}

// again takes a record below the snapshot's Next.
func (p *Partition) again(r Record) (Verdict, []byte) {
	if r.Offset >= p.replay.Next {
		panic(fmt.Sprintf("reorder: stepped offset %d before the replay up to %d was ended", r.Offset, p.replay.Next))
	}
	p.read = r.Offset + 1
	if p.leader == p.replay.NextEpoch && r.LeaderEpoch > p.leader {
		p.leader, p.parted = r.LeaderEpoch, r.Offset
	}
	if p.leader > p.replay.NextEpoch {
		// Not the record that was judged: the verdict was about another. If
		// the loss is accepted, it is read once more, as what it is.
		return Settled, nil
	}
	if p.settled.has(r.Offset) {
		return Settled, nil // whatever the service says now
	}
	if r.Outside {
		panic(fmt.Sprintf("reorder: offset %d was no outside service's to judge", r.Offset))
	}
	if r.Previous {
		t, ok := p.borrowAgain(r)
		if !ok {
			return Settled, nil
		}
		r.Time = t
	} else if r.Invalid || p.guard.Recall(r.Offset, r.Time) {
		return Settled, nil
	}
	if !p.replay.owed(Position{r.Time, r.Offset}) {
		if p.remembers(r) {
			return Remembered, p.remember(r)
		}
		return Settled, nil
	}
	// Nothing owed is newer than what was seen, unless the log is another
	// one now. Should that be accepted, it has to be flushed and drained too.
	if !r.Previous {
		p.clock.Max = max(p.clock.Max, r.Time)
	}
	return OnTime, p.hold(r)
}

func (s *Snapshot) owed(at Position) bool {
	return at.Time > s.W || s.Releasing && !at.Before(s.Frontier)
}

// Replaying returns the end of what has to be read again, and whether it has
// not been reached yet. Before a record at or above it is stepped, EndReplay
// has to be called.
func (p *Partition) Replaying() (end int64, replaying bool) {
	if p.replay == nil {
		return 0, false
	}
	return p.replay.Next, true
}

// Loss is what a replay found missing: the log no longer holds what it held
// when the commit was written.
type Loss struct {
	From, To            int64 // the offsets read again
	Owed, Found         uint32
	NewLeader, Shortage bool // records were rewritten; the log ends before To
}

// Records returns how many of the records buffered are gone.
func (l *Loss) Records() int64 { return max(int64(l.Owed)-int64(l.Found), 0) }

func (l *Loss) Error() string {
	why := "they are not the same records"
	switch {
	case l.Shortage:
		why = "the log ends before them"
	case l.NewLeader:
		why = "a newer leader has rewritten some"
	case l.Found < l.Owed:
		why = "the others are gone"
	}
	return fmt.Sprintf("offsets %d to %d hold %d of the %d records that were held: %s", l.From, l.To-1, l.Found, l.Owed, why)
}

// EndReplay checks that everything the commit said to be buffered has been
// found again, no more and no less, and lets the partition go on. end is
// where the log ends if that is below the replay's end, else anything above;
// reading has to have come to it, for what lies between is not read any more.
// When something is missing, the partition goes on only if the loss is
// accepted. Where a newer leader has written over the log, what it wrote is
// new: Position then goes back to the first record of it. Idle time begins now.
func (p *Partition) EndReplay(end int64, accept bool) *Loss {
	s := p.replay
	newer := p.leader > s.NextEpoch
	loss := &Loss{From: s.Low, To: s.Next, Owed: s.Count, Found: p.count, NewLeader: newer, Shortage: end < s.Next}
	if p.count == s.Count && p.sum == s.Sum && !newer && !loss.Shortage {
		loss = nil
	}
	if loss != nil && !accept {
		return loss
	}
	p.replay, p.nextEpoch = nil, p.leader
	p.Stir() // whoever reads again has not been listening
	p.next = min(p.next, max(end, p.read))
	if newer {
		p.next = min(p.next, p.parted)
	}
	if loss != nil {
		p.rewindEdge(p.next)
		p.guard.Rewind(p.next)
		p.settled.rewind(p.next)
	}
	p.resumeGroup(s)
	p.dirty = loss != nil || p.Low() != s.Low || p.lastAside() != s.Repeats // where records are known by something else now
	return loss
}

// Rewind sets the next offset to read back to end, where the log now ends: a
// loss that has been accepted. What is held of the lost part goes with it, as
// it would in a recovery.
func (p *Partition) Rewind(end int64) {
	if end >= p.next {
		return
	}
	p.next, p.dirty = end, true
	p.rewindEdge(end)
	p.guard.Rewind(end)
	p.settled.rewind(end)
	clear(p.lenders)
	all := p.queue
	p.queue, p.window = newCalendar(), newWindow()
	for {
		e, ok := all.peek(watermark.Max)
		if !ok {
			break
		}
		all.pop()
		if e.Offset < end {
			p.enqueue(e, isPrevious(&p.store, e.ref))
			p.mayLend(e.ref, e.Time)
		} else {
			p.take(e.ref)
			p.drop(e.Offset)
		}
	}
	p.rewindGroup(end)
	p.account()
}
