package status

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// Publisher answers requests for the status of a running Tidemark. It makes a status on
// request only: the loop makes it between two turns, at most once per PublishEvery. While
// the loop waits for a broker, requests get the last status. A Publisher outlives sessions
// and is safe for concurrent use, except for Answer.
type Publisher struct {
	version string
	started time.Time

	watched atomic.Bool   // somebody has asked; from then on the brokers are probed
	ready   atomic.Bool   // a status has said so
	kick    chan struct{} // probe now
	probed  chan struct{} // closed after the first probe
	asks    chan chan<- *Status
	wake    atomic.Pointer[func()]    // makes the loop end its turn
	opened  atomic.Pointer[time.Time] // when the session's loop began
	last    atomic.Pointer[Status]    // made by the loop of this session, or of the last
	stage   atomic.Pointer[stage]     // what the process does between sessions
	facts   atomic.Pointer[Facts]
	sources atomic.Pointer[Sources]
	adm     atomic.Pointer[kadm.Client] // to probe the brokers with
	probes  atomic.Pointer[Probes]
}

// NewPublisher returns a publisher for a process of the given version.
func NewPublisher(version string) *Publisher {
	p := &Publisher{version: version, started: time.Now(), asks: make(chan chan<- *Status, 16), kick: make(chan struct{}, 1), probed: make(chan struct{})}
	p.SetStage("starting")
	p.facts.Store(&Facts{})
	p.sources.Store(&Sources{
		Counters: new(fault.Counters), Waits: new(fault.Waits),
		Cluster: func() string { return "" }, Throttled: func() (t fault.Throttled) { return t },
	})
	p.probes.Store(&Probes{})
	return p
}

// Watched reports whether somebody has asked for a status.
func (p *Publisher) Watched() bool { return p.watched.Load() }

// loopPatience is how long Status waits for the loop: longer than a turn normally takes,
// and short enough for a readiness probe.
const loopPatience = 500 * time.Millisecond

// firstProbe is how long the first status waits for the brokers to be probed. With
// loopPatience it is less than the second that readiness probes wait by default.
const firstProbe = 300 * time.Millisecond

// Status returns the present status, not older than PublishEvery unless the loop waits for
// brokers; see Status.At. The caller must not change it.
func (p *Publisher) Status(ctx context.Context) *Status {
	if !p.watched.Swap(true) {
		p.awaitProbe(ctx)
	}
	st := Status{At: time.Now()}
	seen, running := p.latest(ctx), false
	if seen != nil {
		st, running = *seen, p.wake.Load() != nil && p.ofSession(seen)
	}
	if !running {
		is := p.stage.Load()
		st.NotReady, st.NotReadyHint, st.Trouble, st.OutputsMissing = is.words, is.hint, is.trouble, false
	}
	from := p.sources.Load()
	st.Facts, st.Counts, st.Probes = *p.facts.Load(), from.Counters.Snapshot(), *p.probes.Load()
	st.Version, st.Started, st.Cluster = p.version, p.started, from.Cluster()
	st.Waits = ""
	if it, late := from.Waits.Overdue(time.Now()); late {
		st.Waits = it.Describe(time.Now())
	}
	st.Counts.Throttled = from.Throttled()
	st.WasReady = p.ready.Load()
	_, unreachable, _ := st.Probes.verdict()
	switch {
	case !running && !unreachable:
		st.withoutDue(takenUpAgain)
	case unreachable:
		st.withoutDue("waits for the brokers, none of which answers")
	case time.Since(st.At) >= staleAfter:
		st.withoutDue(st.Waits)
	}
	if !running || unreachable || st.Waits != "" && time.Since(st.At) >= staleAfter {
		st.standing(!running)
	}
	st.judge(time.Now())
	switch {
	case st.Ready:
		p.ready.Store(true)
	case time.Since(st.Probes.Metadata.At) >= probeSoon:
		p.probeNow() // for who looks next: it may be the reason
	}
	return &st
}

// awaitProbe has the brokers probed now, and waits for that.
func (p *Publisher) awaitProbe(ctx context.Context) {
	if p.adm.Load() == nil {
		return // between sessions there is nobody to ask
	}
	p.probeNow()
	late := time.NewTimer(firstProbe)
	defer late.Stop()
	select {
	case <-p.probed:
	case <-late.C:
	case <-ctx.Done():
	}
}

// probeNow has the brokers probed without waiting for that.
func (p *Publisher) probeNow() {
	select {
	case p.kick <- struct{}{}:
	default: // they are about to be
	}
}

// latest returns the last status of the loop, and asks for a new one if that is too old.
func (p *Publisher) latest(ctx context.Context) *Status {
	wake := p.wake.Load()
	if wake == nil {
		return p.last.Load()
	}
	if last := p.last.Load(); last != nil && p.ofSession(last) && time.Since(last.made) < PublishEvery {
		return last
	}
	answer := make(chan *Status, 1) // buffered: the loop must not wait
	select {
	case p.asks <- answer:
	default:
		return p.last.Load() // enough are waiting already
	}
	(*wake)()
	late := time.NewTimer(loopPatience)
	defer late.Stop()
	select {
	case st := <-answer:
		return st
	case <-late.C:
	case <-ctx.Done():
	}
	return p.last.Load()
}

// Sources are the parts of the status that the loop does not make. They are safe for
// concurrent use.
type Sources struct {
	Counters  *fault.Counters
	Waits     *fault.Waits
	Cluster   func() string // its id; "" as long as it is not known
	Throttled func() fault.Throttled
}

// Start shows a process and probes its brokers, until the returned function is called.
func (p *Publisher) Start(ctx context.Context, cfg config.Config, from Sources) (stop func()) {
	p.facts.Store(factsOf(cfg))
	p.sources.Store(&from)
	p.SetStage("waiting for the brokers to describe the topics")
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); p.probe(ctx, cfg) }()
	return func() {
		p.SetStage("stopped")
		p.last.Store(nil)
		cancel()
		<-ended
	}
}

// Answer answers the requests since the last call. It calls makeStatus at most once per
// PublishEvery. Only the loop calls it.
func (p *Publisher) Answer(makeStatus func() *Status) {
	for {
		select {
		case ask := <-p.asks:
			if last := p.last.Load(); last == nil || !p.ofSession(last) || time.Since(last.made) >= PublishEvery {
				st := makeStatus()
				st.made = time.Now()
				p.last.Store(st)
			}
			ask <- p.last.Load()
		default:
			return
		}
	}
}

// stage is what the process does while no session runs.
type stage struct {
	words   string
	trouble bool   // because something is wrong
	hint    string // what to do about it, if it is known
}

// SetStage sets what the process does while no session runs, in words.
func (p *Publisher) SetStage(words string) { p.stage.Store(&stage{words: words}) }

// SetTrouble does the same for what keeps it from running a session, with what to do if that is
// known.
func (p *Publisher) SetTrouble(words, hint string) { p.stage.Store(&stage{words, true, hint}) }

// Open announces that a session's loop runs. wake makes it call Answer soon.
func (p *Publisher) Open(wake func()) {
	now := time.Now()
	p.opened.Store(&now)
	p.wake.Store(&wake)
}

// ofSession reports whether a status is one of the session that was opened last.
func (p *Publisher) ofSession(st *Status) bool {
	opened := p.opened.Load()
	return opened == nil || !st.made.Before(*opened)
}

// takenUpAgain is what partitions wait for between sessions.
const takenUpAgain = "is to be taken up again from the last commit"

// Close announces that it has ended. How makeStatus says things were at its end is shown
// until another begins.
func (p *Publisher) Close(makeStatus func() *Status) {
	if p.Watched() {
		st := makeStatus()
		st.made = time.Now()
		p.last.Store(st)
	}
	p.wake.Store(nil)
	for {
		select {
		case ask := <-p.asks:
			ask <- nil
		default:
			return
		}
	}
}

// PublishEvery is the shortest time between two statuses.
const PublishEvery = time.Second
