package pipeline

import (
	"errors"
	"fmt"
	"hash"
	"hash/fnv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/registry"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Options are what a Pipeline works with.
type Options struct {
	Config    config.Config
	Extract   *timestamp.Extractor
	Schemas   *registry.Registry // nil where nothing needs it
	Producers *clocks.Producers
	Reporter  *fault.Reporter
	Checked   map[string]bool     // topics whose timestamp type was checked again; see arrival.go
	Outbox    func() *emit.Outbox // where the next output record is made
	Atomic    bool                // readers see records only once they are committed
	// Waited is called after a wait, so that the caller looks at the clock.
	Waited func()
}

// Pipeline is what the partitions of a session share on the path of a record. One
// goroutine, the loop, owns it.
type Pipeline struct {
	Options
	Latency status.ReleaseLatency // of what was released since the last commit
	Invalid Invalid               // since the last commit

	wall       watermark.Time
	now        watermark.Instant
	timestamps bool           // records' own timestamps may be event times
	polled     watermark.Time // the wall clock when the present records were polled
	prompt     bool           // they had not waited in the client for long; see PromptPoll
	released   *released
	previous   bool        // records may take the time of one before them
	keys       hash.Hash64 // of records' keys
	reports    producerReports

	lateReports producerReports     // the same, about late records
	leapReports producerReports     // and about what made records late
	sources     map[string]*sources // by topic
	unmarked    map[string]*unmarked
	leaps       bool // one record can move the watermark: see Partition.watchLeap
}

// New returns the pipeline of a session.
func New(o Options) *Pipeline {
	return &Pipeline{
		Options: o, timestamps: o.Config.EventTime.UsesTimestamp(), released: newReleased(o.Config),
		previous: o.Config.EventTime.UsesPrevious(), keys: fnv.New64a(), sources: map[string]*sources{},
		leaps: o.Config.Watermark == config.Bounded || o.Config.Watermark == config.Adaptive,
	}
}

// SetClock sets the wall clock and the clock of the session.
func (l *Pipeline) SetClock(wall watermark.Time, now watermark.Instant) { l.wall, l.now = wall, now }

// Polled says that the records that follow were polled now. prompt: they had not waited in
// the client for long; see PromptPoll.
func (l *Pipeline) Polled(prompt bool) {
	l.polled, l.prompt = l.wall, prompt
	l.Latency.Polled(l.now)
}

// Abort forgets what was counted since the last commit.
func (l *Pipeline) Abort() {
	l.Invalid = Invalid{}
	l.Latency.Abort()
}

// Invalid counts invalid records since the last commit. Those that are read again are
// counted again.
type Invalid struct {
	Times   int64  // records without a usable event time
	Markers Faulty // records with an unusable watermark header
	Lost    int64  // records that are gone from the source
}

// Faulty is how many records were at fault, and what was wrong with the first.
type Faulty struct {
	Records int

	Topic     string
	Partition int32
	Offset    int64
	Err       error
	Hint      string
}

// add counts a record. It reports whether it is the first, which the hint is about.
func (f *Faulty) add(r *kgo.Record, err error) (first bool) {
	if f.Records++; f.Records > 1 {
		return false
	}
	f.Topic, f.Partition, f.Offset, f.Err = r.Topic, r.Partition, r.Offset, err
	return true
}

// Gate says before which record a partition has to be suspended.
type Gate interface {
	// MayHalt reports whether there is such a record.
	MayHalt() bool
	// HaltsAt reports whether it is the record at an offset: a held one, or else the one to
	// be judged next.
	HaltsAt(held bool, offset int64) bool
}

// Partition is a source partition that is being processed.
type Partition struct {
	emit.Source
	State   *reorder.Partition
	Ledger  *status.Ledger
	Clocks  clocks.Gathering
	Gate    Gate    // nil: none
	Earlier bool    // it replays a commit of a version that read some event times otherwise
	AtEnd   bool    // reading had reached the end of the log at the last poll
	Dropped int64   // duplicates since the last commit; the caller resets it
	Asked   Outcome // what the last Kind is about; the next call changes it

	line     *Pipeline
	fresh    bool   // the present records were fetched as soon as they were written
	arrivals bool   // a timestamp was an arrival time
	life     uint64 // tells it from itself before it was taken up again; see released
	due      reorder.Release
	passed   bool // the checkpoint that a release asked for is done
	sources  *sources
	markers  markers

	misfitLooked, markerMisfitLooked watermark.Instant // when it was last asked whether to say so

	absentHint string // of records that have none of the sources
	epochs     epochs

	leap       clocks.Leap
	leapSource int            // the source of its event time
	leapAhead  time.Duration  // how far it was ahead of the wall clock
	blamed     blamed         // the leap that made a record late last
	before     watermark.Time // the watermark before the record under way

	leapReported watermark.Instant // when a leap was reported last
	leapPause    time.Duration     // until the next report

	// The record under way.
	record    *kgo.Record
	source    int // that decided about its event time, see timestamp.Extractor.ExtractFrom
	stage     stage
	releasing bool
	judging   judging
}

// Start begins to process a partition that was assigned at now, from a state.
func (l *Pipeline) Start(src emit.Source, state *reorder.Partition, ledger *status.Ledger, now watermark.Instant) *Partition {
	p := &Partition{Source: src, State: state, Ledger: ledger, line: l, life: l.released.newLife(), sources: l.sourcesOf(src.Topic)}
	p.Clocks.Begin(now)
	return p
}

// Lost reports records that are gone from the source. It returns a fault, unless the
// configuration accepts data loss.
func (p *Partition) Lost(err error) error {
	l := p.line
	if l.Config.OnDataLoss == config.LossContinues {
		l.Reporter.Logger.Error("records are gone from the source; continuing without them (TIDEMARK_ON_DATA_LOSS=continue)", "topic", p.Topic, "partition", p.Partition, "err", err)
		return nil
	}
	hint := fmt.Sprintf("find out why the topic lost records (retention, truncation, deletion); to go on without them, set TIDEMARK_ON_DATA_LOSS=continue, or make the position again once, in which what is gone is not owed: `tidemark position rebuild --partition %s/%d`", p.Topic, p.Partition)
	if l.Schemas != nil {
		hint = "check that TIDEMARK_SCHEMA_REGISTRY is the same registry as before, because another may have other schemas under the same ids; otherwise " + hint
	}
	return fault.Failed(fmt.Errorf("replay %s partition %d: %w", p.Topic, p.Partition, err), hint)
}

// EndReplay ends the replay of a partition whose log ends at an offset, or that has reached
// the end of what it replays (math.MaxInt64). lost: records are missing and the loss is
// accepted; the caller has to seek to the partition's position, where the rewritten log
// begins. A release that was interrupted may be finished now: see Release.
func (p *Partition) EndReplay(logEnd int64) (lost bool, err error) {
	had := p.State.Owed()
	accept := p.line.Config.OnDataLoss == config.LossContinues && !p.Earlier
	loss := p.State.EndReplay(logEnd, accept)
	if loss == nil {
		return false, nil
	}
	if p.Earlier {
		return false, fault.Usage(fmt.Errorf("replay %s partition %d: %w: %w", p.Topic, p.Partition, loss, errEarlier),
			fmt.Sprintf("make the position again from the outputs, which say what is still owed: `tidemark position rebuild --partition %s/%d`, or where that cannot, new-epoch in place of rebuild; or run the version of before until nothing is held (stop the producers until the lag is 0), then this one", p.Topic, p.Partition))
	}
	if accept {
		p.Ledger.Lose(int64(had - p.State.Owed()))
	}
	if err := p.Lost(loss); err != nil {
		return false, err
	}
	p.line.Invalid.Lost += loss.Records()
	return true, nil
}

// errEarlier says that an upgrade cannot go on from what was held.
var errEarlier = errors.New("an earlier version held them, which read some event times otherwise")

// AcceptLoss ends the replay of a partition whose log ends at an offset, and returns how many
// records are missing. The caller has reported them, and counts them.
func (p *Partition) AcceptLoss(logEnd int64) int64 {
	had := p.State.Owed()
	loss := p.State.EndReplay(logEnd, true)
	if loss == nil {
		return 0
	}
	p.Ledger.Lose(int64(had - p.State.Owed()))
	return loss.Records()
}

// Rewind sets the partition back to where the log was rewritten. Records that it held from
// there on are lost.
func (p *Partition) Rewind(end int64) {
	had := p.State.Owed()
	p.State.Rewind(end)
	p.Ledger.Lose(int64(had - p.State.Owed()))
}
