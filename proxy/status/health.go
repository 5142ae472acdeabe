package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tidemarkhq/tidemark/emit"
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

// judge sets State, Reasons and Ready from everything else. The state weighs what users came
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
		why.add(Stale, fmt.Sprintf("this is how things were %v ago: the process has been busy or waiting since", old.Round(time.Second)))
	}
	starting := st.NotReady != "" && !st.Trouble && !st.WasReady && now.Sub(st.Started) <= startingFor
	if st.NotReady != "" && !starting && !st.OutputsMissing && !unreachable {
		why.add(NotWorkedOn, st.NotReady)
	}
	why.add(WrongUnit, st.misread()...)
	why.add(ByTimestamps, st.absent()...)
	why.add(OutputHeldOpen, st.blocked(true)...)
	why.add(Suspended, st.suspended()...)
	why.add(SourceHeldOpen, st.blocked(false)...)
	st.lateness(now, &why)
	why.add(EpochsOften, st.unordered(now)...)
	if !unreachable {
		why.add(NothingRead, st.unread()...)
		why.add(NothingOut, st.stalled()...)
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
		why.add(EndNotKnown, st.endless()...)
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
		why.add(NotWorkedOn, st.NotReady)
	}
	if !asked && st.State == Starting && len(why) == 0 {
		why.add(NoAnswer, "the brokers have not been probed yet")
	}
	st.why, st.Reasons = why, why.words()
	st.Reason = strings.Join(st.Reasons, "; ")
}

// reasons are said once each.
type reasons []reason

type reason struct {
	kind  Kind
	words string
}

func (r *reasons) add(kind Kind, words ...string) {
	for _, w := range words {
		if !slices.ContainsFunc(*r, func(said reason) bool { return strings.Contains(said.words, w) }) {
			*r = append(*r, reason{kind, w})
		}
	}
}

func (r reasons) words() (all []string) {
	for _, it := range r {
		all = append(all, it.words)
	}
	return all
}

// most is how many partitions are named for one kind of reason.
const most = 3

// first returns the first few of many words, and says how many more there are.
func first(words []string, more string) []string {
	if n := len(words) - most; n > 0 {
		return append(words[:most:most], fmt.Sprintf(more, n))
	}
	return words
}

// suspended says which partitions are suspended and why: the first ones, if there are many.
func (st *Status) suspended() (why []string) {
	for i := range st.Partitions {
		if p := &st.Partitions[i]; p.State.StandsStill() {
			why = append(why, fmt.Sprintf("%s partition %d is suspended: %s", p.Topic, p.Partition, p.Hold.Words))
		}
	}
	return first(why, "%d more partitions are suspended")
}

// blocked says which outputs or sources open transactions of others hold up.
func (st *Status) blocked(output bool) (why []string) {
	for _, o := range st.Blocked {
		if o.Output == output {
			why = append(why, o.String())
		}
	}
	return first(why, "%d more partitions are held open")
}

// misread says of which partitions event times are read in another unit than they are in.
func (st *Status) misread() (why []string) {
	for i := range st.Partitions {
		if p := &st.Partitions[i]; p.WrongUnit != "" {
			why = append(why, fmt.Sprintf("%s partition %d: %s", p.Topic, p.Partition, p.EventTimeFinding))
		}
	}
	return first(why, "event times of %d more partitions are in the wrong unit")
}

// absentFrom is how many records of a partition have to go by their own timestamps until
// that is a reason.
const absentFrom = 1000

// absent says of which topics all records are ordered by their own timestamps although
// somebody has said where their event times are. Where the process has found a source in any
// record, it is not misspelt, and a topic without it is what the fallback is for.
func (st *Status) absent() (why []string) {
	fallback := slices.Index(st.Sources, "timestamp")
	if !st.SourcesAreSet || fallback <= 0 {
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
		if len(p.DecidedBy) <= fallback || p.DecidedBy[fallback] < absentFrom {
			continue
		}
		words := fmt.Sprintf("%s: all records are ordered by their own timestamps, not by TIDEMARK_EVENT_TIME: %s", p.Topic,
			cmp.Or(p.Absent, "no record has "+strings.Join(st.Sources[:fallback], " or ")))
		if !slices.Contains(why, words) {
			why = append(why, words)
		}
	}
	return first(why, "the same in %d more topics")
}

// lateness says of which partitions too many records are late, with the reason that most
// of these have.
func (st *Status) lateness(now time.Time, all *reasons) {
	var without, late []string
	for i := range st.Partitions {
		p := &st.Partitions[i]
		r := &p.Recent
		if r.Read <= 0 || now.Sub(r.Judged) > lateMemory {
			continue
		}
		n, worst := int64(0), reorder.BehindWatermark
		for v, k := range r.Late {
			if v := reorder.Verdict(v); v != reorder.Duplicate {
				n += k
				if k > r.Late[worst] {
					worst = v
				}
			}
		}
		switch {
		case r.Late[reorder.InvalidTime] >= r.Read:
			without = append(without, fmt.Sprintf("%s partition %d: none of the last %d records had a usable event time (TIDEMARK_EVENT_TIME); all are in the late topic%s", p.Topic, p.Partition, r.Read, p.lastInvalid()))
		case st.LateLimit.Exceeded(n, r.Read):
			last := ""
			if worst == reorder.InvalidTime {
				last = p.lastInvalid()
			}
			late = append(late, fmt.Sprintf("%s partition %d: %s of the last %d records were late, mostly %s (%s); TIDEMARK_LATE_LIMIT=%v%s",
				p.Topic, p.Partition, percent(n, r.Read), r.Read, emit.Reason(worst), cures[worst], st.LateLimit, last))
		}
	}
	all.add(NoEventTimes, first(without, "no usable event times in %d more partitions")...)
	all.add(TooManyLate, first(late, "too many late records in %d more partitions")...)
}

// lastInvalid says what is wrong with the last record without a usable event time, to be put
// behind a reason.
func (p *Partition) lastInvalid() string {
	if p.Invalid.Err == nil {
		return ""
	}
	return "; the last one at " + p.Invalid.String()
}

// unordered says of which partitions epochs begin so often that little is left of order.
func (st *Status) unordered(now time.Time) (why []string) {
	for i := range st.Partitions {
		if p := &st.Partitions[i]; now.Sub(p.EpochsOften) < 2*time.Minute {
			why = append(why, fmt.Sprintf("%s partition %d: event times jump back so often that a new epoch begins several times a minute, and order holds within one only (TIDEMARK_REANCHOR_AFTER)", p.Topic, p.Partition))
		}
	}
	return first(why, "epochs begin often in %d more partitions")
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

// unread says of which partitions nothing is read although there is something to read.
func (st *Status) unread() (why []string) {
	for i := range st.Partitions {
		if p := &st.Partitions[i]; p.unread() {
			why = append(why, fmt.Sprintf("%s partition %d: nothing has been read for %v, and %d offsets are to be read: %s", p.Topic, p.Partition, p.Silent.Round(time.Second), p.Backlog(), p.Hold.Words))
		}
	}
	return first(why, "nothing is read of %d more partitions")
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
func (st *Status) stalled() (why []string) {
	patience := stalledFor + st.Bound + st.IdleTimeout
	for i := range st.Partitions {
		p := &st.Partitions[i]
		if p.Totals.Held == 0 || p.Recent.Moved.IsZero() || !p.worked() || p.unread() {
			continue
		}
		quiet := st.At.Sub(p.Recent.Moved)
		if quiet > patience && p.Age > patience-stalledFor+endsWithin { // after an outage it had no chance before
			why = append(why, fmt.Sprintf("%s partition %d: nothing has come out for %v, and %d records are held: %s", p.Topic, p.Partition, quiet.Round(time.Second), p.Totals.Held, p.Hold.Words))
		}
	}
	return first(why, "nothing comes out of %d more partitions")
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
func (st *Status) endless() (why []string) {
	for i := range st.Partitions {
		p := &st.Partitions[i]
		unknown := p.Unanswered
		if p.End < 0 {
			unknown = max(unknown, p.Age)
		}
		if p.State.StandsStill() || unknown <= endsWithin {
			continue
		}
		words := fmt.Sprintf("%s partition %d: its leader has not said for %v where the log ends", p.Topic, p.Partition, unknown.Round(time.Second))
		if p.NoAnswer != nil {
			words += fmt.Sprintf(" (%v)", p.NoAnswer)
		}
		why = append(why, words)
	}
	return first(why, "nor have the leaders of %d more partitions")
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
