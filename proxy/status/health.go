package status

import (
	"fmt"
	"strings"
)

// State is the health of the process in a word.
type State string

// The states, from the best to the worst.
const (
	Healthy     State = "HEALTHY"
	Degraded    State = "DEGRADED"    // something is wrong; the rest works
	Unreachable State = "UNREACHABLE" // no broker answers
)

// judge sets State, Reason and Ready from everything else.
func (st *Status) judge() {
	var why []string
	asked, failed := st.Probes.verdict()
	why = append(why, failed...)
	st.State = Healthy
	switch {
	case !asked:
		why = append(why, "the brokers have not been probed yet")
	case len(failed) == 2:
		st.State = Unreachable
	}
	if st.NotReady != "" {
		why = append(why, st.NotReady)
	}
	st.Ready = st.NotReady == ""
	why = append(why, st.suspended()...)
	offsets, unknown := st.behind()
	if unknown > 0 {
		why = append(why, fmt.Sprintf("end offsets of %d partitions are not known yet", unknown))
	}
	if st.Throttled != "" {
		why = append(why, fmt.Sprintf("%s, %d records behind", st.Throttled, offsets))
	}
	if st.Rival != "" {
		why = append(why, st.Rival)
	}
	if st.Waits != "" {
		why = append(why, st.Waits)
	}
	if st.ShortOfMemory {
		why = append(why, "memory is short: records are released early")
	}
	if len(why) > 0 && st.State == Healthy {
		st.State = Degraded
	}
	st.Reason = strings.Join(why, "; ")
}

// suspended says which partitions are suspended and why: the first ones, if there are many.
func (st *Status) suspended() (why []string) {
	const most = 3
	n := 0
	for i := range st.Partitions {
		if p := &st.Partitions[i]; p.State.StandsStill() {
			if n++; n <= most {
				why = append(why, fmt.Sprintf("%s partition %d is suspended: %s", p.Topic, p.Partition, p.Hold.Words))
			}
		}
	}
	if n > most {
		why = append(why, fmt.Sprintf("%d more partitions are suspended", n-most))
	}
	return why
}

// behind returns how many offsets are still to be read, and for how many partitions that is
// not known. A partition does not become idle before the end of its log is known.
func (st *Status) behind() (offsets int64, unknown int) {
	for i := range st.Partitions {
		switch n := st.Partitions[i].Backlog(); {
		case n >= 0:
			offsets += n
		case !st.Partitions[i].State.StandsStill():
			unknown++
		}
	}
	return offsets, unknown
}
