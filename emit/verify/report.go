package verify

import (
	"fmt"
	"maps"
	"slices"
)

// Kind names a way to break the contract.
type Kind string

const (
	KindLost           Kind = "lost"            // a source record below the committed offset is in no output
	KindDuplicate      Kind = "duplicate"       // a source record, or a repeat of it at its event time, came out twice in one epoch
	KindOutOfOrder     Kind = "out-of-order"    // not above the record before by (event time, source offset)
	KindChanged        Kind = "changed"         // not byte for byte the source record, or never one, or with a wrong time or window added
	KindWrongPartition Kind = "wrong-partition" // not in the partition of its source
	KindWatermarkLie   Kind = "watermark-lie"   // a watermark header that was not true
	KindWrongLate      Kind = "wrong-late"      // a late record whose headers do not say the truth
	KindMissingHeader  Kind = "missing-header"  // without a header that is asked for, though there is room for it
)

// Kinds are all kinds, in the order in which they are shown.
var Kinds = []Kind{
	KindLost, KindDuplicate, KindOutOfOrder, KindChanged, KindWrongPartition, KindWatermarkLie, KindWrongLate,
	KindMissingHeader,
}

// maxFirst is how many faults of each kind are kept.
const maxFirst = 10

// Faults are all faults of one kind.
type Faults struct {
	Total int64   `json:"total"`
	First []Fault `json:"first"` // ten at most
}

// Fault is one breach of the contract.
type Fault struct {
	Topic        string `json:"topic"` // the source topic
	Partition    int32  `json:"partition"`
	SourceOffset int64  `json:"source_offset"` // -1: unknown
	Output       string `json:"output"`        // topic; empty: none
	OutputOffset int64  `json:"output_offset"` // -1: none
	Why          string `json:"why"`
}

// Range is a range of watermarks in ms; its zero value is empty.
type Range struct {
	Any bool  `json:"any"`
	Min int64 `json:"min"`
	Max int64 `json:"max"`
}

func (r *Range) include(ms int64) {
	if !r.Any {
		*r = Range{true, ms, ms}
	}
	r.Min, r.Max = min(r.Min, ms), max(r.Max, ms)
}

// Report is what was found of one partition, or of several. Where the
// contract holds,
//
//	Read + Expired + Replayed + Repeated = Ordered + Late + Dropped + Buffered + Unproven + Unjudged[GapHidden]
type Report struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"` // -1: all of the topic

	Read     int64            `json:"read"`     // source records that the group has read
	Ordered  int64            `json:"ordered"`  // records of .ordered
	Late     map[string]int64 `json:"late"`     // records of .late by reason
	Dropped  int64            `json:"dropped"`  // source records that repeat an ordered one, and were dropped as configured
	Buffered int64            `json:"buffered"` // source records that were read and are still owed

	Expired  int64 `json:"expired"`  // outputs whose source record is gone: deleted, compacted away, or of an earlier topic of the name
	Replayed int64 `json:"replayed"` // outputs from before the group was last reset, compared with the source as well
	Repeated int64 `json:"repeated"` // at least once: outputs that repeat an earlier one
	Bare     int64 `json:"bare"`     // outputs too large for a header that names their source record
	Trimmed  int64 `json:"trimmed"`  // outputs that name it, but are too large for other headers that are configured
	Unproven int64 `json:"unproven"` // source records whose output retention may have deleted

	// Registered is how many of Late were invalid-time because the schema registry did
	// not have their schema, and could be read now.
	Registered int64 `json:"registered"`

	// Unjudged is how many records were not judged in full, by reason. But for the hidden,
	// they are in the other counts as well.
	Unjudged map[Gap]int64 `json:"unjudged"`
	Hidden   []Hidden      `json:"hidden"` // where the hidden ones are

	// OtherTimes says that the commit was made with other event times than those that
	// verify was given. Nothing has been committed with these yet.
	OtherTimes bool  `json:"other_event_time"`
	Times      Times `json:"configuration_violations,omitzero"` // of one partition

	Watermark Range           `json:"watermark"` // of the headers of .ordered
	Faults    map[Kind]Faults `json:"violations"`
}

// Verdict is what is said of the contract.
type Verdict string

const (
	Holds   Verdict = "holds"   // as far as it was judged: see Report.Unjudged
	Broken  Verdict = "broken"  // there are violations
	Unknown Verdict = "unknown" // there are none to be seen, but what is to be judged is out of reach
)

// Verdict returns what can be said.
func (r Report) Verdict() Verdict {
	switch {
	case len(r.Faults) > 0:
		return Broken
	case r.Unjudged[GapHidden] > 0, r.Unjudged[GapOriginal] > 0, r.Unjudged[GapUnnamed] > 0:
		return Unknown
	}
	return Holds
}

// Holds reports whether the contract holds.
func (r Report) Holds() bool { return r.Verdict() == Holds }

// Add adds the findings of another partition of the same topic.
func (r *Report) Add(o Report) {
	if r.Late == nil {
		*r = Report{Topic: o.Topic, Partition: -1, Late: map[string]int64{}, Faults: map[Kind]Faults{}, Unjudged: map[Gap]int64{}}
	}
	r.Read += o.Read
	r.Ordered += o.Ordered
	r.Dropped += o.Dropped
	r.Buffered += o.Buffered
	r.Expired += o.Expired
	r.Replayed += o.Replayed
	r.Repeated += o.Repeated
	r.Bare += o.Bare
	r.Trimmed += o.Trimmed
	r.Unproven += o.Unproven
	r.Registered += o.Registered
	for why, n := range o.Late {
		r.Late[why] += n
	}
	for gap, n := range o.Unjudged {
		r.Unjudged[gap] += n
	}
	r.OtherTimes = r.OtherTimes || o.OtherTimes
	r.Hidden = append(r.Hidden, o.Hidden...)
	if o.Watermark.Any {
		r.Watermark.include(o.Watermark.Min)
		r.Watermark.include(o.Watermark.Max)
	}
	for kind, f := range o.Faults {
		sum := r.Faults[kind]
		sum.Total += f.Total
		sum.First = append(sum.First, f.First[:min(len(f.First), maxFirst-len(sum.First))]...)
		r.Faults[kind] = sum
	}
}

// Finish ends the checks of one partition by itself: see Reports.
func (c *Checker) Finish() Report { return Reports([]*Checker{c})[0] }

// Reports ends the checks of all partitions of one topic and returns their
// reports in the same order. Only here can a record that stands in another
// partition than its source be told from a changed one.
func Reports(checkers []*Checker) []Report {
	for _, c := range checkers {
		c.OutputsEnd()
		c.unborn()
	}
	for _, c := range checkers {
		c.strays = slices.DeleteFunc(c.strays, func(s suspect) bool { return c.sendHome(s, checkers) })
	}
	reports := make([]Report, len(checkers))
	for i, c := range checkers {
		c.settleStrays()
		c.skipUnnamed()
		c.settleBares()
		c.settleClaims()
		c.settleVotes()
		c.settleLost()
		c.settleBuffered()
		c.noteHidden()
		reports[i] = c.report
	}
	return reports
}

// unborn judges outputs whose source record never came.
func (c *Checker) unborn() {
	for _, source := range slices.Sorted(maps.Keys(c.outs)) {
		s := c.outs[source]
		if c.compacted && (c.scope.RawEnd == 0 || source < c.scope.RawEnd) {
			c.report.Expired++
			continue
		}
		s.kind, s.hole, s.why = KindChanged, true, noSourceWhy
		c.mismatch(s)
	}
	clear(c.outs)
}

// sendHome looks for another partition that misses a stray record.
func (c *Checker) sendHome(s suspect, checkers []*Checker) bool {
	for _, home := range checkers {
		if home != c && home.take(s.source, s.hash) {
			s.why = fmt.Sprintf("comes from partition %d", home.rules.Partition)
			c.fault(KindWrongPartition, s)
			return true
		}
	}
	return false
}

// take strikes off a source record that has no output.
func (c *Checker) take(source int64, h uint64) bool {
	if got, ok := c.missing[source]; ok && got == h {
		delete(c.missing, source)
		return true
	}
	if got, ok := c.raws[source]; ok && got.hash == h {
		delete(c.raws, source)
		return true
	}
	return false
}

// settleStrays reports what no other partition misses. The source record of a
// changed output is not lost as well.
func (c *Checker) settleStrays() {
	for _, s := range c.strays {
		switch {
		case s.hole && c.compacted && s.source < c.scope.RawEnd:
			c.report.Expired++ // it was judged before that was known
			continue
		case s.kind == KindChanged:
			c.unmiss(s.source)
		}
		c.fault(s.kind, s)
	}
}

func (c *Checker) settleLost() {
	for _, source := range slices.Sorted(maps.Keys(c.missing)) {
		c.fault(KindLost, suspect{source: source, offset: -1})
	}
	if c.lost > 0 {
		c.faults(KindLost, suspect{source: -1, offset: -1}, c.lost)
	}
}

// exact reports whether commit and outputs are of one instant.
func (c *Checker) exact() bool { return c.scope.Quiet && !c.rules.AtLeastOnce }

// settleBuffered compares what has not come out of [Committed, Next) with
// what the commit says is buffered. All of it was owed at the commit, as far as
// anybody can tell who does not know which verdicts were given; some of it may have
// come out since and be deleted, or be late and be deleted.
func (c *Checker) settleBuffered() {
	var gone []int64
	hidden := int64(0)
	lowest := c.scope.Next
	for source, p := range c.raws {
		lowest = min(lowest, source)
		switch {
		case p.timing == timeUnknown || c.lateGone(source) || !c.exact() && c.orderedGone(p.at(source)):
			gone = append(gone, source)
		case c.mayBeHidden(source, p):
			hidden++
		}
	}
	n, want := int64(len(c.raws)), c.scope.Buffered
	if surplus := min(n-want, hidden); surplus > 0 {
		c.report.Unjudged[GapHidden] += surplus // held by the commit, or out
		n -= surplus
	}
	doubt := int64(len(gone))
	whole := !c.compacted && c.scope.RawStart <= c.scope.Committed && doubt == 0
	c.report.Buffered = n
	if surplus := min(n-want, doubt); surplus > 0 {
		c.report.Buffered -= surplus
		c.report.Unproven += surplus
	}
	s := suspect{source: lowest, offset: -1}
	switch {
	case n-doubt > want:
		s.why = fmt.Sprintf("%d records of [%d, %d) are in no output, and only %d are held",
			n-doubt, c.scope.Committed, c.scope.Next, want)
		c.faults(KindLost, s, n-doubt-want)
	case c.exact() && whole && n < want:
		s.source = -1
		s.why = fmt.Sprintf("%d records of [%d, %d) are held, but only %d are not in an output: the others would be written twice",
			want, c.scope.Committed, c.scope.Next, n)
		c.faults(KindDuplicate, s, want-n)
	case c.exact() && doubt == 0 && hidden == 0 && !c.guessed && n == want && c.heldSum() != c.scope.BufferedSum:
		s.why = fmt.Sprintf("the %d records of [%d, %d) that are in no output are not those that are held",
			n, c.scope.Committed, c.scope.Next)
		c.fault(KindLost, s)
	}
}

func (c *Checker) fault(kind Kind, s suspect) { c.faults(kind, s, 1) }

func (c *Checker) faults(kind Kind, s suspect, n int64) {
	f := c.report.Faults[kind]
	f.Total += n
	if len(f.First) < maxFirst {
		f.First = append(f.First, c.name(kind, s))
	}
	c.report.Faults[kind] = f
}

func (c *Checker) name(kind Kind, s suspect) Fault {
	f := Fault{
		Topic: c.rules.Topic, Partition: c.rules.Partition,
		SourceOffset: s.source, OutputOffset: s.offset, Why: s.why,
	}
	switch {
	case s.offset < 0:
	case s.late:
		f.Output = c.rules.Late
	default:
		f.Output = c.rules.Ordered
	}
	if kind == KindLost && f.Why == "" {
		f.Why = fmt.Sprintf("read and committed (the group stands at %d), but in no output", c.scope.Committed)
	}
	return f
}
