package verify

import (
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Rules say how the outputs of one source partition were made.
type Rules struct {
	Topic         string // the source topic
	Ordered, Late string // its outputs
	Partition     int32
	Prefix        string // of the headers that were appended, for example "tidemark-"

	// Required are the headers that every ordered record has to have, if there is room:
	// Watermark, SourceOffset and EventTime of it count. Whoever asks for the source
	// offset also demands that late records say why they are late.
	Required emit.Headers

	// Unnamed says that ordered records need not name their source record, which is then
	// found by its bytes.
	Unnamed bool

	// OrderedMax and LateMax are the largest batches, in bytes, that the outputs take. A
	// record that fits into one with all its headers must have them. 0: the brokers'
	// default.
	OrderedMax, LateMax int

	// EventTime is the reading of event times that the outputs were made
	// with. It sees source records and outputs without what was appended. Where a record
	// had an event time that it cannot make again, its error wraps ErrTimeUnknown.
	EventTime func(*kgo.Record) (watermark.Time, error)

	// SchemaID returns the id of the schema of a value, as text. It is nil where
	// event times need no schemas.
	SchemaID func(*kgo.Record) (id string, ok bool)

	// Identity is what repeats were told by from originals, and Dropped says that
	// they are in no output. Without an identity nothing is said of them.
	Identity emit.Identity
	Dropped  bool

	// AtLeastOnce counts repeats instead of reporting them, and judges order
	// and truth as a consumer sees them that drops what is not above the last
	// (epoch, event time, source offset).
	AtLeastOnce bool
}

// Scope is what the group's commit says of a partition, and how far back its
// topics go.
type Scope struct {
	Origin      int64 // the offset where the group began, or was last reset to
	Committed   int64 // L: the lowest offset still owed to the outputs
	Next        int64 // H: the next offset to read
	Epoch       int64
	W           watermark.Time
	Buffered    int64  // how many offsets of [Committed, Next) were buffered
	BufferedSum uint32 // the sum of their hashes

	// Frontier is the next record of the release that the commit came in the
	// midst of, if Releasing.
	Releasing bool
	Frontier  reorder.Position

	// Quiet: nothing was committed from the time of this commit to that of
	// the ends up to which the outputs are checked, so the two describe the
	// same instant.
	Quiet bool

	RawStart, OrderedStart, LateStart int64 // first offsets that retention left

	// RawEnd is where the source ends, 0 if that is not known. Below it a record that
	// is not there may have been compacted away.
	RawEnd int64

	// TimesFrom and TimesEpoch are the source offset and the epoch from which on event times
	// are made as they are now, as the commit says; From is where they are to be judged
	// from.
	TimesFrom  int64
	TimesEpoch int64
	From       From

	// OrderedHidden and LateHidden: what the commit put out may stand behind an open
	// transaction, where readers do not see it.
	OrderedHidden, LateHidden bool

	// Epochs says that outputs may be of more than one epoch, so all of them have to be
	// shown to Foresee first.
	Epochs bool
}

// owed reports whether a record of the source, read below Next, was still owed to the
// outputs at the commit.
func (s *Scope) owed(at reorder.Position) bool {
	return at.Offset >= s.Committed && at.Offset < s.Next &&
		(at.Time > s.W || s.Releasing && !at.Before(s.Frontier))
}

// Checker compares the outputs of one source partition with the source and
// with what the contract promises of them. It is fed record by record, each
// topic in the order of its own offsets and the three in any interleaving:
//
//	raw      0 1 2 3 4 5 6 ...          ─► Raw     ─┐
//	.ordered   0 2 1 4   ...            ─► Ordered ─┼─► waiting: {3, 5, 6}
//	.late          (3)                  ─► Late    ─┘
//
// It holds a hash of what one side has shown and the other has not, so its
// memory is the distance between the streams and not the topic; where the source has
// holes, one bit for each offset comes on top of that. Two laws are judged only as far
// as the interleaving shows them, and examine feeds it such that both are judged in
// full: that what comes out in order is above the watermarks that late records from
// before it name, and, after a reset of the group, which reads the source again, that
// each epoch is whole (epochs.go).
type Checker struct {
	rules   Rules
	scope   Scope
	readers [2]*emit.Reader // of ordered and late

	raws      map[int64]pending // source records without an output
	outs      map[int64]suspect // outputs whose source record has not come
	rawNext   int64             // one above the last source offset
	lowest    int64             // source records below it are not looked at
	present   present
	orphans   offsets         // source offsets of outputs that nothing can be compared with
	shown     offsets         // at least once: source offsets of earlier generations that may be of the last
	dubious   []int64         // of raws: those that may have come out and gone
	assumed   int64           // of these, those below it were taken to be gone
	recent    recent          // at least once: what came out last
	compacted bool            // the source has lost records in its midst
	ended     bool            // no more outputs come
	epochs    epochs          // what Foresee has seen
	votes     map[int64]*vote // by epoch

	begins  *place // of the first ordered record that retention left
	ordered orderedState
	late    lateState
	marks   lateMarks

	strays  []suspect                 // not what this source partition holds
	bares   []bare                    // without identity
	named   [2]int                    // how many of ordered and late have one
	guessed bool                      // which of several source records a bare one is was not to be told
	missing map[int64]uint64          // source records that should be in an output and are not
	newer   map[uint64][]int64        // source records from above Next, by hash, as bares seek them
	lost    int64                     // more of them, above maxSuspects
	arrived map[int64]kgo.RecordAttrs // of raws: those whose timestamp is when they came
	outside map[int64]int64           // of raws: timestamps outside 1678..2262, ms
	repeats repeats
	unnamed unnamed
	report  Report

	out output // the one being judged
	buf []byte

	windows windowCheck
}

// place is where an output stands: places rise along an output partition.
type place struct {
	epoch int64
	reorder.Position
}

func (p place) below(q place) bool {
	if p.epoch != q.epoch {
		return p.epoch < q.epoch
	}
	return p.Before(q.Position)
}

// suspect is an output that is not proven yet, or not any more.
type suspect struct {
	kind   Kind
	late   bool
	source int64
	offset int64
	epoch  int64
	hash   uint64
	others []uint64 // hashes, should some of the headers taken for ours be the source's
	hole   bool     // there is no source record at its offset
	ms     int64    // the source's timestamp, as it says
	why    string
}

// is reports whether the suspect is the source record with this hash.
func (s *suspect) is(h uint64) bool { return s.hash == h || slices.Contains(s.others, h) }

// maxSuspects bounds what is kept for naming faults. What is above it is
// counted all the same.
const maxSuspects = 10_000

// NewChecker returns a Checker that has seen nothing.
func NewChecker(rules Rules, scope Scope) *Checker {
	return &Checker{
		rules:   rules,
		scope:   scope,
		readers: [2]*emit.Reader{emit.NewReader(rules.Prefix, false), emit.NewReader(rules.Prefix, true)},
		raws:    map[int64]pending{},
		outs:    map[int64]suspect{},
		missing: map[int64]uint64{},
		votes:   map[int64]*vote{},
		repeats: repeats{group: map[uint64]int64{}, claims: map[uint64][]claim{}, quiet: map[int64]quiet{}},
		arrived: map[int64]kgo.RecordAttrs{},
		outside: map[int64]int64{},
		rawNext: scope.RawStart,
		lowest:  max(scope.RawStart, scope.Origin),
		epochs:  newEpochs(),
		ordered: newOrderedState(),
		recent:  recent{on: rules.AtLeastOnce},
		unnamed: unnamed{most: maxUnnamed},
		report: Report{
			Topic: rules.Topic, Partition: rules.Partition,
			Late: map[string]int64{}, Faults: map[Kind]Faults{}, Unjudged: map[Gap]int64{},
		},
	}
}

// Pending returns how many offsets one side has shown and the other has not.
func (c *Checker) Pending() int { return len(c.raws) + len(c.outs) }

// Compacted says that the source has lost records in its midst: what they became in
// the outputs cannot be compared with anything.
func (c *Checker) Compacted() { c.compacted = true }

// Raw takes the next record of the source.
func (c *Checker) Raw(r *kgo.Record) {
	c.rawNext = r.Offset + 1
	c.present.add(r.Offset)
	if r.Offset < c.lowest {
		return
	}
	read := c.final() && r.Offset < c.scope.Next
	if read {
		c.report.Read++
	}
	h := c.hash(r, r.Headers)
	ms, inside := watermark.KafkaMillis(r.Timestamp)
	if s, ok := c.outs[r.Offset]; ok {
		delete(c.outs, r.Offset)
		if s.is(h) && (inside || s.late && s.ms == watermark.NearestMillis(ms)) {
			c.recent.add(r.Offset, h)
			c.matched(s.epoch, s.source)
			return
		}
		s.kind, s.why = KindChanged, changedWhy
		c.mismatch(s)
	}
	if read {
		c.mayBeDropped(r)
	}
	p := pending{hash: h}
	if read {
		p = c.look(r, h)
	}
	if c.ended && !c.mayBeHeld(r.Offset, p) {
		c.unmatched(r.Offset, p)
		return
	}
	c.raws[r.Offset] = p
	if c.rules.Unnamed && !c.ended {
		c.unnamed.add(r.Offset, h)
	}
	if !inside {
		c.outside[r.Offset] = ms
	}
	if r.Attrs.TimestampType() != 0 { // which its copies do not show
		c.arrived[r.Offset] = r.Attrs
	}
	if read {
		c.postpone(r.Offset, p)
	}
}

// passed says that there is no other source record below an offset.
func (c *Checker) passed(offset int64) { c.rawNext = max(c.rawNext, offset) }

// pending is a source record whose output has not come.
type pending struct {
	hash   uint64
	time   watermark.Time
	timing timing
}

// timing is what is known of the event time of a pending record. It is read only where
// something depends on it.
type timing uint8

const (
	timeUnread  timing = iota
	timeUsable         // it has one
	timeInvalid        // it has none, and so has no place in the order
	timeUnknown        // nobody can tell: its schema cannot be had now and may have been then, or there is a Gap
)

func (p pending) at(offset int64) reorder.Position {
	return reorder.Position{Time: p.time, Offset: offset}
}

// look reads the event time of a source record, if it may be held or its output deleted.
func (c *Checker) look(r *kgo.Record, h uint64) pending {
	p := pending{hash: h}
	if r.Offset < c.scope.Committed && c.scope.OrderedStart == 0 && !c.scope.OrderedHidden {
		return p
	}
	t, gap, err := c.eventTime(r, r.Offset, anyEpoch)
	p.time, p.timing = t, timeUsable
	ms, inside := watermark.KafkaMillis(r.Timestamp)
	_, looksInside := watermark.FromMillis(watermark.NearestMillis(ms))
	switch {
	case !inside && looksInside: // to the client, so the record is taken for an ordinary one
		p.timing = timeUnknown
	case gap != "":
		p.timing = timeUnknown
	case err != nil:
		p.timing = timeInvalid
		if c.rules.SchemaID != nil {
			if _, has := c.rules.SchemaID(r); has {
				p.timing = timeUnknown
			}
		}
	}
	return p
}

// mayBeHeld reports whether the commit may hold a source record buffered.
func (c *Checker) mayBeHeld(offset int64, p pending) bool {
	if offset < c.scope.Committed || offset >= c.scope.Next {
		return false
	}
	return p.timing == timeUnknown || p.timing == timeUsable && c.scope.owed(p.at(offset))
}

// maxDubious bounds the records that are kept although what they became is most likely
// deleted. Only a late record can still come of them, and late records come in the
// order of their source, but for duplicates.
const maxDubious = 1 << 16

// postpone notes a source record that stands before all that retention left in order.
func (c *Checker) postpone(offset int64, p pending) {
	if c.rules.Unnamed || offset >= c.scope.Committed || p.timing != timeUsable || !c.orderedGone(p.at(offset)) {
		return
	}
	c.dubious = append(c.dubious, offset)
	if len(c.dubious) < maxDubious {
		return
	}
	half := c.dubious[:maxDubious/2]
	for _, offset := range half {
		if p, ok := c.raws[offset]; ok {
			c.unmatched(offset, p)
			delete(c.raws, offset)
		}
	}
	c.assumed = half[len(half)-1] + 1
	c.dubious = append(c.dubious[:0], c.dubious[len(half):]...)
}

// OutputsEnd says that no more outputs come. What the source still shows is
// then judged as it comes, and not kept.
func (c *Checker) OutputsEnd() {
	if c.ended {
		return
	}
	c.ended = true
	c.seeksNewer()
	for _, offset := range slices.Sorted(maps.Keys(c.raws)) {
		if p := c.raws[offset]; !c.mayBeHeld(offset, p) {
			c.unmatched(offset, p)
			delete(c.raws, offset)
		}
	}
}

// unmatched judges a source record that is in no output and not held.
func (c *Checker) unmatched(offset int64, p pending) {
	switch {
	case offset >= c.scope.Next: // not read by the commit
		c.noteNewer(offset, p.hash)
	case c.shown.has(offset):
		c.report.Replayed-- // it may as well be of this generation
	case c.mayBeGone(offset, p):
		c.report.Unproven++
	case c.mayBeHidden(offset, p):
		c.skip(GapHidden)
	case len(c.missing) < maxSuspects || c.rules.Dropped:
		c.missing[offset] = p.hash
	default:
		c.lost++
	}
}

// mayBeGone reports whether retention may have deleted the output of a source record.
func (c *Checker) mayBeGone(offset int64, p pending) bool {
	return p.timing != timeInvalid && c.orderedGone(p.at(offset)) || c.lateGone(offset)
}

// orderedGone reports whether retention may have deleted the ordered record that stands
// at a place. .ordered rises by (epoch, event time, source offset), so what is above
// the first that is left is still there. The epoch of a source record is known by the
// outputs of higher and lower source offsets.
func (c *Checker) orderedGone(at reorder.Position) bool {
	if c.scope.OrderedStart == 0 {
		return false
	}
	if c.begins == nil {
		return true
	}
	switch e := c.begins.epoch; {
	case e < c.epochs.last, c.epochs.after(e) <= at.Offset:
		return false // it is of a later epoch
	case e > c.epochs.last && c.epochs.after(e-1) > at.Offset:
		return true // it may be of an earlier one
	}
	return at.Before(c.begins.Position)
}

// lateGone reports whether retention may have deleted the late record of a source
// offset. But for duplicates, late records have the order of their source.
func (c *Checker) lateGone(offset int64) bool {
	switch l := &c.late; {
	case c.scope.LateStart == 0:
		return false
	case !l.seen:
		return true
	default:
		return l.firstEpoch >= c.epochs.last && offset < l.first
	}
}

// Begin takes the first record of .ordered where retention has shortened it, before
// anything else is fed. One without identity says nothing; then the first that has one
// does.
func (c *Checker) Begin(r *kgo.Record) {
	if c.begins != nil {
		return
	}
	var o output
	if !c.read(&o, r, false) {
		return
	}
	// Its own headers may have our names: see stripLess. The earliest place is sure to
	// be no later than its own.
	for n := len(o.Source.Headers); n <= len(o.Headers); n++ {
		o.Source.Headers = o.Headers[:n]
		t, _, err := c.eventTime(&o.Source, o.SourceOffset, o.Epoch)
		p := place{o.Epoch, reorder.Position{Time: t, Offset: o.SourceOffset}}
		if err == nil && (c.begins == nil || c.begins.below(p)) {
			c.begins = &p
		}
	}
}

// appearance is what an output is to its source.
type appearance int

const (
	fresh   appearance = iota // the first of its source record
	again                     // another one
	stale                     // of a generation that is over
	foreign                   // not this source record at all; reported
	orphan                    // its source record cannot be looked at any more
)

// match finds the source record of c.out.
func (c *Checker) match() appearance {
	o := &c.out
	switch p, ok := c.raws[o.SourceOffset]; {
	case o.Epoch < c.epochs.current():
		return stale
	case c.final() && !c.rules.AtLeastOnce && o.SourceOffset < c.scope.Origin && o.Epoch >= c.scope.Epoch:
		c.faultf(KindChanged, "is from below offset %d, where the group began this epoch", c.scope.Origin)
		return foreign
	case o.SourceOffset < c.lowest:
		return c.orphaned()
	case o.SourceOffset >= c.rawNext: // the source has not come so far
		if s, ok := c.outs[o.SourceOffset]; ok {
			return c.repeated(s.is)
		}
		c.outs[o.SourceOffset] = c.suspected()
		return fresh
	case ok && (p.hash == o.hash || c.stripLess(p.hash)) && c.namesTimestamp():
		o.proven = true
		if attrs, ok := c.arrived[o.SourceOffset]; ok {
			o.Source.Attrs = attrs
			delete(c.arrived, o.SourceOffset)
		}
		delete(c.raws, o.SourceOffset)
		delete(c.repeats.quiet, o.SourceOffset)
		c.recent.add(o.SourceOffset, p.hash)
		c.matched(o.Epoch, o.SourceOffset)
		return fresh
	case ok:
		s := o.suspect()
		s.kind, s.why = KindChanged, changedWhy
		return c.mismatch(s)
	case c.present.has(o.SourceOffset):
		return c.repeatedOrGone()
	case c.compacted:
		return c.orphaned()
	}
	s := o.suspect()
	s.kind, s.hole, s.why = KindChanged, true, noSourceWhy
	return c.mismatch(s)
}

// namesTimestamp reports whether c.out, whose bytes are those of its source record, says of
// a timestamp that cannot be written what it is. There was room for all late records say,
// for it names its source record.
func (c *Checker) namesTimestamp() bool {
	o := &c.out
	ms, outside := c.outside[o.SourceOffset]
	if !outside {
		return true
	}
	delete(c.outside, o.SourceOffset)
	says, _ := watermark.KafkaMillis(o.Source.Timestamp)
	return o.late && says == watermark.NearestMillis(ms)
}

const (
	changedWhy  = "key, value, headers or timestamp are not those of the source record"
	noSourceWhy = "there is no source record at this offset"
)

// repeated judges an output of a source record that has come out before, given whether
// a hash is of that.
func (c *Checker) repeated(is func(h uint64) bool) appearance {
	if !c.rules.AtLeastOnce {
		return again
	}
	s := c.suspected()
	if is(s.hash) || slices.ContainsFunc(s.others, is) {
		return again
	}
	s.kind, s.why = KindChanged, changedWhy
	return c.mismatch(s)
}

func (c *Checker) repeatedOrGone() appearance {
	o := &c.out
	if h, ok := c.recent.get(o.SourceOffset); ok {
		return c.repeated(func(other uint64) bool { return other == h })
	}
	if o.SourceOffset < c.assumed && !c.orphans.has(o.SourceOffset) {
		t, _, err := c.eventTime(&o.Source, o.SourceOffset, o.Epoch)
		if err != nil || c.orderedGone(reorder.Position{Time: t, Offset: o.SourceOffset}) {
			return c.orphaned()
		}
	}
	return again
}

// orphaned takes note of an output whose source record is gone.
func (c *Checker) orphaned() appearance {
	if c.orphans.set(c.out.SourceOffset) {
		return again
	}
	c.report.Expired++
	return orphan
}

// matched takes note of an output that is its source record, byte for byte.
func (c *Checker) matched(epoch, source int64) {
	switch {
	case !c.final():
		c.report.Replayed++
		if c.rules.AtLeastOnce && epoch >= c.epochs.last {
			c.shown.set(source)
		}
	case source >= c.scope.Next:
		c.report.Read++ // since the commit
	}
	if epoch < c.scope.Epoch {
		c.vote(epoch).same++
	}
}

// counts says whether order and truth are to be judged by an output. A repeat is not.
func (c *Checker) counts(seen appearance) bool {
	switch {
	case seen == fresh || seen == orphan:
		return true
	case seen == foreign:
		return false
	case c.rules.AtLeastOnce:
		c.report.Repeated++
	case seen == stale:
		kind := KindOutOfOrder
		if c.out.late {
			kind = KindWrongLate
		}
		c.faultf(kind, "epoch %d comes after epoch %d has begun", c.out.Epoch, c.epochs.current())
	default:
		s := c.out.suspect()
		s.kind, s.why = KindDuplicate, "its source offset was in the output before"
		c.stray(s)
	}
	return false
}

// orderedState is what order and truth need of the records before.
type orderedState struct {
	last  place
	lines int64 // watermark headers seen in this epoch
	mark  int64 // the highest of them, ms
	run   bareRun
}

func newOrderedState() orderedState {
	return orderedState{last: place{0, reorder.Position{Time: watermark.None, Offset: -1}}}
}

// Ordered takes the next record of `.ordered`.
//
// A record without `source-offset` is bare: it was too large for the headers.
// It has no identity; at the end it must equal a source record that is in no other
// output, and of its order is judged what its event time tells.
func (c *Checker) Ordered(r *kgo.Record) {
	c.report.Ordered++
	o := &c.out
	if !c.open(r, false) {
		if c.rules.Unnamed && c.cameBefore() {
			c.report.Repeated++
			return
		}
		c.bareOutput(r)
		c.bareInOrder()
		return
	}
	seen := c.match()
	if seen == foreign {
		return
	}
	t, gap, err := c.eventTime(&o.Source, o.SourceOffset, o.Epoch)
	switch {
	case gap != "":
		c.untimed(r, seen, gap)
		return
	case err != nil:
		c.settingFault(KindOutOfOrder, "has no place in the order: its event time is unusable: %v", err)
		return
	}
	p := place{o.Epoch, reorder.Position{Time: t, Offset: o.SourceOffset}}
	if c.begins == nil && c.scope.OrderedStart > 0 {
		first := p
		c.begins = &first
	}
	if !c.counts(seen) {
		return
	}
	wrong := c.report.Times.Wrong
	above := c.ordered.last.below(p)
	if !above && c.rules.AtLeastOnce && c.scope.OrderedStart > 0 && p.below(*c.begins) {
		return // repeats what retention has deleted
	}
	c.requires(r)
	if !above {
		l := c.ordered.last
		c.settingFault(KindOutOfOrder, "epoch %d, event time %d ns follows epoch %d, event time %d ns, source offset %d",
			p.epoch, int64(p.Time), l.epoch, int64(l.Time), l.Offset)
		if c.rules.AtLeastOnce || p.epoch < l.epoch {
			return // a consumer drops it
		}
	}
	c.endRun(p)
	if p.epoch > c.ordered.last.epoch {
		c.ordered.lines = 0
	}
	c.judgeGroup(p)
	c.ordered.last = p
	c.truth(t)
	c.onTime(p)
	c.byTheCommit(p)
	if c.report.Times.Wrong == wrong {
		c.report.Times.right(p)
	}
}

// truth judges the watermark headers: what an earlier one has closed stays
// closed, they never go back, and one is at least just below its own record.
func (c *Checker) truth(t watermark.Time) {
	o, ms := &c.out, t.Millis()
	if v, has, err := o.Number(emit.WordEventTime); has && (err != nil || v != ms) {
		c.settingFault(KindChanged, "event-time header is %s, the event time is %d ms", emit.Shown(o.Value(emit.WordEventTime)), ms)
	}
	if wrong := c.wrongWindows(t); wrong != "" {
		c.settingFault(KindChanged, "%s", wrong)
	}
	if s := &c.ordered; s.lines > 0 && ms <= s.mark {
		c.settingFault(KindWatermarkLie, "event time %d ms comes after watermark %d", ms, s.mark)
	}
	if w, ok := c.watermark(); ok && w < ms-1 {
		c.settingFault(KindWatermarkLie, "watermark %d is behind its own record at %d ms", w, ms)
	}
}

// watermark reads the watermark header of an ordered record, which never goes back in an
// epoch. It is not ok where there is none, or where something else is wrong with it.
func (c *Checker) watermark() (w int64, ok bool) {
	o, s := &c.out, &c.ordered
	w, has, err := o.Number(emit.WordWatermark)
	switch {
	case !has || !c.rules.Required.Watermark && !o.proven:
		return 0, false // nobody knows whether it is the source's
	case err != nil:
		c.faultf(KindWatermarkLie, "watermark (%s) is no number", emit.KindOf(o.Value(emit.WordWatermark)))
		return 0, false
	case s.lines > 0 && w < s.mark:
		c.faultf(KindWatermarkLie, "watermark %d follows watermark %d", w, s.mark)
	default:
		ok = true
	}
	if s.lines++; s.lines == 1 || w > s.mark {
		s.mark = w
	}
	c.report.Watermark.include(w)
	return w, ok
}

// byTheCommit judges an ordered record by what the commit says that was made together
// with it, or after it: of which epoch the group is, which records are still to come
// out, and how far its watermark has come. At least once, outputs may be newer than
// the commit.
func (c *Checker) byTheCommit(p place) {
	if _, waiting := c.outs[p.Offset]; waiting || !c.exact() {
		return // it may be another partition's
	}
	switch s := &c.scope; {
	case p.epoch > s.Epoch:
		c.faultf(KindOutOfOrder, "epoch %d, but the group has only reached epoch %d", p.epoch, s.Epoch)
	case p.epoch < s.Epoch || !c.final():
	case s.owed(p.Position) || p.Time > s.W:
		c.settingFault(KindDuplicate, "event time %d ns, but the commit still owes it to the outputs: it would be written twice", int64(p.Time))
	default:
		if w, has, err := c.out.Number(emit.WordWatermark); has && err == nil && (c.rules.Required.Watermark || c.out.proven) && w >= s.W.Next().Millis() {
			c.faultf(KindWatermarkLie, "watermark %d, but the group's watermark has only reached %d ns", w, int64(s.W))
		}
	}
}

// stray keeps an output that is not proven to be this partition's, until it
// is known whether another partition lost it.
func (c *Checker) stray(s suspect) {
	if len(c.strays) < maxSuspects {
		c.strays = append(c.strays, s)
		return
	}
	delete(c.raws, s.source)
	c.fault(s.kind, s)
}

func (c *Checker) faultf(kind Kind, format string, args ...any) {
	s := c.out.suspect()
	if c.report.Faults[kind].Total < maxFirst {
		s.why = fmt.Sprintf(format, args...)
	}
	c.fault(kind, s)
}
