package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/reorder"
)

// State is the health of the process in a word.
type State string

// The states, from the best to the worst.
const (
	Healthy     State = "HEALTHY"
	Starting    State = "STARTING"    // nothing is wrong so far; not everything is worked on yet
	Degraded    State = "DEGRADED"    // something is wrong; the rest works
	Unreachable State = "UNREACHABLE" // no broker answers
)

// States lists all states.
var States = []State{Healthy, Starting, Degraded, Unreachable}

const (
	startingFor = time.Minute      // how long a start may take
	staleAfter  = 3 * time.Second  // when a status is too old to be believed
	stalledFor  = time.Minute      // how long nothing may be read that is there, or come out beyond the bound and the idle timeout
	endsWithin  = 10 * time.Second // when the end of a log is to be known
	lateMemory  = 10 * time.Minute // how long after the last record its lateness counts
)

// Kind is a kind of reason not to be healthy, as the table of reasons in docs/operations.md
// has it.
type Kind string

// The kinds of reasons, the most important first.
const (
	NoAnswer       Kind = "the brokers or the group's coordinator do not answer"
	WaitsLong      Kind = "waiting for the brokers"
	Stale          Kind = "what is shown is old"
	NotWorkedOn    Kind = "the instance is not ready"
	WrongUnit      Kind = "event times are in another unit than they are read as"
	ByTimestamps   Kind = "all records are ordered by their own timestamps, not by `TIDEMARK_EVENT_TIME`"
	OutputHeldOpen Kind = "a transaction of another program holds an output open"
	Suspended      Kind = "a partition is suspended"
	SourceHeldOpen Kind = "a transaction of another program holds a source open"
	NoEventTimes   Kind = "no record had a usable event time"
	TooManyLate    Kind = "too many records are late"
	EpochsOften    Kind = "epochs begin often"
	NothingRead    Kind = "nothing is read"
	NothingOut     Kind = "nothing comes out"
	OtherWriter    Kind = "somebody else writes to an output"
	Restamped      Kind = "an output replaces timestamps"
	Throttled      Kind = "a quota throttles requests"
	EndNotKnown    Kind = "the end offset of a partition is not known"
	MemoryIsShort  Kind = "memory is short"
)

// Kinds lists all kinds of reasons.
var Kinds = []Kind{
	NoAnswer, WaitsLong, Stale, NotWorkedOn, WrongUnit, ByTimestamps, OutputHeldOpen, Suspended, SourceHeldOpen, NoEventTimes,
	TooManyLate, EpochsOften, NothingRead, NothingOut, OtherWriter, Restamped, Throttled, EndNotKnown, MemoryIsShort,
}

// short are the kinds of reasons that partitions have, in a word or two.
var short = map[Kind]string{
	WrongUnit: "wrong unit", ByTimestamps: "by timestamps", OutputHeldOpen: "out of sight", Suspended: "suspended", SourceHeldOpen: "held open",
	NoEventTimes: "no event times", TooManyLate: "many late", EpochsOften: "many epochs", NothingRead: "not read", NothingOut: "nothing out",
	EndNotKnown: "end unknown",
}

// Short returns a kind of reason that partitions have in a word or two.
func (k Kind) Short() string { return short[k] }

// judge sets State, Reasons, Hints and Ready, and the Reasons of partitions, from everything else. The state weighs what users came
// for: records come out, on time and in order, and readers see them. What is most in the way
// of that comes first, and nothing is said twice: where no broker answers, nor what follows
// from that.
func (st *Status) judge(now time.Time) {
	st.Ready = st.NotReady == ""
	var why reasons
	failed, unreachable, asked := st.Probes.verdict()
	why.add(NoAnswer, failed...)
	if st.Waits != "" {
		why.add(WaitsLong, st.Waits)
	} else if old := now.Sub(st.At); old >= staleAfter && st.Ready {
		why.add(Stale, fmt.Sprintf("this is how things were %s ago: the process has been busy or waiting since", clocks.Words(old.Round(time.Second))))
	}
	starting := st.NotReady != "" && !st.Trouble && !st.WasReady && now.Sub(st.Started) <= startingFor
	if st.NotReady != "" && !starting && !st.OutputsMissing && !unreachable {
		why.tell(NotWorkedOn, st.NotReady, st.NotReadyHint)
	}
	st.misread(&why)
	why.add(ByTimestamps, st.absent()...)
	st.blocked(&why, OutputHeldOpen)
	st.suspended(&why)
	st.blocked(&why, SourceHeldOpen)
	st.lateness(now, &why)
	st.unordered(now, &why)
	if !unreachable {
		st.unread(&why)
		st.stalled(&why)
	}
	if st.Rival != "" {
		why.add(OtherWriter, st.Rival)
	}
	for _, topic := range st.Restamped {
		why.add(Restamped, topic+" replaces the timestamps of its records with the time of arrival (message.timestamp.type=LogAppendTime)")
	}
	if st.Throttled != "" {
		why.add(Throttled, fmt.Sprintf("%s, %d records behind", st.Throttled, st.behind()))
	}
	if !unreachable {
		st.endless(&why)
	}
	if st.ShortOfMemory {
		why.add(MemoryIsShort, "memory is short: records are released early, and more of them are late (TIDEMARK_MEMORY)")
	}
	switch {
	case unreachable:
		st.State = Unreachable
	case len(why) > 0:
		st.State = Degraded
	case st.NotReady != "" || !asked:
		st.State = Starting
	default:
		st.State = Healthy
	}
	if starting && !st.OutputsMissing && !unreachable {
		why.tell(NotWorkedOn, st.NotReady, st.NotReadyHint)
	}
	if !asked && st.State == Starting && len(why) == 0 {
		why.add(NoAnswer, "the brokers have not been probed yet")
	}
	st.why, st.Reasons, st.Hints = why, why.words(), why.hints()
	st.Reason = strings.Join(st.Reasons, "; ")
}

// reasons are said once each.
type reasons []reason

type reason struct {
	kind  Kind
	words string
	hint  string // what to do, if the words do not say it
}

func (r *reasons) add(kind Kind, words ...string) {
	for _, w := range words {
		r.tell(kind, w, "")
	}
}

func (r *reasons) tell(kind Kind, words, hint string) {
	if !slices.ContainsFunc(*r, func(said reason) bool { return strings.Contains(said.words, words) }) {
		*r = append(*r, reason{kind, words, hint})
	}
}

// most adds the first few of many, and says how many more there are.
func (r *reasons) most(kind Kind, words, hints []string, more string) {
	for i, w := range words {
		if i == most {
			r.tell(kind, fmt.Sprintf(more, len(words)-most), "")
			return
		}
		r.tell(kind, w, hints[i])
	}
}

func (r reasons) words() (all []string) {
	for _, it := range r {
		all = append(all, it.words)
	}
	return all
}

func (r reasons) hints() (all []string) {
	for _, it := range r {
		all = append(all, it.hint)
	}
	return all
}

// most is how many reasons of one kind are told.
const most = 3

// first returns the first few of many words, and says how many more there are.
func first(words []string, more string) []string {
	if n := len(words) - most; n > 0 {
		return append(words[:most:most], fmt.Sprintf(more, n))
	}
	return words
}

// finding is what is wrong with partitions of one topic, for the same reason.
type finding struct {
	same  string                // what makes it the same reason
	words func(*finding) string // what is said, of all these partitions together
	hint  string                // what to do; empty: the words say it

	records, of int64         // added up
	since       time.Duration // the shortest
	partitions  []int32
}

// together gathers what is wrong with partitions: the same is said once for each topic. Each
// partition keeps the kind of reason.
func (st *Status) together(kind Kind, find func(p *Partition) *finding) (words, hints []string) {
	type place struct{ topic, same string }
	found, order := map[place]*finding{}, []place(nil)
	for i := range st.Partitions {
		p := &st.Partitions[i]
		f := find(p)
		if f == nil {
			continue
		}
		st.blame(i, kind)
		at := place{p.Topic, f.same}
		if it := found[at]; it != nil {
			it.records, it.of, it.since = it.records+f.records, it.of+f.of, min(it.since, f.since)
			it.partitions = append(it.partitions, p.Partition)
			continue
		}
		f.partitions = []int32{p.Partition}
		found[at], order = f, append(order, at)
	}
	for _, at := range order {
		f := found[at]
		words = append(words, at.topic+" "+fault.PartitionWords(f.partitions)+f.words(f))
		hints = append(hints, f.hint)
	}
	return words, hints
}

// blame says of a partition that there is a reason about it. Others may be looking at the
// partitions as they were.
func (st *Status) blame(i int, kind Kind) {
	if !st.blamed {
		st.blamed, st.Partitions = true, slices.Clone(st.Partitions)
	}
	p := &st.Partitions[i]
	p.Reasons = append(slices.Clip(p.Reasons), kind)
}

// plainly is a finding of which nothing is added up.
func plainly(words, hint string) *finding {
	return &finding{same: words, words: func(*finding) string { return words }, hint: hint}
}

// suspended says which partitions are suspended and why: the first ones, if there are many.
func (st *Status) suspended(why *reasons) {
	words, hints := st.together(Suspended, func(p *Partition) *finding {
		if !p.State.StandsStill() {
			return nil
		}
		return &finding{same: p.Hold.Words, words: func(f *finding) string {
			return either(len(f.partitions) > 1, " are", " is") + " suspended: " + p.Hold.Words
		}}
	})
	why.most(Suspended, words, hints, "%d more reasons for which partitions are suspended")
}

// blocked says which outputs or sources open transactions of others hold up.
func (st *Status) blocked(why *reasons, kind Kind) {
	for i := range st.Partitions {
		p := &st.Partitions[i]
		if kind == SourceHeldOpen && p.Blocked != nil || kind == OutputHeldOpen && (p.Hidden != nil || p.LateHidden != nil) {
			st.blame(i, kind)
		}
	}
	var words, hints []string
	for _, of := range fault.ByOwner(st.Blocked) {
		if of[0].Output == (kind == OutputHeldOpen) {
			words = append(words, fault.DescribeTransactions(of))
			hints = append(hints, of[0].Cure(st.Commands))
		}
	}
	why.most(kind, words, hints, "%d more transactions hold partitions open")
}

// misread says of which partitions event times are read in another unit than they are in.
func (st *Status) misread(why *reasons) {
	words, hints := st.together(WrongUnit, func(p *Partition) *finding {
		if p.WrongUnit == "" {
			return nil
		}
		return plainly(": "+p.EventTimeFinding, "")
	})
	why.most(WrongUnit, words, hints, "event times of %d more topics are in the wrong unit")
}

// absentFrom is how many records of a partition have to go by their own timestamps until
// that is a reason.
const absentFrom = 1000

// absent says of which topics all records are ordered by their own timestamps although
// somebody has said where their event times are. Where the process has found a source in any
// record, it is not misspelt, and a topic without it is what the fallback is for.
func (st *Status) absent() (why []string) {
	fallback := slices.Index(st.Sources, "timestamp")
	if fallback <= 0 {
		return nil
	}
	for i := range st.Partitions {
		for _, n := range st.Partitions[i].DecidedBy[:min(fallback, len(st.Partitions[i].DecidedBy))] {
			if n > 0 {
				return nil
			}
		}
	}
	for i := range st.Partitions {
		p := &st.Partitions[i]
		if len(p.DecidedBy) <= fallback || p.DecidedBy[fallback] < absentFrom || !st.SourcesAreSet && !p.Similar {
			continue
		}
		meant := "TIDEMARK_EVENT_TIME"
		if !st.SourcesAreSet {
			meant = strings.Join(st.Sources[:fallback], " or ")
		}
		words := fmt.Sprintf("%s: all records are ordered by their own timestamps, not by %s: %s", p.Topic, meant,
			cmp.Or(p.Absent, "no record has "+strings.Join(st.Sources[:fallback], " or ")))
		st.blame(i, ByTimestamps)
		if !slices.Contains(why, words) {
			why = append(why, words)
		}
	}
	return first(why, "the same in %d more topics")
}

// lateness says of which partitions too many records are late, with the reason that most
// of these have.
func (st *Status) lateness(now time.Time, why *reasons) {
	recent := func(p *Partition) bool { return p.Recent.Read > 0 && now.Sub(p.Recent.Judged) <= lateMemory }
	none := func(p *Partition) bool { return p.Recent.Late[reorder.InvalidTime] >= p.Recent.Read }
	words, hints := st.together(NoEventTimes, func(p *Partition) *finding {
		if !recent(p) || !none(p) {
			return nil
		}
		return &finding{of: p.Recent.Read, same: p.Invalid.same(), words: func(f *finding) string {
			return fmt.Sprintf(": none of the last %d records had a usable event time (TIDEMARK_EVENT_TIME); all are in the late topic%s", f.of, p.lastInvalid(f))
		}}
	})
	why.most(NoEventTimes, words, hints, "no usable event times for %d more reasons")
	words, hints = st.together(TooManyLate, func(p *Partition) *finding {
		if !recent(p) || none(p) {
			return nil
		}
		n, worst := p.Recent.late()
		if !st.LateLimit.Exceeded(n, p.Recent.Read) {
			return nil
		}
		same := emit.Reason(worst)
		if worst == reorder.InvalidTime {
			same += p.Invalid.same()
		}
		hint := ""
		switch worst {
		case reorder.BehindWatermark:
			hint = p.LateCause
		case reorder.Future:
			hint = st.producersAhead(p.Topic)
		}
		return &finding{records: n, of: p.Recent.Read, same: same, hint: hint, words: func(f *finding) string {
			last := ""
			if worst == reorder.InvalidTime {
				last = p.lastInvalid(f)
			}
			return fmt.Sprintf(": %s of the last %d records were late, mostly %s (%s); TIDEMARK_LATE_LIMIT=%v%s",
				percent(f.records, f.of), f.of, emit.Reason(worst), st.cure(worst), st.LateLimit, last)
		}}
	})
	why.most(TooManyLate, words, hints, "too many late records for %d more reasons")
}

// late returns how many records were late, and for which reason most of them.
func (r *Recent) late() (n int64, worst reorder.Verdict) {
	worst = reorder.BehindWatermark
	for v, k := range r.Late {
		if v := reorder.Verdict(v); v != reorder.Duplicate {
			n += k
			if k > r.Late[worst] {
				worst = v
			}
		}
	}
	return n, worst
}

// lastInvalid says what is wrong with the last record without a usable event time, to be put
// behind a reason about it and maybe others.
func (p *Partition) lastInvalid(f *finding) string {
	switch {
	case p.Invalid.Err == nil:
		return ""
	case len(f.partitions) > 1:
		return fmt.Sprintf("; one of the last, of partition %d, at %s", p.Partition, p.Invalid)
	}
	return "; the last one at " + p.Invalid.String()
}

// unordered says of which partitions epochs begin so often that little is left of order.
func (st *Status) unordered(now time.Time, why *reasons) {
	words, hints := st.together(EpochsOften, func(p *Partition) *finding {
		if now.Sub(p.EpochsOften) >= 2*time.Minute {
			return nil
		}
		return plainly(": event times jump back so often that a new epoch begins several times a minute, and order holds within one only (TIDEMARK_REANCHOR_AFTER)", "")
	})
	why.most(EpochsOften, words, hints, "epochs begin often in %d more topics")
}

func either(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

func percent(n, of int64) string {
	return fmt.Sprintf("%.3g %%", 100*float64(min(n, of))/float64(max(of, 1)))
}

// cures are what to look at for each reason to be late.
var cures = [reorder.Duplicate + 1]string{
	reorder.BehindWatermark: "older than the bound allows",
	reorder.Overflow:        "TIDEMARK_MEMORY is too small for the bound",
	reorder.Future:          "ahead of the wall clock by more than TIDEMARK_MAX_FUTURE",
	reorder.InvalidTime:     "no usable event time, see TIDEMARK_EVENT_TIME",
}

// cure says what to look at for a reason to be late.
func (st *Status) cure(v reorder.Verdict) string {
	words := cures[v]
	if v == reorder.Future {
		words += "=" + st.MaxFuture.String()
	}
	return words
}

// producersAhead names producers of a topic whose clocks are ahead; empty: none are.
func (st *Status) producersAhead(topic string) string {
	var ahead []clocks.Judgement
	for _, j := range st.Producers {
		if j.Topic == topic && j.Finding == clocks.Ahead {
			ahead = append(ahead, j)
		}
	}
	return clocks.Names(ahead, len(ahead))
}

// unread says of which partitions nothing is read although there is something to read.
func (st *Status) unread(why *reasons) {
	words, hints := st.together(NothingRead, func(p *Partition) *finding {
		if !p.unread() {
			return nil
		}
		return &finding{records: p.Backlog(), since: p.Silent, same: p.Hold.Words, words: func(f *finding) string {
			return fmt.Sprintf(": nothing has been read for %s, and %d offsets are to be read: %s", clocks.Words(f.since), f.records, p.Hold.Words)
		}}
	})
	why.most(NothingRead, words, hints, "nothing is read for %d more reasons")
}

func (p *Partition) unread() bool {
	return p.worked() && p.Backlog() > 0 && p.Silent > stalledFor
}

// worked reports whether nothing that is said elsewhere keeps a partition from being worked
// on: neither somebody's transaction nor a suspension, and it waits for no slower one.
func (p *Partition) worked() bool {
	return p.Blocked == nil && p.WrongUnit == "" && !p.State.StandsStill() && p.State != Recovering && p.State != Paused
}

// stalled says of which partitions nothing comes out although records are held.
func (st *Status) stalled(why *reasons) {
	patience := stalledFor + st.Bound + st.IdleTimeout
	words, hints := st.together(NothingOut, func(p *Partition) *finding {
		if p.Totals.Held == 0 || p.Recent.Moved.IsZero() || !p.worked() || p.unread() {
			return nil
		}
		quiet := st.At.Sub(p.Recent.Moved)
		if quiet <= patience || p.Age <= patience-stalledFor+endsWithin { // after an outage it had no chance before
			return nil
		}
		return &finding{records: p.Totals.Held, since: quiet, same: cmp.Or(p.Hold.Kind, p.Hold.Words), hint: p.Hold.Hint, words: func(f *finding) string {
			return fmt.Sprintf(": nothing has come out for %s, and %d records are held: %s", clocks.Words(f.since), f.records, p.Hold.Words)
		}}
	})
	why.most(NothingOut, words, hints, "nothing comes out for %d more reasons")
}

// behind returns how many offsets are still to be read, as far as that is known.
func (st *Status) behind() (offsets int64) {
	for i := range st.Partitions {
		offsets += max(st.Partitions[i].Backlog(), 0)
	}
	return offsets
}

// endless says of which partitions it has not been known for long where the log ends. Such
// a partition does not become idle, and what has come since is not among what is to be read.
func (st *Status) endless(why *reasons) {
	words, hints := st.together(EndNotKnown, func(p *Partition) *finding {
		unknown := p.Unanswered
		if p.End < 0 {
			unknown = max(unknown, p.Age)
		}
		if p.State.StandsStill() || unknown <= endsWithin {
			return nil
		}
		answer := ""
		if p.NoAnswer != nil {
			answer = fmt.Sprintf(" (%v)", p.NoAnswer)
		}
		return &finding{since: unknown, same: answer, words: func(f *finding) string {
			leader := either(len(f.partitions) > 1, ": their leaders have not said for ", ": its leader has not said for ")
			return leader + clocks.Words(f.since) + " where the log ends" + answer
		}}
	})
	why.most(EndNotKnown, words, hints, "%d more ends of logs are not known")
}

// standing says of all partitions what is so while nobody works on them: nothing comes out,
// and nobody asks what has come. released: they have to be taken up again.
func (st *Status) standing(released bool) {
	for i := range st.Partitions {
		p := &st.Partitions[i]
		p.OrderedRate, p.LateRate, p.LateRates = 0, 0, [reorder.Duplicate + 1]float64{}
		p.End, p.Stable, p.Age, p.Unanswered = -1, -1, 0, 0
		if released && !p.State.StandsStill() {
			p.State = Recovering
		}
	}
}

// withoutDue says of all partitions that nothing is due: whoever would release it waits.
func (st *Status) withoutDue(words string) {
	st.Partitions = slices.Clone(st.Partitions)
	for i := range st.Partitions {
		p := &st.Partitions[i]
		p.Hold.At = time.Time{}
		if !p.State.StandsStill() {
			p.Hold.Words = cmp.Or(words, p.Hold.Words)
		}
	}
}
