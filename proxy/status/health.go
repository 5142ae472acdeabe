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
	stalledFor  = 2 * time.Minute  // how long nothing may come out, beyond the bound and the idle timeout
	endsWithin  = 10 * time.Second // when the end of a log is to be known
	lateMemory  = 10 * time.Minute // how long after the last record its lateness counts
)

// judge sets State, Reasons and Ready from everything else. The state weighs what users came
// for: records come out, on time and in order, and readers see them. What is most in the way
// of that comes first, and nothing is said twice.
func (st *Status) judge(now time.Time) {
	st.Ready = st.NotReady == ""
	var why reasons
	failed, unreachable, asked := st.Probes.verdict()
	why.add(failed...)
	if st.Waits != "" {
		why.add(st.Waits)
	} else if old := now.Sub(st.At); old >= staleAfter && (st.Ready || len(failed) == 0) {
		why.add(fmt.Sprintf("this is how things were %v ago: the process has been busy or waiting since", old.Round(time.Second)))
	}
	starting := st.NotReady != "" && !st.Trouble && !st.WasReady && now.Sub(st.Started) <= startingFor
	if st.NotReady != "" && !starting && !st.OutputsMissing && !(unreachable && st.Trouble) {
		why.add(st.NotReady)
	}
	for _, of := range [][]string{st.misread(), st.blocked(true), st.suspended(), st.blocked(false), st.lateness(now), st.stalled(now)} {
		why.add(of...)
	}
	if st.Rival != "" {
		why.add(st.Rival)
	}
	for _, topic := range st.Restamped {
		why.add(topic + " replaces the timestamps of its records with the time of arrival (message.timestamp.type=LogAppendTime)")
	}
	offsets, unknown := st.behind()
	if st.Throttled != "" {
		why.add(fmt.Sprintf("%s, %d records behind", st.Throttled, offsets))
	}
	if unknown > 0 {
		why.add(fmt.Sprintf("end offsets of %d partitions are not known yet", unknown))
	}
	if st.ShortOfMemory {
		why.add("memory is short: records are released early, and more of them are late (TIDEMARK_MEMORY)")
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
	if starting && !st.OutputsMissing {
		why.add(st.NotReady)
	}
	if !asked && st.State == Starting && len(why) == 0 {
		why.add("the brokers have not been probed yet")
	}
	st.Reasons, st.Reason = why, strings.Join(why, "; ")
}

// reasons are said once each.
type reasons []string

func (r *reasons) add(words ...string) {
	for _, w := range words {
		if !slices.ContainsFunc(*r, func(said string) bool { return strings.Contains(said, w) }) {
			*r = append(*r, w)
		}
	}
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
		if p := &st.Partitions[i]; p.WrongUnit {
			why = append(why, fmt.Sprintf("%s partition %d: %s", p.Topic, p.Partition, p.EventTimeFinding))
		}
	}
	return first(why, "event times of %d more partitions are in the wrong unit")
}

// lateness says of which partitions too many records are late, with the reason that most
// of these have.
func (st *Status) lateness(now time.Time) (why []string) {
	for i := range st.Partitions {
		p := &st.Partitions[i]
		r := &p.Recent
		if r.Read <= 0 || now.Sub(r.Judged) > lateMemory {
			continue
		}
		late, worst := int64(0), reorder.BehindWatermark
		for v, n := range r.Late {
			if v := reorder.Verdict(v); v != reorder.Duplicate {
				late += n
				if n > r.Late[worst] {
					worst = v
				}
			}
		}
		switch {
		case r.Late[reorder.InvalidTime] >= r.Read:
			why = append(why, fmt.Sprintf("%s partition %d: none of the last %d records had a usable event time (TIDEMARK_EVENT_TIME); all are in the late topic", p.Topic, p.Partition, r.Read))
		case st.LateLimit.Exceeded(late, r.Read):
			why = append(why, fmt.Sprintf("%s partition %d: %s of the last %d records were late, mostly %s (%s); TIDEMARK_LATE_LIMIT=%v",
				p.Topic, p.Partition, percent(late, r.Read), r.Read, emit.Reason(worst), cures[worst], st.LateLimit))
		}
	}
	return first(why, "too many late records in %d more partitions")
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

// stalled says of which partitions nothing comes out although records are held.
func (st *Status) stalled(now time.Time) (why []string) {
	patience := stalledFor + st.Bound + st.IdleTimeout
	for i := range st.Partitions {
		p := &st.Partitions[i]
		if p.Totals.Held == 0 || p.Recent.Moved.IsZero() || p.State.StandsStill() || p.State == Recovering || p.Blocked != nil {
			continue
		}
		if quiet := now.Sub(p.Recent.Moved); quiet > patience {
			why = append(why, fmt.Sprintf("%s partition %d: nothing has come out for %v, and %d records are held: %s", p.Topic, p.Partition, quiet.Round(time.Second), p.Totals.Held, p.Hold.Words))
		}
	}
	return first(why, "nothing comes out of %d more partitions")
}

// behind returns how many offsets are still to be read, and for how many partitions that has
// not been known for long. A partition does not become idle before the end of its log is known.
func (st *Status) behind() (offsets int64, unknown int) {
	for i := range st.Partitions {
		switch n := st.Partitions[i].Backlog(); {
		case n >= 0:
			offsets += n
		case !st.Partitions[i].State.StandsStill() && st.Partitions[i].Age > endsWithin:
			unknown++
		}
	}
	return offsets, unknown
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
