package proxy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Status is what can be seen of Tidemark from outside: a copy of one moment, that
// nobody changes afterwards. A Board returns it.
type Status struct {
	Facts
	Version string
	Started time.Time // of the process
	Cluster string    // its id; "" as long as it is not known

	At     time.Time // by the wall clock, when the partitions were as they are shown
	made   time.Time // the same, by the clock that nobody sets
	State  State
	Reason string // in words, why it is not Healthy

	Ready    bool   // joined, and all partitions of ours recovered
	NotReady string // in words, why not
	Waits    string // in words, what brokers are waited for that takes long; empty: nothing

	Counts        fault.Counts
	Probes        Probes
	Latency       Histogram             // from the poll that let a record go to the end of the commit
	Disorder      map[string]*Histogram // by topic, over all partitions that this process has had
	Bytes         int64                 // what all that is held costs
	ShortOfMemory bool                  // lately, records had to be released early
	Throttled     string                // which requests quotas hold back, in words
	Rival         string                // who else writes to an output of ours, in words
	Slowest       watermark.Time
	Fetches       clocks.Spread // how long they took, the broker's wait for records included
	Partitions    []PartitionStatus
}

// Facts are what does not change while a process runs.
type Facts struct {
	Instance, Group string
	Topics          []string
	Delivery        config.Delivery
	Strategy        config.Strategy
	Bound           time.Duration // of Adaptive the most, see PartitionStatus.Bound; of WindowMin that of the window
	IdleTimeout     time.Duration
	Memory          int64 // the budget, in bytes
}

func factsOf(cfg config.Config) *Facts {
	f := &Facts{
		Instance: cfg.Instance, Group: cfg.Group, Topics: cfg.Topics, Delivery: cfg.Delivery,
		Strategy: cfg.Watermark, Bound: cfg.MaxOutOfOrderness, IdleTimeout: cfg.IdleTimeout, Memory: int64(cfg.Memory),
	}
	switch cfg.Watermark {
	case config.WindowMin:
		f.Bound = cfg.WatermarkWindow + cfg.WatermarkLateness
	case config.Punctuated:
		f.Bound = 0
	}
	return f
}

// PartitionStatus is what can be seen of a partition.
type PartitionStatus struct {
	Topic     string
	Partition int32
	State     PartitionState
	Hold      Hold

	// Status is how it stands now; of a partition that stands still, how it stood.
	reorder.Status
	Committed int64 // the offset L of the last commit
	End       int64 // of the log: what came is below it; -1: not known
	Stable    int64 // the same, without what is in open transactions; -1: not known

	Tally             // what became of its records, by the last commit
	Uncommitted int64 // put out since, to the ordered topic
	OrderedRate float64
	LateRate    float64                        // records a second, since somebody looked last
	LateRates   [reorder.Duplicate + 1]float64 // the same, by reason
	Density     reorder.Held                   // how what is held lies over event time
	Disorder    Histogram                      // how far behind the newest event time before them records came
	Paused      bool                           // it waits for slower ones
	Clocks      clocks.Evidence
	Finding     clocks.Finding // what the evidence points to
}

func (p *PartitionStatus) rates(a *account, now time.Time) {
	p.OrderedRate, p.LateRates = a.rates(now)
	for _, r := range p.LateRates {
		p.LateRate += r
	}
}

// PartitionState is what a partition is doing, in a word.
type PartitionState string

// The states of a partition.
const (
	Active            PartitionState = "active"
	Idle              PartitionState = "idle"       // nothing new for long, and nothing is held
	Draining          PartitionState = "draining"   // nothing new for long, and what is held comes out by the clock
	Paused            PartitionState = "paused"     // it waits for slower ones
	Recovering        PartitionState = "recovering" // it reads again what was held
	WaitingForSchema  PartitionState = "waiting-for-schema"
	WaitingForOutputs PartitionState = "waiting-for-outputs"
	Stopped           PartitionState = "stopped" // a record or an output partition is refused, and needs a hand
)

// PartitionStates are all of them.
var PartitionStates = []PartitionState{Active, Idle, Draining, Paused, Recovering, WaitingForSchema, WaitingForOutputs, Stopped}

// StandsStill reports that a partition is in a state in which it is not worked on
// until something else happens.
func (s PartitionState) StandsStill() bool {
	return s == WaitingForSchema || s == WaitingForOutputs || s == Stopped
}

// Backlog returns how many offsets are still to be read, -1 if that is not known.
func (p *PartitionStatus) Backlog() int64 {
	if p.End < 0 {
		return -1
	}
	return max(p.End-p.Next, 0)
}

// standing tells which partitions stand still, and what for; of many, the first.
func (st *Status) standing() (why []string) {
	const most = 3
	n := 0
	for i := range st.Partitions {
		if p := &st.Partitions[i]; p.State.StandsStill() {
			if n++; n <= most {
				why = append(why, fmt.Sprintf("%s partition %d stands still: %s", p.Topic, p.Partition, p.Hold.Words))
			}
		}
	}
	if n > most {
		why = append(why, fmt.Sprintf("so do %d others", n-most))
	}
	return why
}

// behind says how many offsets are still to be read, and of how many partitions that is
// not known. A partition is not idle before brokers have told where its log ends.
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

// lookAtMost is about how many of the records held are looked at for a status.
const (
	lookAtMost  = 1 << 15
	lookAtLeast = 64 // of each partition
)

// status is the present one. The Board adds what it knows itself.
func (s *session) status() *Status {
	now := s.now()
	st := &Status{
		At: s.wallClock(), made: time.Now(), NotReady: s.notReady(), Latency: *s.latency, Slowest: s.slowest, Fetches: s.trips.Spread(now),
		Disorder: s.accounts.disorder(), Bytes: s.engine.Bytes(), ShortOfMemory: s.relieved != 0 && now.Sub(s.relieved) < time.Minute,
	}
	if r := s.rival.Load(); r != nil {
		st.Rival = r.String()
	}
	st.Throttled = s.quotas.words()
	n := len(s.stopped)
	for _, ps := range s.parts {
		n += len(ps)
	}
	st.Partitions = make([]PartitionStatus, 0, n)
	slack, look := s.cfg.ClockSlack(), max(lookAtMost/max(n, 1), lookAtLeast)
	s.each(func(p *partition) {
		evidence := p.clocks.Evidence(now)
		a := p.account
		shown := PartitionStatus{
			Topic: p.Topic, Partition: p.Partition, Status: p.state.Status(),
			Committed: p.committed, End: p.end, Stable: p.stable,
			Tally: a.kept, Uncommitted: a.now.Ordered - a.kept.Ordered, Disorder: a.committed,
			Density: p.state.Held(look), Paused: p.paused, Clocks: evidence, Finding: evidence.Finding(slack),
		}
		shown.rates(a, time.Now())
		shown.State = s.stateOf(p, &shown)
		shown.Hold = s.holdOf(&shown, st.At)
		st.Partitions = append(st.Partitions, shown)
	})
	for src := range s.stopped {
		why, a := s.reasons[src], s.accounts[src]
		shown := PartitionStatus{
			Topic: src.Topic, Partition: src.Partition, State: why.state, Status: why.last,
			Committed: why.committed, End: why.end, Stable: why.stable, Tally: a.kept, Disorder: a.committed,
			Hold:    Hold{Words: why.why + "; " + why.hint, Event: watermark.None},
			Density: reorder.Held{From: watermark.None, To: watermark.None},
		}
		shown.Records, shown.Bytes, shown.Owed = 0, 0, int(a.kept.Held)
		shown.rates(a, time.Now())
		st.Partitions = append(st.Partitions, shown)
	}
	slices.SortFunc(st.Partitions, func(a, b PartitionStatus) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return st
}

func (s *session) stateOf(p *partition, now *PartitionStatus) PartitionState {
	switch {
	case now.Replaying:
		return Recovering
	case now.Paused:
		return Paused
	case now.Idle && now.Records > 0:
		return Draining
	case now.Records > 0 || now.Next < now.End || now.End < 0 || s.cfg.IdleTimeout == 0:
		return Active
	case now.Idle || s.now().Sub(max(p.heard, p.since)) >= s.cfg.IdleTimeout:
		return Idle
	}
	return Active
}

// notReady tells, in words, what is missing before all partitions of ours are worked
// on; "" if nothing is. One that waits for somebody to mend a record does not count:
// where a pod is taken out of service for not being ready, that would mend nothing.
func (s *session) notReady() string {
	mine := s.owned.latest.Load()
	if mine == nil {
		return "the group has not been joined yet"
	}
	taking, again, waiting := 0, 0, 0
	for topic, ps := range *mine {
		for _, n := range ps {
			p := s.find(topic, n)
			if p == nil {
				src := s.source(topic, n)
				if _, stopped := s.stopped[src]; !stopped {
					taking++
				} else if s.reasons[src].state == WaitingForOutputs {
					waiting++
				}
			} else if _, replaying := p.state.Replaying(); replaying {
				again++
			}
		}
	}
	var why []string
	for _, c := range []struct {
		n    int
		what string
	}{{taking, "to be taken up"}, {again, "to be read again from the last commit"}, {waiting, "without a partition in the outputs"}} {
		if c.n > 0 {
			why = append(why, fmt.Sprintf("%d partitions are %s", c.n, c.what))
		}
	}
	return strings.Join(why, ", ")
}

// source returns a partition of a topic, and where its records go.
func (s *session) source(topic string, n int32) emit.Source {
	t := s.topics[topic]
	return emit.Source{Topic: topic, Ordered: t.Ordered, Late: t.Late, Partition: n}
}
