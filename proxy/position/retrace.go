package position

import (
	"math"
	"time"

	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// sourceRecord is what a retracing is told of a record of the source.
type sourceRecord struct {
	Offset      int64
	LeaderEpoch int32
	Time        watermark.Time
	Invalid     bool
	Previous    bool           // it is Invalid, and takes its time from what is held
	Outside     bool           // that it is Invalid is an outside service's word
	Stamp       watermark.Time // the record's own timestamp
	Marker      watermark.Time // of the punctuated strategy; None if it has none
	ID          uint64         // hash of what it is known by, where repeats are told apart; 0: none
}

// owedRecord is a record that came out nowhere.
type owedRecord struct {
	reorder.Position
	leaderEpoch int32
	id          uint64
}

// retracing goes through the source once more and finds the position at which everything
// that is in the outputs had come out, and nothing else. docs/design/position.md has the
// argument.
//
//	source   o o l . o l . . o o l . | . . . . X . . .      o, l  in .ordered, in .late
//	                        highest ─┘         │            .     in neither
//	                                           └─ with this record W came to where it
//	                                              releases what came out last
//
// Everything up to X has been read, and what of it is in neither output is held.
type retracing struct {
	origin  int64
	run     []*stretch // of one generation, ascending
	now     *stretch   // the last of them; nil: nothing has come out
	last    reorder.Position
	any     bool  // something is in .ordered, in this epoch: last
	highest int64 // source offset that came out
	later   bool  // something came out in another generation, before
	ended   int64 // the highest that came out in an epoch that has ended, -1: nothing is held of what is not above it
	gone    gone
	repeats bool           // repeats are told apart: they come out behind their original
	dropped bool           // and go to no output
	skew    time.Duration  // of the future guard, 0: off
	wall    watermark.Time // now

	law     *reorder.Partition // judges what is read again as a run without a break would
	epoch   uint32             // that it began with
	at      reorder.Snapshot   // of the law, where reading had passed highest
	passed  bool               // at is known
	reached bool               // the law's watermark has come to the last ordered record
	done    bool
	end     int64 // H, when done
	leader  int32 // the highest leader epoch below H

	owed       []owedRecord
	pending    int64           // the last repeat that was set aside and is not out, 0: none
	original   int64           // the lowest offset of the ordered records at last.Time, -1
	originalIn int32           // its leader epoch
	group      map[uint64]bool // what the ordered records at last.Time are known by
	repeated   []owedRecord    // those in no output that have to repeat an ordered one
	byEpoch    bool            // of repeated, some are known by the epoch of the law alone
}

// gone is what retention has taken of the outputs.
type gone struct {
	ordered bool
	before  reorder.Position // of .ordered: in the epoch of first
	first   uint32           // the epoch of the first record that is left
	late    bool
	below   int64 // source offset: of .late
}

// mayBeGone reports whether a record may have come out and be gone since.
func (t *retracing) mayBeGone(at reorder.Position) bool {
	switch g, now := t.gone, t.now; {
	case g.late && at.Offset < g.below:
		return true
	case !g.ordered:
		return false
	case now != nil && g.first < now.epoch:
		return at.Offset < now.from
	case at.Offset <= t.ended:
		return true // nothing is left of that epoch
	}
	return at.Before(t.gone.before)
}

// begin sets up the law.
func (t *retracing) begin(laws reorder.Options) {
	laws.IdleTimeout, laws.MaxFuture, laws.Identity, laws.Previous = 0, 0, nil, false // records alone decide here
	e := reorder.NewEngine(laws, math.MaxInt64)
	t.law = e.Assign(reorder.Fresh(t.origin, -1, t.epoch), 0)
	t.original, t.leader, t.end, t.group, t.ended = -1, -1, t.origin, map[uint64]bool{}, -1
	for _, s := range t.run {
		if s != t.now {
			t.ended = max(t.ended, s.to)
		}
	}
	t.passed = t.highest < t.origin
	if t.passed {
		t.at, t.reached, t.done = t.law.Snapshot(), true, true
	}
}

func (t *retracing) out(offset int64) bool {
	for _, s := range t.run {
		if s.out(offset) {
			return true
		}
	}
	return false
}

// inOrder reports whether a record came out in order.
func (t *retracing) inOrder(offset int64) bool {
	for _, s := range t.run {
		if s.ordered.has(offset) {
			return true
		}
	}
	return false
}

func (t *retracing) unjudged(offset int64) bool {
	for _, s := range t.run {
		if s.unjudged.has(offset) {
			return true
		}
	}
	return false
}

// behind reports whether a record that is held, or was not read, cannot have this place: it
// is behind what came out.
func (t *retracing) behind(r *sourceRecord) bool {
	switch {
	case r.Invalid, r.Offset <= t.ended:
		return true
	case t.now == nil:
		return false
	case t.any && (reorder.Position{Time: r.Time, Offset: r.Offset}).Before(t.last):
		return true
	}
	return r.Time <= t.now.floor
}

// step takes the next record of the source, until done.
func (t *retracing) step(r sourceRecord) error {
	if r.Offset > t.highest {
		t.pass()
		if t.done {
			return nil
		}
		switch {
		case r.Previous: // what it takes its time from is not known yet
			t.giveUp()
			return nil
		case t.setAside(&r):
			t.pending = r.Offset
			t.hold(r)
		case !t.behind(&r) && !t.doubtful(&r):
			t.hold(r)
		case !r.Invalid && t.dropped && r.ID != 0 && r.Time > t.law.Watermark():
			t.repeated = append(t.repeated, owedRecord{reorder.Position{Time: r.Time, Offset: r.Offset}, r.LeaderEpoch, r.ID})
		case t.endsEpoch(&r):
			return nil
		default: // it has not been read, so what came out last did so by the clock
			t.giveUp()
			return nil
		}
		t.judge(&r)
		t.end = r.Offset + 1
		if t.law.Watermark() >= t.last.Time {
			t.reached, t.done = true, true
		}
		return nil
	}
	t.leader = max(t.leader, r.LeaderEpoch)
	if t.out(r.Offset) {
		if t.any && r.Time == t.last.Time && !r.Invalid && t.now.ordered.has(r.Offset) {
			t.inGroup(&r)
		}
		t.judge(&r)
		return nil
	}
	if r.Previous {
		return notKnown("source offset %d has no event time of its own and is in neither output: it may be held, by a time that it took from another", r.Offset)
	}
	at := reorder.Position{Time: r.Time, Offset: r.Offset}
	lateGone := t.gone.late && r.Offset < t.gone.below
	wasLate := t.judge(&r)
	switch {
	case lateGone && wasLate: // also where it is not behind what came out in order
	case lateGone && !t.dropped && t.repeatsLast(&r):
		return notKnown("source offset %d is in neither output, and repeats the last that came out in order: it may be held, or have been late with that reason and be gone by retention", r.Offset)
	case !t.behind(&r) && t.dropped && r.ID != 0 && t.law.Epoch() < t.now.epoch:
		// Nothing is held of an epoch that has ended.
		t.byEpoch = true
		t.repeated = append(t.repeated, owedRecord{at, r.LeaderEpoch, r.ID})
	case !t.behind(&r):
		switch {
		case lateGone && t.doubtful(&r):
			return notKnown("source offset %d is in neither output, and from the future: it may be held, or have been late with that reason and be gone by retention", r.Offset)
		case t.now.epoch > 0 && r.Offset < t.now.from && (t.gone.ordered || lateGone):
			return notKnown("source offset %d is in neither output: it may be held, or have come out in an epoch before %d and be gone by retention", r.Offset, t.now.epoch)
		}
		t.hold(r)
	case t.setAside(&r):
		t.pending = r.Offset
		t.hold(r)
	case t.mayBeGone(at):
		if t.any && r.Time == t.last.Time && !r.Invalid {
			t.inGroup(&r)
		}
	case !r.Invalid && t.dropped && r.ID != 0:
		t.repeated = append(t.repeated, owedRecord{at, r.LeaderEpoch, r.ID})
	default:
		return notKnown("source offset %d is in neither output, and what came out later is behind it: the group began after it (say where with --origin), or it was lost", r.Offset)
	}
	return nil
}

// doubtful reports whether the guard may have refused a record as one from the future. What
// the wall clock was then is not known.
func (t *retracing) doubtful(r *sourceRecord) bool {
	return t.skew > 0 && (r.Time > r.Stamp.Add(t.skew) || r.Time > t.wall)
}

// giveUp settles for the position right behind what came out: the clock, or memory, or a
// record that nobody can judge now, had moved the watermark.
func (t *retracing) giveUp() { t.end, t.reached, t.done = t.highest+1, false, true }

// pass takes note that everything up to highest has been read.
func (t *retracing) pass() {
	if t.passed {
		return
	}
	t.passed, t.at, t.end = true, t.law.Snapshot(), t.highest+1
	if !t.any || t.at.W >= t.last.Time {
		t.reached, t.done = true, true
	}
}

// finish ends the retracing where the source ends.
func (t *retracing) finish() {
	t.pass()
	if !t.reached {
		t.giveUp()
	}
	t.done = true
}

func (t *retracing) hold(r sourceRecord) {
	t.owed = append(t.owed, owedRecord{reorder.Position{Time: r.Time, Offset: r.Offset}, r.LeaderEpoch, r.ID})
}

// inGroup takes note of a record that came out in order, with the event time of the last.
func (t *retracing) inGroup(r *sourceRecord) {
	if t.original < 0 {
		t.original, t.originalIn = r.Offset, r.LeaderEpoch
	}
	if r.ID != 0 {
		t.group[r.ID] = true
	}
}

// setAside reports whether a record repeats one that has come out, and comes out next: the
// header of that one says nothing of its repeats, for they are not in order.
func (t *retracing) setAside(r *sourceRecord) bool {
	at := reorder.Position{Time: r.Time, Offset: r.Offset}
	return t.repeatsLast(r) && t.last.Before(at) && r.Time <= t.now.floor
}

// repeatsLast reports whether a record repeats one that came out at the time of the last.
func (t *retracing) repeatsLast(r *sourceRecord) bool {
	return t.any && !r.Invalid && r.Time == t.last.Time && t.group[r.ID]
}

// endsEpoch reports whether what came out last did so because a record ends the epoch: all
// that is held comes out before that. If so, the record is the next to be read.
func (t *retracing) endsEpoch(r *sourceRecord) bool {
	if r.Invalid || t.doubtful(r) {
		return false
	}
	if v, _ := t.law.Step(reorder.Record{Offset: r.Offset, LeaderEpoch: r.LeaderEpoch, Time: r.Time}, 0); v != reorder.Flush {
		return false
	}
	var rel reorder.Release
	for t.law.Next(&rel) {
	}
	if t.law.Watermark() < t.last.Time {
		return false
	}
	t.at, t.reached, t.done = t.law.Snapshot(), true, true
	return true
}

// judge lets the law judge a record, and reports whether it is late. What comes out of it is of
// no interest.
func (t *retracing) judge(r *sourceRecord) (late bool) {
	var rel reorder.Release
	release := func() {
		for t.law.Next(&rel) {
		}
	}
	in := reorder.Record{Offset: r.Offset, LeaderEpoch: r.LeaderEpoch, Time: r.Time, Invalid: r.Invalid}
	if r.Previous || t.unjudged(r.Offset) && !r.Invalid { // it moves nothing
		t.law.Skip(r.Offset+1, r.LeaderEpoch)
		t.law.Mark(r.Marker, r.Marker)
		release()
		return false
	}
	v, _ := t.law.Step(in, 0)
	if v == reorder.Flush {
		release()
		v, _ = t.law.Step(in, 0)
	}
	if r.Marker != watermark.None {
		t.law.Mark(r.Marker, r.Marker)
	}
	release()
	return v == reorder.BehindWatermark
}

// exact reports whether the position is that of a run without a break: records alone have
// moved the watermark.
func (t *retracing) exact() bool {
	s := t.snapshotOfLaw()
	return t.reached && len(t.run) > 0 && s.Epoch == t.now.epoch && s.W >= t.now.floor
}

func (t *retracing) snapshotOfLaw() reorder.Snapshot {
	if t.end > t.highest+1 {
		return t.law.Snapshot()
	}
	return t.at
}

// trustRepeats is called when what has to repeat an ordered record is known to do so. Behind
// highest it may also not have been read yet, unless records alone have moved the watermark.
func (t *retracing) trustRepeats() {
	for _, r := range t.repeated {
		if r.Offset > t.highest && r.Offset < t.end && !t.exact() {
			t.giveUp()
		}
	}
}

// doubt returns an error if dropped repeats cannot be told from what is held: which epoch they
// are of is known only where records alone have moved the watermark.
func (t *retracing) doubt() error {
	if t.byEpoch && !t.exact() {
		return notKnown("an epoch has begun among repeats that were dropped, and the clock has moved the watermark: which of them are owed is not known")
	}
	return nil
}

// snapshot returns the position that was found, but for what is settled.
func (t *retracing) snapshot(known int32) reorder.Snapshot {
	if len(t.run) == 0 {
		s := reorder.Fresh(t.origin, -1, t.epoch)
		s.Known = known
		return s
	}
	law := t.snapshotOfLaw()
	s := reorder.Fresh(t.origin, t.leader, t.now.epoch)
	s.Known, s.Next, s.Low, s.Disorder = known, t.end, t.end, law.Disorder
	if law.Epoch == t.now.epoch {
		s.W, s.Natural, s.Max, s.LateRun = law.W, law.Natural, law.Max, law.LateRun
	}
	for _, o := range t.owed {
		if o.Offset < t.end {
			s.Max, s.NextEpoch = max(s.Max, o.Time), max(s.NextEpoch, o.leaderEpoch)
		}
	}
	w := t.now.floor
	if t.any {
		s.Max = max(s.Max, t.last.Time)
		if !t.reached || law.Epoch != t.now.epoch {
			w = max(w, t.last.Time)
		}
	}
	if w > s.W {
		s.W, s.Natural = w, w
		s.Max = max(s.Max, w)
	}
	s.LowEpoch = s.NextEpoch
	t.takeOwed(&s)
	return s
}

// takeOwed sets what is owed by a snapshot.
func (t *retracing) takeOwed(s *reorder.Snapshot) {
	for _, o := range t.owed {
		if o.Offset >= t.end {
			continue
		}
		if s.Count == 0 {
			s.Low, s.LowEpoch = o.Offset, o.leaderEpoch
		}
		s.Count++
		s.Sum += reorder.OffsetHash(o.Offset)
		if o.Time <= s.W && (!s.Releasing || o.Position.Before(s.Frontier)) {
			s.Releasing, s.Frontier = true, o.Position
		}
	}
	if t.repeats && s.Releasing && s.Frontier.Time == t.last.Time && t.any {
		s.Repeats = t.pending
		if t.original >= 0 && t.original < s.Low {
			s.Low, s.LowEpoch = t.original, t.originalIn // its repeats are still to come
		}
	}
}

// settling goes through what a recovery from s reads again, and finds what has come out and
// would be taken for owed, or could not be judged: records from the future, those that had no
// time by a registry's word, and those that were late beside repeats of their event time.
type settling struct {
	t     *retracing
	s     *reorder.Snapshot
	held  int64 // the last offset that is held, -1
	spans []reorder.Span
}

func (g *settling) step(r *sourceRecord) error {
	switch n := len(g.spans); {
	case !g.t.out(r.Offset):
		g.held = r.Offset
	case r.Offset <= g.s.Low || !r.Outside && !owes(g.s, r):
	case n > 0 && g.held < g.spans[n-1].To:
		g.spans[n-1].To = r.Offset + 1
	case n == reorder.MaxSettled:
		return notKnown("among the records that are held, more than %d that are late have to be remembered one by one", reorder.MaxSettled)
	default:
		g.spans = append(g.spans, reorder.Span{From: r.Offset, To: r.Offset + 1})
	}
	return nil
}

// owes reports whether a recovery from s would take a record for owed.
func owes(s *reorder.Snapshot, r *sourceRecord) bool {
	at := reorder.Position{Time: r.Time, Offset: r.Offset}
	return !r.Invalid && (r.Time > s.W || s.Releasing && !at.Before(s.Frontier))
}
