package status

import (
	"slices"
	"time"

	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Status is the visible state of Tidemark at one moment. Nobody changes it afterwards. A
// Publisher returns it.
type Status struct {
	Facts
	Version string
	Started time.Time // of the process
	Cluster string    // its id; "" as long as it is not known

	At      time.Time // when the partitions were as shown, by the wall clock
	made    time.Time // the same, by the monotonic clock
	State   State
	Reasons []string // in words, why it is not Healthy, the most important first
	Reason  string   // the same in one sentence
	Hints   []string // of each of Reasons, what to do; empty: it says so itself, or nobody knows
	why     reasons  // the same, with their kinds
	blamed  bool     // Partitions are a copy of ours, with their Reasons

	Ready        bool   // joined, and all partitions of ours recovered
	NotReady     string // in words, why not
	NotReadyHint string // what to do about it, if it is known
	WasReady     bool   // it has been before, in the life of the process
	Trouble      bool   // it is not because something is wrong

	OutputsMissing bool // all that is not ready are partitions that are suspended for want of outputs

	Waits string // in words, what has been awaited from brokers for long; empty: nothing

	Counts        fault.Counts
	Probes        Probes
	Latency       Histogram               // from the poll that released a record to the end of the commit
	Disorder      map[string]*Histogram   // by topic, over all partitions that this process has had
	Bytes         int64                   // memory that held records take
	ShortOfMemory bool                    // lately, records had to be released early
	Throttled     string                  // which requests quotas hold back, in words
	Rival         string                  // who else writes to an output of ours, in words
	Blocked       []fault.OpenTransaction // outputs and sources that transactions of others hold open
	Restamped     []string                // outputs that replace timestamps with the time of arrival
	Slowest       watermark.Time
	Producers     []clocks.Judgement // whose clocks are off, those that are off the most; see MostProducers
	ProducersOff  int                // how many there are
	Fetches       clocks.Spread      // how long they took, the broker's wait for records included
	Partitions    []Partition
}

// Facts are what does not change while a process runs.
type Facts struct {
	Instance, Group string
	Topics          []string
	EventTime       string   // where event times are looked for, in words
	Sources         []string // of event times, in order; the last one is for records that have none
	SourcesAreSet   bool     // they are not the default
	Delivery        config.Delivery
	Strategy        config.Strategy
	Bound           time.Duration // Adaptive: the largest, see Partition.Bound; WindowMin: window plus lateness
	IdleTimeout     time.Duration
	Memory          int64 // the budget, in bytes
	LateLimit       config.LateLimit
	Commands        fault.Commands // of Kafka's tools, for hints
	MaxFuture       time.Duration  // how far ahead of the wall clock event times may be; 0: any
	ClockHeader     string         // that tells producers apart; empty: none
}

func factsOf(cfg config.Config) *Facts {
	f := &Facts{
		Instance: cfg.Instance, Group: cfg.Group, Topics: cfg.Topics, EventTime: cfg.EventTime.Words(), Sources: cfg.EventTime.Sources(), SourcesAreSet: !cfg.EventTimeIsDefault(), Delivery: cfg.Delivery,
		Strategy: cfg.Watermark, Bound: cfg.MaxOutOfOrderness, IdleTimeout: cfg.IdleTimeout, Memory: int64(cfg.Memory), LateLimit: cfg.LateLimit, Commands: fault.CommandsFor(cfg),
		MaxFuture: cfg.MaxFuture, ClockHeader: cfg.ClockHeader,
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
	Reasons   []Kind // for which it is not as it should be, the most important first
	Hold      Hold

	// Status is the present one; of a suspended partition, the last one.
	reorder.Status
	Committed int64 // the offset L of the last commit
	End       int64 // the end offset of the log (high watermark); -1: not known
	Stable    int64 // the last stable offset, below which no transaction is open; -1: not known

	Totals                             // what became of its records, by the last commit
	Recent      Recent                 // the same, lately
	Blocked     *fault.OpenTransaction // that holds up reading; nil: none is known
	Hidden      *fault.OpenTransaction // that hides from readers what comes out in order; nil: none is known
	LateHidden  *fault.OpenTransaction // the same, of what is late
	Uncommitted int64                  // written to the ordered topic since
	OrderedRate float64
	LateRate    float64                        // records per second, since the last request
	LateRates   [reorder.Duplicate + 1]float64 // the same, by reason
	Density     reorder.Held                   // how held records are spread over event time
	DecidedBy   []int64                        // records by the source of their event times, as Facts.Sources names them
	// What is probably wrong with its event times or the watermarks that records carry, and
	// what to do, in words; empty: nothing. WrongUnit is the setting by which they are read in
	// another unit than they are in, which is certainly wrong; else they are only old.
	EventTimeFinding string
	WrongUnit        UnitSetting
	NoMarkers        string    // what to do about markers that its records do not carry; empty: they do, or none is wanted
	LateCause        string    // why records are behind the watermark lately, and what to do, in words; empty: none are
	Absent           string    // which source of event times is absent from its topic, in words
	Similar          bool      // nearly all its records have one with nearly the name of the first
	Invalid          Invalid   // the last record without a usable event time
	EpochsOften      time.Time // when an epoch began last that was the third within a minute
	Disorder         Histogram // how far records came behind the newest event time before them
	Paused           bool      // it waits for slower ones
	Clocks           clocks.Evidence
	Finding          clocks.Finding // what the evidence points to
	Age              time.Duration  // since it was taken up
	Silent           time.Duration  // since records of it were read, or it was taken up
	Unanswered       time.Duration  // since its leader was first asked in vain for the end of the log; 0: it answers
	NoAnswer         error          // what came instead; nil: nothing
}

// SetEventTimes takes what is known of event times from the partition's ledger.
func (p *Partition) SetEventTimes(a *Ledger) {
	p.EpochsOften = a.EpochsOften
	p.DecidedBy, p.Invalid = slices.Clone(a.DecidedBy), a.Invalid
	p.EventTimeFinding, p.NoMarkers = a.Misfit, a.NoMarkers
	if a.Fitting.Found().Factor > 0 {
		p.WrongUnit = EventTimeUnit
	} else if a.MarkerMisfit != "" {
		p.EventTimeFinding, p.WrongUnit = a.MarkerMisfit, MarkerUnit
	}
	if p.EventTimeFinding != "" {
		p.Finding = clocks.Right // times that do not fit say nothing about clocks
	}
}

// UnitSetting is a setting that says in which unit times are read; "": it says the right one.
type UnitSetting string

// The settings with a unit.
const (
	EventTimeUnit UnitSetting = "TIDEMARK_EVENT_TIME"
	MarkerUnit    UnitSetting = "TIDEMARK_WATERMARK_HEADER"
)

func (u UnitSetting) words() string {
	if u == MarkerUnit {
		return "the watermarks that records carry are read in the wrong unit"
	}
	return "event times are read in the wrong unit"
}

// SetRates takes the rates from the partition's ledger.
func (p *Partition) SetRates(a *Ledger, now time.Time) {
	p.OrderedRate, p.LateRates = a.rates(now)
	for _, r := range p.LateRates {
		p.LateRate += r
	}
}

// MostProducers is how many producers whose clocks are off are named.
const MostProducers = 10

// PartitionState is what a partition is doing, in a word.
type PartitionState string

// The states of a partition.
const (
	Active            PartitionState = "active"
	Idle              PartitionState = "idle"       // nothing new for long, and nothing is held
	Draining          PartitionState = "draining"   // nothing new for long, and what is held is released by the clock
	Paused            PartitionState = "paused"     // it waits for slower ones
	Recovering        PartitionState = "recovering" // it replays what was held
	WaitingForSchema  PartitionState = "waiting-for-schema"
	WaitingForOutputs PartitionState = "waiting-for-outputs"
	Stopped           PartitionState = "stopped" // suspended: brokers refuse a record, or everything for an output partition
)

// PartitionStates lists all states.
var PartitionStates = []PartitionState{Active, Idle, Draining, Paused, Recovering, WaitingForSchema, WaitingForOutputs, Stopped}

// StandsStill reports whether a partition in this state is suspended: it is not read until
// something else has happened.
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
