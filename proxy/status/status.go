package status

import (
	"time"

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
	Partitions    []Partition
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

// Partition is what can be seen of a partition.
type Partition struct {
	Topic     string
	Partition int32
	State     PartitionState
	Hold      Hold

	// Status is how it stands now; of a partition that stands still, how it stood.
	reorder.Status
	Committed int64 // the offset L of the last commit
	End       int64 // of the log: what came is below it; -1: not known
	Stable    int64 // the same, without what is in open transactions; -1: not known

	Totals            // what became of its records, by the last commit
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

func (p *Partition) SetRates(a *Ledger, now time.Time) {
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
func (p *Partition) Backlog() int64 {
	if p.End < 0 {
		return -1
	}
	return max(p.End-p.Next, 0)
}
