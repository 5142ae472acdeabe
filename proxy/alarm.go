package proxy

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/proxy/registry"
)

// process is what outlives the sessions.
type process struct {
	alarm     *alarm
	limits    *limits
	wallClock func() time.Time
	producers *clocks.Producers
	board     *Board
	accounts  accounts
	latency   Histogram
	schemas   *registry.Registry // nil where nothing needs it
	transport http.RoundTripper  // to it; nil: the network
	looked    map[string]bool    // topics; see session.arrives
	begun     map[emit.Source]time.Time
	quotas    *quotas
	acks      ackLimit
}

func newProcess(log *slog.Logger) *process {
	a := newAlarm(log)
	return &process{
		alarm: a, quotas: newQuotas(a), limits: newLimits(), wallClock: time.Now,
		producers: clocks.NewProducers(), looked: map[string]bool{}, begun: map[emit.Source]time.Time{},
		board: NewBoard(""), accounts: accounts{},
	}
}

// counters count what has happened since the process began. They are touched
// per session, commit and error, never per record.
type counters struct {
	errors     [classes]atomic.Int64
	sessions   atomic.Int64 // that got past the preflight
	commits    atomic.Int64
	aborts     atomic.Int64 // transactions undone, and what stands for one without them
	rebalances atomic.Int64 // generations of the group that we were part of
	fencings   atomic.Int64 // errors that say that somebody took our place
	lost       atomic.Int64 // records of the source that were gone, where that is accepted
	shed       atomic.Int64 // headers left out of records that were too large with them
	pauses     atomic.Int64 // times that a partition had to wait for slower ones
	drops      atomic.Int64 // duplicates that went to no output
}

// Counts are the counters at one moment.
type Counts struct {
	Broker, Network, Record int64 // errors by class
	Sessions                int64
	Commits, Aborts         int64
	Rebalances, Fencings    int64
	Lost, Shed              int64
	Pauses, Dropped         int64
	Throttled               Throttled
}

func (c *counters) snapshot() Counts {
	return Counts{
		Broker: c.errors[brokerClass].Load(), Network: c.errors[networkClass].Load(), Record: c.errors[recordClass].Load(),
		Sessions: c.sessions.Load(), Commits: c.commits.Load(), Aborts: c.aborts.Load(),
		Rebalances: c.rebalances.Load(), Fencings: c.fencings.Load(), Lost: c.lost.Load(), Shed: c.shed.Load(),
		Pauses: c.pauses.Load(), Dropped: c.drops.Load(),
	}
}

// alarm counts errors that Tidemark goes on after, and tells of them.
type alarm struct {
	counters
	log     *slog.Logger
	awaited waiting

	cluster oneCluster

	said      map[string]bool // what the preflight has warned of
	fruitless atomic.Bool     // the last session committed nothing
	welcomed  atomic.Bool     // the brokers have let us in before
	unlisted  atomic.Bool     // it has been told that they do not list transactions

	mu     sync.Mutex
	told   map[string]*complaint // by message, and what it is about
	gone   map[emit.Source]int64 // duplicates dropped of each partition
	outage time.Time             // when a network error was last told of
}

// complaint is what is remembered of one kind of fault.
type complaint struct {
	met, told time.Time // last
	untold    int       // since it was last told
}

func newAlarm(log *slog.Logger) *alarm {
	return &alarm{log: log, said: map[string]bool{}, told: map[string]*complaint{}, gone: map[emit.Source]int64{}}
}

// complainEvery is how often the log is told of a fault that goes on.
const complainEvery = 30 * time.Second

// raise counts an error and tells of it with a warning; the message is the
// kind of fault. Repeated faults of a kind are told every 30 s, those of the
// network together, for an outage shows in many places.
func (a *alarm) raise(msg string, err error, args ...any) {
	a.at("", slog.LevelWarn, msg, err, args...)
}

// cry does the same with an error, for what needs a hand, and for each thing that
// it is about.
func (a *alarm) cry(about, msg string, err error, args ...any) {
	a.at(about, slog.LevelError, msg, err, args...)
}

// inform tells what sessions do, as long as they come to something.
func (a *alarm) inform(msg string, args ...any) {
	level := slog.LevelInfo
	if a.fruitless.Load() {
		level = slog.LevelDebug
	}
	a.log.Log(context.Background(), level, msg, args...)
}

// note does the same as raise for what happens in the best of clusters.
func (a *alarm) note(msg string, err error, args ...any) {
	a.at("", slog.LevelInfo, msg, err, args...)
}

func (a *alarm) at(about string, level slog.Level, msg string, err error, args ...any) {
	c := classify(err)
	// What goes wrong on a connection has been counted there.
	if c != networkClass || outOfTime(err) {
		a.count(c, err)
	}
	a.tell(about, level, c, msg, append(args, "err", err)...)
}

func (a *alarm) count(c class, err error) {
	a.errors[c].Add(1)
	if isFenced(err) || errors.Is(err, kerr.FencedInstanceID) {
		a.fencings.Add(1)
	}
}

func (a *alarm) tell(about string, level slog.Level, c class, msg string, args ...any) {
	untold, due := a.due(c, msg+about, time.Now())
	if !due {
		return
	}
	if c != noClass {
		args = append(args, "class", c.String())
	}
	if untold > 0 {
		args = append(args, "suppressed", untold)
	}
	a.log.Log(context.Background(), level, msg, args...)
}

// due reports whether it is time to tell of a fault, and how many of its kind
// were not told since the last time.
func (a *alarm) due(c class, msg string, now time.Time) (untold int, due bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f := a.told[msg]
	if f == nil {
		f = new(complaint)
		a.told[msg] = f
	}
	fresh := f.met.IsZero() || now.Sub(f.met) >= complainEvery
	f.met = now
	since := now.Sub(f.told)
	if c == networkClass {
		since = min(since, now.Sub(a.outage))
	}
	if !fresh && since < complainEvery {
		f.untold++
		return 0, false
	}
	untold, f.untold, f.told = f.untold, 0, now
	if c == networkClass {
		a.outage = now
	}
	return untold, true
}

// lines watches the connections of a client, which tries again for as long as
// it takes and hides most of what goes wrong on them.
type lines struct{ *alarm }

// OnBrokerConnect is told of every attempt to connect to a broker.
func (l lines) OnBrokerConnect(broker kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	l.failed("cannot connect to a broker; trying again", broker, err)
}

// OnBrokerE2E is told of every request and its answer.
func (l lines) OnBrokerE2E(broker kgo.BrokerMetadata, _ int16, e kgo.BrokerE2E) {
	l.failed("no answer from a broker; trying again", broker, e.Err())
}

func (l lines) failed(msg string, broker kgo.BrokerMetadata, err error) {
	c := classify(err)
	switch {
	case c == noClass, outOfTime(err):
		return // ours, and told where it was waited for
	case !lineFailed(err) && kgo.IsRetryableBrokerErr(err):
		return // it was behind the one that failed, or the client is closing
	}
	l.count(c, err)
	args := []any{"broker", net.JoinHostPort(broker.Host, strconv.Itoa(int(broker.Port))), "err", err}
	l.tell("", slog.LevelWarn, c, msg, append(args, hinted(cmp.Or(discord(err), suspicion(err)))...)...)
}
