package emit

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Rules say how the outputs of one source partition were made.
type Rules struct {
	Topic         string // the source topic
	Ordered, Late string // its outputs
	Partition     int32
	Prefix        string // of the headers that were appended, for example "tidemark-"

	// EventTime is the reading of event times that the outputs were made
	// with. It sees source records and outputs without what was appended.
	EventTime func(*kgo.Record) (watermark.Time, error)

	// SchemaID returns the id of the schema that a value begins with. It is nil where
	// event times need no schemas.
	SchemaID func(value []byte) (id uint32, ok bool)

	// Identity is what repeats were told by from originals, and Dropped says that
	// they are in no output. Without an identity nothing is said of them.
	Identity Identity
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
// memory is the distance between the streams and not the topic. Two things
// depend on the interleaving, and Verify feeds it such that both hold: an
// output that repeats an earlier epoch is told from a duplicate only if the
// outputs come about in the order of their source offsets, and where
// retention has shortened `.ordered` its first record must come before Raw.
type Checker struct {
	rules Rules
	scope Scope
	names [2]headerNames // of ordered and late

	raws    map[int64]uint64 // source records without an output: their hashes
	outs    map[int64]suspect
	rawNext int64 // one above the last source offset
	outNext int64 // one above the highest source offset among the outputs
	ended   bool  // no more outputs come

	epoch   int64 // the highest among the outputs
	floor   int64 // outNext when it began: what is below may be a replay
	first   *place
	ordered orderedState
	late    lateState

	strays  []suspect                 // not what this source partition holds
	bares   []suspect                 // without identity
	missing map[int64]uint64          // source records that should be in an output and are not
	lost    int64                     // more of them, above maxSuspects
	dim     map[int64]bool            // of raws: those that may have come out and gone
	arrived map[int64]kgo.RecordAttrs // of raws: those whose timestamp is when they came
	repeats repeats
	report  Report

	out output // the one being judged
	buf []byte

	windows *families
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
	hash   uint64
	why    string
}

// maxSuspects bounds what is kept for naming faults. What is above it is
// counted all the same.
const maxSuspects = 10_000

// NewChecker returns a Checker that has seen nothing.
func NewChecker(rules Rules, scope Scope) *Checker {
	return &Checker{
		rules:   rules,
		scope:   scope,
		names:   [2]headerNames{newHeaderNames(rules.Prefix, orderedHeaders), newHeaderNames(rules.Prefix, lateHeaders)},
		windows: newFamilies(rules.Prefix),
		raws:    map[int64]uint64{},
		outs:    map[int64]suspect{},
		missing: map[int64]uint64{},
		dim:     map[int64]bool{},
		repeats: repeats{group: map[uint64]int64{}, claims: map[uint64][]claim{}, quiet: map[int64]quiet{}},
		arrived: map[int64]kgo.RecordAttrs{},
		rawNext: scope.RawStart,
		ordered: orderedState{last: place{0, reorder.Position{Time: watermark.None, Offset: -1}}},
		report: Report{
			Topic: rules.Topic, Partition: rules.Partition,
			Late: map[string]int64{}, Faults: map[Kind]Faults{},
		},
	}
}

// Pending returns how many offsets one side has shown and the other has not.
func (c *Checker) Pending() int { return len(c.raws) + len(c.outs) }

// Raw takes the next record of the source.
func (c *Checker) Raw(r *kgo.Record) {
	c.report.Read++
	c.rawNext = r.Offset + 1
	h := c.hash(r, r.Headers)
	if s, ok := c.outs[r.Offset]; ok {
		delete(c.outs, r.Offset)
		if s.hash == h {
			return
		}
		s.kind, s.why = KindChanged, changedWhy
		c.stray(s)
	}
	c.mayBeDropped(r)
	if c.beforeFirst(r, r.Offset) {
		if r.Offset < min(c.first.Offset, c.scope.Committed) {
			c.unmatched(r.Offset, h)
			return
		}
		if c.epoch == c.first.epoch {
			c.dim[r.Offset] = true
		}
	}
	if c.ended && !c.held(r.Offset) {
		c.unmatched(r.Offset, h)
		return
	}
	c.raws[r.Offset] = h
	if r.Attrs.TimestampType() != 0 { // which its copies do not show
		c.arrived[r.Offset] = r.Attrs
	}
}

// held reports whether the commit may hold an offset buffered.
func (c *Checker) held(offset int64) bool {
	return offset >= c.scope.Committed && offset < c.scope.Next && offset >= c.scope.Origin
}

// OutputsEnd says that no more outputs come. What the source still shows is
// then judged as it comes, and not kept.
func (c *Checker) OutputsEnd() {
	if c.ended {
		return
	}
	c.ended = true
	for _, offset := range slices.Sorted(maps.Keys(c.raws)) {
		if !c.held(offset) {
			c.unmatched(offset, c.raws[offset])
			delete(c.raws, offset)
		}
	}
}

// unmatched judges a source record that is in no output.
func (c *Checker) unmatched(offset int64, h uint64) {
	switch {
	case offset < c.scope.Origin || offset >= c.scope.Next:
		c.report.Read-- // never the group's, or not yet
	case !c.provable(offset) || c.dim[offset]:
		c.report.Unproven++
	case len(c.missing) < maxSuspects || c.rules.Dropped:
		c.missing[offset] = h
	default:
		c.lost++
	}
}

// provable reports whether the outputs go back far enough for a record that
// is in none of them to be lost, rather than deleted by retention.
func (c *Checker) provable(offset int64) bool {
	if c.scope.OrderedStart > 0 && (c.first == nil || offset < c.first.Offset) {
		return false
	}
	return c.scope.LateStart == 0 || c.late.seen && offset >= c.late.first
}

// beforeFirst reports whether a record's place is before all that retention
// left of .ordered, so that it may have come out and gone.
func (c *Checker) beforeFirst(r *kgo.Record, source int64) bool {
	if c.scope.OrderedStart == 0 || c.first == nil {
		return false
	}
	t, err := c.rules.EventTime(r)
	return err == nil && reorder.Position{Time: t, Offset: source}.Before(c.first.Position)
}

// appearance is what an output is to its source.
type appearance int

const (
	fresh   appearance = iota // the first of its source record
	again                     // another one
	foreign                   // not this source record at all; reported
	orphan                    // its source record cannot be looked at any more
)

// match finds the source record of c.out.
func (c *Checker) match() appearance {
	o := &c.out
	s := o.suspect()
	defer func() { c.outNext = max(c.outNext, o.source+1) }()
	if o.source >= c.rawNext { // the source has not come so far
		if _, ok := c.outs[o.source]; ok {
			return again
		}
		c.outs[o.source] = s
		return fresh
	}
	h, ok := c.raws[o.source]
	switch {
	case ok && (h == o.hash || c.stripLess(h)):
		if attrs, ok := c.arrived[o.source]; ok {
			o.rec.Attrs = attrs
			delete(c.arrived, o.source)
		}
		delete(c.raws, o.source)
		delete(c.dim, o.source)
		delete(c.repeats.quiet, o.source)
		return fresh
	case ok:
		s.kind, s.why = KindChanged, changedWhy
		c.stray(s)
		return foreign
	case c.gone(o):
		return orphan
	}
	return again
}

const changedWhy = "key, value, headers or timestamp are not those of the source record"

// gone reports whether the source record of an output is no longer there to
// be compared with, or was not read because it is not the group's.
func (c *Checker) gone(o *output) bool {
	return o.source < max(c.scope.RawStart, c.scope.Origin) ||
		c.first != nil && o.source < c.first.Offset && c.beforeFirst(&o.rec, o.source)
}

// enter follows the epochs of both outputs.
func (c *Checker) enter(epoch int64) {
	if epoch <= c.epoch {
		return
	}
	c.epoch, c.floor = epoch, c.outNext
	if c.scope.OrderedStart > 0 && c.first == nil {
		c.floor = math.MaxInt64 // nobody knows any more
	}
}

// counts says whether order and truth are to be judged by an output, given
// whether it stands above those before. A replay is judged, a repeat is not.
func (c *Checker) counts(seen appearance, above bool) bool {
	switch {
	case seen == foreign:
		return false
	case seen == fresh:
		return true
	case seen == orphan && (above || !c.rules.AtLeastOnce):
		c.report.Expired++
		return true
	case seen == again && above && c.replay():
		c.report.Replayed++
		return true
	case c.rules.AtLeastOnce:
		c.report.Repeated++
	default:
		s := c.out.suspect()
		s.kind, s.why = KindDuplicate, "its source offset has come out before"
		c.stray(s)
	}
	return false
}

// replay reports whether an earlier epoch may have put out the source record
// of c.out.
func (c *Checker) replay() bool {
	return c.floor == math.MaxInt64 || c.out.epoch > 0 && c.out.source < c.floor
}

// orderedState is what order and truth need of the records before.
type orderedState struct {
	last  place
	lines int64 // watermark headers seen in this epoch
	mark  int64 // the highest of them, ms
}

// Ordered takes the next record of `.ordered`.
//
// A record without `source-offset` is bare: it was too large for the headers.
// It has no identity, so it is not judged for order, and at the end it must
// equal a source record that is in no other output.
func (c *Checker) Ordered(r *kgo.Record) {
	c.report.Ordered++
	o := &c.out
	if !c.open(r, false) {
		return
	}
	c.enter(o.epoch)
	seen := c.match()
	if seen == foreign {
		return
	}
	t, err := c.rules.EventTime(&o.rec)
	if err != nil {
		c.faultf(KindOutOfOrder, "has no place in the order: its event time is unusable: %v", err)
		return
	}
	p := place{o.epoch, reorder.Position{Time: t, Offset: o.source}}
	if c.first == nil {
		first := p
		c.first = &first
	}
	above := c.ordered.last.below(p)
	if !c.counts(seen, above) {
		return
	}
	if !above && c.rules.AtLeastOnce && c.scope.OrderedStart > 0 && p.below(*c.first) {
		return // repeats what retention has deleted
	}
	if !above {
		l := c.ordered.last
		c.faultf(KindOutOfOrder, "epoch %d, event time %d ns follows epoch %d, event time %d ns, source offset %d",
			p.epoch, int64(p.Time), l.epoch, int64(l.Time), l.Offset)
		if c.rules.AtLeastOnce || p.epoch < l.epoch {
			return // a consumer drops it
		}
	}
	if p.epoch > c.ordered.last.epoch {
		c.ordered.lines = 0
	}
	c.judgeGroup(p)
	c.ordered.last = p
	c.truth(t)
}

// truth judges the watermark headers: what an earlier one has closed stays
// closed, they never go back, and one is at least just below its own record.
func (c *Checker) truth(t watermark.Time) {
	o, ms := &c.out, t.Millis()
	if v, has, err := o.number(orderedEventTime); has && (err != nil || v != ms) {
		c.faultf(KindChanged, "event-time header is %q, the event time is %d ms", o.values[orderedEventTime], ms)
	}
	if wrong := c.windows.wrong(o.windows, t); wrong != "" {
		c.faultf(KindChanged, "%s", wrong)
	}
	s := &c.ordered
	if s.lines > 0 && ms <= s.mark {
		c.faultf(KindWatermarkLie, "event time %d ms comes after watermark %d", ms, s.mark)
	}
	w, has, err := o.number(orderedWatermark)
	switch {
	case !has:
		return
	case err != nil:
		c.faultf(KindWatermarkLie, "watermark %q is no number", o.values[orderedWatermark])
		return
	case s.lines > 0 && w < s.mark:
		c.faultf(KindWatermarkLie, "watermark %d follows watermark %d", w, s.mark)
	case w < ms-1:
		c.faultf(KindWatermarkLie, "watermark %d is behind its own record at %d ms", w, ms)
	}
	if s.lines++; s.lines == 1 || w > s.mark {
		s.mark = w
	}
	c.report.Watermark.include(w)
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
