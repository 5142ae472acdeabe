package reorder

import (
	"fmt"
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
)

// Options are the laws a partition is run under. They may differ from those
// of an earlier run: what has been decided stays decided.
type Options struct {
	Strategy      watermark.Strategy
	Bound         time.Duration // how far behind the newest a record may come; Adaptive: the most it may be
	Floor         time.Duration // Adaptive: the least the bound may be
	TargetLate    int           // Adaptive: share of the records that may be late, in millionths
	Window        time.Duration // WindowMin: how far the window reaches back from the newest
	Lateness      time.Duration // WindowMin: how far behind the window's oldest a record may come
	IdleTimeout   time.Duration // proven silence after which the clock drains; 0: never
	MaxFuture     time.Duration // skew the future guard allows; 0: off
	ReanchorAfter int           // consecutive late records that start a new epoch; 0: off
	Identity      Identity      // by which repeats are known; nil: nobody asks
	Previous      bool          // records may take the time of one before them; see Record
}

// Record is what a partition is told of a record of the source topic.
type Record struct {
	Offset      int64
	LeaderEpoch int32
	Time        watermark.Time
	Invalid     bool // there is no usable event time
	Outside     bool // that it is Invalid is an outside service's word; see Settles
	Size        int  // bytes to keep for it while it is held

	// Previous: it has no time of its own, and takes one from what is held; see
	// previous.go. Key says which records it may take it from.
	Previous bool
	Key      uint64 // a hash of the record's key; looked at if Options.Previous
}

// Verdict is what becomes of a record.
type Verdict uint8

const (
	// OnTime: the record is held; the caller fills in its payload.
	OnTime Verdict = iota
	// BehindWatermark: late.
	BehindWatermark
	// Overflow: late, but only because memory forced the watermark ahead.
	Overflow
	// Future: too far ahead of the wall clock to be believed.
	Future
	// InvalidTime: no usable event time.
	InvalidTime
	// Settled: judged and dealt with before the last commit, or written over
	// the log since then, which EndReplay reports.
	Settled
	// Flush: the record starts a new epoch, and everything held has to be
	// released first. Step it again when Next has nothing more.
	Flush
	// Remembered: put out before the last commit, but repeats of it may still
	// be owed; the caller fills in its payload.
	Remembered
	// Duplicate: it repeats another. Step never says so; see Release.
	Duplicate
)

var verdicts = [...]string{"on-time", "behind-watermark", "overflow", "future", "invalid-time", "settled", "flush", "remembered", "duplicate"}

func (v Verdict) String() string { return verdicts[v] }

// Release is a record that has come due.
type Release struct {
	Position
	Epoch uint32
	// Watermark is the lookahead in ms: no later record of this output
	// partition and epoch has an event time <= it. A duplicate has none.
	Watermark int64
	// Duplicate says that the record repeats one of the same event time that
	// came out before it, and has no place in the order.
	Duplicate bool
	// Previous says that its event time is that of another; see Record.
	Previous bool
	// Body is the payload; it stays as it is until its flight has landed.
	Body []byte
}

// Partition is the state machine of one source partition. Its methods are
// called in the order of the log:
//
//	for each record:  Step          judge, hold, move the watermark
//	                  Mark          if it carries a watermark
//	                  Next, Next .. everything the watermark has passed
//	now and then:     Observe       idleness may move the watermark; Next ..
//	at any time:      Snapshot      what to commit with what came out so far
//	when durable:     Advance
//
// Where what comes out can be seen before it is committed, CommitFirst says when a
// commit has to come before the next record is stepped, or the next one taken.
//
// While a release is under way, that is, until Next returns false, nothing is
// stepped and nothing moves the watermark; but a commit may come in between,
// and its snapshot says how far the release has come.
type Partition struct {
	opts  Options
	clock watermark.Clock
	guard watermark.Guard
	idle  watermark.Idle

	observed   watermark.Instant // when the end of the log was looked at last,
	observedAt int64             // and what had been read by then

	queue calendar
	store arena
	group *group // nil: repeats are not told apart
	eng   *Engine

	lenders map[uint64]lender // Options.Previous: of each key that is held, the newest
	most    int               // keys there have been in it
	edge    Position          // Options.Previous: the last time given at the watermark's edge, and to whom first

	disorder *watermark.Disorder // Adaptive
	window   window              // WindowMin

	origin     int64 // where this group began
	timesFrom  int64 // see Snapshot
	timesEpoch uint32
	known      int32  // see Snapshot
	next       int64  // H: the next offset to read
	nextEpoch  int32  // leader epoch of the record at next-1
	epoch      uint32 // stretch of the output inside which order holds
	lateRun    int    // consecutive records behind the watermark
	flushed    bool   // the record at next starts a new epoch
	settled    spans  // on an outside service's word, above the lowest offset owed
	held       int64  // the last offset that was held

	count uint32 // records held
	sum   uint32 // of their hashed offsets
	bytes int64  // what it takes to hold them
	entry int64  // what one takes in queues

	warm   int  // how many of the next to come out have been warmed
	warmth byte // of no use, but see arena.warm

	dirty  bool      // there is something to commit
	doubts doubts    // decisions since then that reading again may not repeat
	replay *Snapshot // set until everything below its Next has been read again
	read   int64     // while replaying: the next offset to read again
	waits  bool      // while replaying: it has given up what it had found, for want of memory
	leader int32     // while replaying: the first leader epoch newer than the snapshot's, or that
	parted int64     // the offset at which it was found
}

// entrySize is what a record takes in the queue, in bytes, more or less.
const entrySize = 32

// warmAtOnce is how many payloads a processor can fetch at once, more or less.
const warmAtOnce = 16

// Next returns the next record that has come due, in order.
func (p *Partition) Next(out *Release) bool {
	if p.replay != nil {
		return false
	}
	if p.group != nil && p.duplicate(out) {
		return true
	}
	e, ok := p.queue.peek(p.clock.W)
	if !ok {
		p.queue.skipTo(p.clock.W)
		return false
	}
	if p.warm == 0 {
		next := p.queue.soon(warmAtOnce)
		p.warmth += p.store.warm(next)
		p.warm = len(next)
	}
	p.warm = max(p.warm-1, 0)
	p.queue.pop()
	p.dirty = true
	out.Position, out.Epoch, out.Duplicate = e.Position, p.epoch, false
	out.Previous = isPrevious(&p.store, e.ref)
	if p.group == nil {
		out.Body = p.take(e.ref)
	} else {
		out.Body = p.inGroup(e)
	}
	p.drop(e.Offset)
	if following, ok := p.queue.peek(p.clock.W); ok {
		out.Watermark = following.Time.Millis() - 1
	} else {
		out.Watermark = p.clock.W.Next().Millis() - 1
	}
	return true
}

// Step takes the record at or after NextOffset. For a record that is held or
// remembered it returns room for the payload, which has to be filled before the next call.
//
// wall is the wall clock; it matters to the future guard alone.
func (p *Partition) Step(r Record, wall watermark.Time) (Verdict, []byte) {
	if r.Offset < p.Position() {
		panic(fmt.Sprintf("reorder: stepped offset %d, expected %d or more", r.Offset, p.Position()))
	}
	if p.waits {
		panic(fmt.Sprintf("reorder: stepped offset %d of a partition that waits for memory", r.Offset))
	}
	if p.replay != nil {
		return p.again(r)
	}
	if r.Outside && !p.Settles(r.Offset) {
		panic(fmt.Sprintf("reorder: no room to remember offset %d, which is invalid on an outside service's word", r.Offset))
	}
	p.dirty = true
	if r.Previous {
		return p.stepPrevious(r)
	}
	limit := p.guard.Limit()
	v := p.judge(r, wall)
	p.doubts.moved = p.doubts.moved || p.guard.Limit() != limit
	if v == Flush {
		return v, nil
	}
	p.next, p.nextEpoch = r.Offset+1, r.LeaderEpoch
	if v == OnTime || v == BehindWatermark || v == Overflow {
		p.learn(r.Time)
	}
	var body []byte
	switch v {
	case OnTime:
		p.lateRun, p.flushed = 0, false
		body = p.hold(r)
		if p.follow(r.Time) {
			p.idle.Restart(p.eng.now)
		}
	case BehindWatermark:
		p.lateRun++
		p.followLearned()
	case Overflow:
		p.followLearned()
	case Future:
		p.refuse(r.Time)
	case InvalidTime:
		p.doubts.word = p.doubts.word || r.Outside
		if r.Outside && p.count > 0 {
			p.settled.add(r.Offset, p.held)
		}
	}
	return v, body
}

func (p *Partition) judge(r Record, wall watermark.Time) Verdict {
	switch {
	case r.Invalid:
		return InvalidTime
	case p.guard.Future(r.Offset, r.Time, wall):
		return Future
	case !p.clock.Late(r.Time):
		return OnTime
	case r.Time > p.clock.Natural:
		return Overflow
	case p.opts.ReanchorAfter == 0 || p.lateRun+1 < p.opts.ReanchorAfter:
		return BehindWatermark
	case !p.flushed:
		// The clock jumped back. What is held comes out first, so that
		// the old epoch ends whole.
		p.clock.AdvanceTo(p.newest())
		p.flushed, p.doubts.moved = true, true
		return Flush
	}
	p.epoch++
	p.doubts.moved = true
	p.clock, p.window = watermark.NewClock(), newWindow()
	p.edge = Position{}
	p.queue.rewind()
	return OnTime
}

func (p *Partition) hold(r Record) []byte {
	ref, body := p.keep(r)
	p.enqueue(entry{Position: Position{r.Time, r.Offset}, ref: ref}, r.Previous)
	p.held = r.Offset
	p.count++
	p.sum += OffsetHash(r.Offset)
	p.account()
	return body
}

// enqueue puts a record that is held where it comes out of, and where the strategy
// looks for it, unless it has no time of its own.
func (p *Partition) enqueue(e entry, previous bool) {
	p.queue.push(e)
	if previous {
		return
	}
	if p.opts.Strategy == watermark.WindowMin {
		p.window.add(e.Time)
	}
}

func (p *Partition) drop(offset int64) {
	p.count--
	p.sum -= OffsetHash(offset)
	p.account()
}

// account tells the engine what holding the records costs.
func (p *Partition) account() {
	bytes := p.store.held() + int64(p.count)*p.entry + int64(len(p.lenders))*lenderSize
	p.eng.bytes += bytes - p.bytes
	p.bytes = bytes
}

// Skip takes note that the offsets below next hold nothing to judge: control
// records, aborted transactions, holes.
func (p *Partition) Skip(next int64, leaderEpoch int32) {
	if next <= p.Position() {
		return
	}
	if p.replay != nil {
		p.read = next
		return
	}
	p.next, p.nextEpoch, p.dirty = next, max(p.nextEpoch, leaderEpoch), true
}

// Observe takes what brokers have told of the end of the log. Idle time beyond
// the timeout moves the watermark like a clock until nothing is held; see
// watermark.Idle. It is not called while a release is under way.
func (p *Partition) Observe(heard watermark.Stretch) {
	// Who is asked when more than the end that he tells has been read already does
	// not know the end.
	behind := heard.Last > p.observed && heard.End < p.observedAt
	step := p.idle.Observe(heard, p.replay == nil && p.next >= heard.End && !behind)
	if p.replay == nil {
		p.observed, p.observedAt = p.eng.now, p.next
	}
	if step > 0 && p.count > 0 {
		if oldest, _ := p.queue.peek(watermark.Max); p.clock.W == watermark.None {
			p.clock.AdvanceTo(oldest.Time.Sub(1)) // no marker has come; there is nothing else to begin from
		}
		p.clock.Drain(step, p.newest())
		p.dirty, p.doubts.moved = true, true
	}
}

// Stir starts idle time anew: what stood still until now goes on.
func (p *Partition) Stir() { p.idle.Restart(p.eng.now) }

// force moves the watermark over a sixteenth of the event time held, or over
// the oldest record at least, to make room.
func (p *Partition) force() {
	oldest, ok := p.queue.peek(watermark.Max)
	if !ok {
		return
	}
	span := uint64(p.newest()) - uint64(oldest.Time)
	p.clock.ForceTo(oldest.Time.Add(time.Duration(span / 16)))
	p.dirty, p.doubts.moved = true, true
}

// Advance says that everything put out so far, and the snapshot taken with it,
// is durable.
func (p *Partition) Advance() {
	p.guard.Forget(p.Low())
	p.settled.forget(p.Low())
	p.dirty, p.doubts = false, doubts{}
}

// Changed reports whether there is something to commit.
func (p *Partition) Changed() bool { return p.dirty }

// Low returns the lowest offset still owed to the output: the offset to
// commit.
func (p *Partition) Low() int64 {
	if p.replay != nil {
		return p.replay.Low
	}
	if offset, _, ok := p.store.lowest(); ok {
		return offset
	}
	return p.next
}

// Position returns the offset to read next. While replaying it lies below the
// Next of the snapshot.
func (p *Partition) Position() int64 {
	if p.replay != nil {
		return p.read
	}
	return p.next
}

// NextOffset returns H, the end of what has been judged.
func (p *Partition) NextOffset() int64 { return p.next }

// LeaderEpoch returns the leader epoch of the last record that was judged, -1 if it is
// not known.
func (p *Partition) LeaderEpoch() int32 {
	if p.replay != nil {
		return p.replay.NextEpoch
	}
	return p.nextEpoch
}

// Status is what can be seen of a partition from outside.
type Status struct {
	Watermark watermark.Time // None before the first record
	Newest    watermark.Time // largest event time seen, None before the first record
	Epoch     uint32
	Low, Next int64         // committed if everything were durable, and next to read
	Records   int           // held
	Owed      int           // read, and not yet put out: the same, or while replaying what has to be found again
	Bytes     int64         // what holding them costs
	Bound     time.Duration // Adaptive: what has been learned so far
	Idle      bool
	Quiet     time.Duration // for how long nothing new has provably come; see watermark.Idle
	Replaying bool
	Again     int64 // while replaying: the next offset to read again
	Waiting   bool  // while replaying: for memory, until others have been read again
}

// Status returns the present state.
func (p *Partition) Status() Status {
	s := Status{
		Watermark: p.clock.W, Newest: p.clock.Max, Epoch: p.epoch,
		Low: p.Low(), Next: p.next, Records: int(p.count), Owed: p.Owed(), Bytes: p.bytes,
		Idle: p.idle.Idle(), Quiet: p.idle.Quiet(), Replaying: p.replay != nil, Again: p.read, Waiting: p.waits,
	}
	if p.disorder != nil {
		s.Bound = p.bound()
	}
	return s
}

// Owed returns how many records have been judged on time and not come out: those
// held, or while replaying those that have to be found again.
func (p *Partition) Owed() int {
	if p.replay != nil {
		return int(p.replay.Count)
	}
	return int(p.count)
}

// Newest returns the largest event time seen, None before the first record.
func (p *Partition) Newest() watermark.Time { return p.clock.Max }

// Watermark returns the watermark that judges, None before the first record.
func (p *Partition) Watermark() watermark.Time { return p.clock.W }

// Epoch returns the epoch that the next record put out belongs to.
func (p *Partition) Epoch() uint32 { return p.epoch }

// Due reports whether a release is under way.
func (p *Partition) Due() bool {
	_, due := p.Peek()
	return due
}

// Peek returns the record that Next would return.
func (p *Partition) Peek() (at Position, due bool) {
	if p.replay != nil {
		return at, false
	}
	return p.front()
}

// front returns the first record that is due.
func (p *Partition) front() (at Position, due bool) {
	if g := p.group; g != nil && g.head < len(g.aside) {
		return g.aside[g.head].Position, true
	}
	e, due := p.queue.peek(p.clock.W)
	return e.Position, due
}
