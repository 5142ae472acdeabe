package proxy

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// Board is where a running Tidemark can be looked at. Nothing is written on it for
// nobody: who looks asks the loop, which answers between two turns with a copy of what
// there is to see, at most once a second. While the loop waits for a broker, the last
// answer is shown again. A Board outlives sessions and is safe for use by several
// goroutines.
type Board struct {
	version string
	started time.Time

	watched atomic.Bool // somebody has looked; from then on brokers are probed
	asks    chan chan<- *Status
	wake    atomic.Pointer[func()] // has the loop come to the end of its turn
	last    atomic.Pointer[Status] // what the loop has answered last; nil between sessions
	stage   atomic.Pointer[string] // what is done while there is none
	facts   atomic.Pointer[Facts]
	counts  atomic.Pointer[fault.Counters]
	cluster atomic.Pointer[oneCluster]
	quotas  atomic.Pointer[quotas]
	adm     atomic.Pointer[kadm.Client] // to probe the brokers with
	probes  atomic.Pointer[Probes]
	awaited atomic.Pointer[fault.Waits]
}

// NewBoard returns a board for a process of the given version.
func NewBoard(version string) *Board {
	b := &Board{version: version, started: time.Now(), asks: make(chan chan<- *Status, 16)}
	b.says("starting")
	b.facts.Store(&Facts{})
	b.counts.Store(&fault.Counters{})
	b.cluster.Store(&oneCluster{})
	b.quotas.Store(newQuotas(nil))
	b.probes.Store(&Probes{})
	b.awaited.Store(new(fault.Waits))
	return b
}

// lookPatience is how long who looks waits for the loop. Longer than a turn takes
// when all is well, and short enough for who asks whether we are ready.
const lookPatience = 500 * time.Millisecond

// Status returns the present status, not older than a second unless the loop waits for
// brokers. Status.At tells. It may not be changed.
func (b *Board) Status(ctx context.Context) *Status {
	b.watched.Store(true)
	st := Status{At: time.Now()}
	if seen := b.look(ctx); seen != nil {
		st = *seen
	} else {
		st.NotReady = *b.stage.Load()
	}
	st.Facts, st.Counts, st.Probes = *b.facts.Load(), b.counts.Load().Snapshot(), *b.probes.Load()
	st.Version, st.Started, st.Cluster = b.version, b.started, b.cluster.Load().name()
	st.Waits = ""
	if it, late := b.awaited.Load().Overdue(time.Now()); late {
		st.Waits = it.Describe(time.Now())
	}
	st.Counts.Throttled = b.quotas.Load().totals()
	st.judge()
	return &st
}

// look asks the loop, if there is one and its last answer has grown old: who looks all
// the time wakes it no more than others do.
func (b *Board) look(ctx context.Context) *Status {
	wake := b.wake.Load()
	if wake == nil {
		return nil
	}
	if last := b.last.Load(); last != nil && time.Since(last.made) < publishEvery {
		return last
	}
	answer := make(chan *Status, 1) // so that the loop need not wait
	select {
	case b.asks <- answer:
	default:
		return b.last.Load() // there are many who wait
	}
	(*wake)()
	late := time.NewTimer(lookPatience)
	defer late.Stop()
	select {
	case st := <-answer:
		return st
	case <-late.C:
	case <-ctx.Done():
	}
	return b.last.Load()
}

// showOn has the board show what a process does, until the function is called that it
// returns.
func (p *process) showOn(ctx context.Context, cfg config.Config) (done func()) {
	b := p.board
	b.facts.Store(factsOf(cfg))
	b.counts.Store(&p.reporter.Counters)
	b.awaited.Store(&p.reporter.Waits)
	b.cluster.Store(p.cluster)
	b.quotas.Store(p.quotas)
	b.says("waiting for the brokers to tell of the topics")
	probing, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); b.probe(probing, cfg) }()
	return func() {
		b.says("stopped")
		stop()
		<-ended
	}
}

// says tells what is done while no session runs.
func (b *Board) says(stage string) { b.stage.Store(&stage) }

// opened says that a session's loop runs and can be woken.
func (b *Board) opened(wake func()) { b.wake.Store(&wake) }

// closed says that it does not any more.
func (b *Board) closed() {
	b.wake.Store(nil)
	b.last.Store(nil)
	for {
		select {
		case ask := <-b.asks:
			ask <- nil
		default:
			return
		}
	}
}

// answer answers those who look.
func (s *session) answer() {
	for {
		select {
		case ask := <-s.board.asks:
			now := s.now()
			if s.shown == nil || now.Sub(s.shownAt) >= publishEvery {
				s.shown, s.shownAt = s.status(), now
				s.board.last.Store(s.shown)
			}
			ask <- s.shown
		default:
			return
		}
	}
}

// publishEvery is how often the status is made at the most.
const publishEvery = time.Second

// State says at a glance how things are.
type State string

// The states, from the best to the worst.
const (
	Healthy     State = "HEALTHY"
	Degraded    State = "DEGRADED"    // something is wrong, and the rest goes on
	Unreachable State = "UNREACHABLE" // no broker answers
)

// judge weighs what is known.
func (st *Status) judge() {
	var why []string
	asked, failed := st.Probes.verdict()
	why = append(why, failed...)
	st.State = Healthy
	switch {
	case !asked:
		why = append(why, "the brokers have not been asked yet")
	case len(failed) == 2:
		st.State = Unreachable
	}
	if st.NotReady != "" {
		why = append(why, st.NotReady)
	}
	st.Ready = st.NotReady == ""
	why = append(why, st.standing()...)
	offsets, unknown := st.behind()
	if unknown > 0 {
		why = append(why, fmt.Sprintf("brokers have not told yet where %d partitions end", unknown))
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
		why = append(why, "memory is short, and records are released early")
	}
	if len(why) > 0 && st.State == Healthy {
		st.State = Degraded
	}
	st.Reason = strings.Join(why, "; ")
}
