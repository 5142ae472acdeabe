package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/status"
)

// sidecar is a Tidemark that runs in the test's process.
type sidecar struct {
	c     *cluster
	cfg   config.Config
	link  *link
	end   context.CancelFunc // as a signal does
	kill  context.CancelFunc
	done  chan struct{} // closed when it has ended
	err   error         // what it ended with
	voice *voice
	proc  *process
	jump  atomic.Int64 // ns by which the wall clock of its machine is off
}

// config returns a configuration: a bound of 500 ms, an idle timeout of 1 s,
// and what env says.
func (c *cluster) config(topic string, env ...string) config.Config {
	c.t.Helper()
	cfg, err := config.Load(c.env(topic, env...))
	if err != nil {
		c.t.Fatal(err)
	}
	return cfg
}

func (c *cluster) env(topic string, env ...string) []string {
	return append([]string{
		"TIDEMARK_BROKERS=" + os.Getenv(brokersVar),
		"TIDEMARK_TOPICS=" + topic, "TIDEMARK_GROUP=sidecar-" + topic, "TIDEMARK_INSTANCE=a",
		"TIDEMARK_MAX_OUT_OF_ORDERNESS=500ms", "TIDEMARK_IDLE_TIMEOUT=1s",
		"TIDEMARK_SESSION_TIMEOUT=6s", "TIDEMARK_MEMORY=256MiB",
	}, env...)
}

// start starts a sidecar on a topic. It may take as long as it likes to stop.
func (c *cluster) start(topic string, env ...string) *sidecar {
	c.t.Helper()
	return c.begin(topic, runSessions, env...)
}

// startWhole starts one that has to stop in the time that a process has.
func (c *cluster) startWhole(topic string, env ...string) *sidecar {
	c.t.Helper()
	whole := func(ctx, _ context.Context, cfg config.Config, connection []kgo.Opt, proc *process) error {
		return runOver(ctx, cfg, connection, proc)
	}
	return c.begin(topic, whole, env...)
}

type runFunc = func(ctx, hard context.Context, cfg config.Config, connection []kgo.Opt, proc *process) error

func (c *cluster) begin(topic string, run runFunc, env ...string) *sidecar {
	c.t.Helper()
	hard, kill := context.WithCancel(context.Background())
	ctx, end := context.WithCancel(hard)
	s := &sidecar{
		c: c, cfg: c.config(topic, env...), link: newLink(c.dial),
		end: end, kill: kill, done: make(chan struct{}), voice: &voice{to: c.t.Output()},
	}
	c.sidecars = append(c.sidecars, s)
	connection := append([]kgo.Opt{kgo.Dialer(s.link.DialContext)}, c.connection...)
	log := slog.New(keyed{slog.NewTextHandler(s.voice, &slog.HandlerOptions{Level: slog.LevelInfo}), c.t}).With("instance", s.cfg.Instance)
	s.proc = newProcess(log)
	if c.books != nil {
		s.proc.transport = c.books
	}
	s.proc.wallClock = func() time.Time { return time.Now().Add(time.Duration(s.jump.Load())) }
	if c.looks {
		go func() {
			done := c.watching(s)
			<-s.done
			done()
		}()
	}
	go func() {
		defer close(s.done)
		s.err = run(ctx, hard, s.cfg, connection, s.proc)
	}()
	return s
}

// status returns what its board shows.
func (s *sidecar) status() *status.Status { return s.proc.publisher.Status(s.c.ctx) }

// stop ends the sidecar politely.
func (s *sidecar) stop() {
	s.c.t.Helper()
	s.end()
	<-s.done
	if s.err != nil {
		s.c.t.Fatalf("stopped, the sidecar ended with: %v", s.err)
	}
}

// stopsInTime stops it as a signal does, and fails if that takes longer than a process
// has, or if it ends with an error.
func (s *sidecar) stopsInTime() {
	s.c.t.Helper()
	s.end()
	select {
	case <-s.done:
	case <-time.After(group.StopTime + group.LeaveTime + group.CloseTime + time.Second/2): // less than Docker's 10 s
		s.c.t.Fatalf("told to stop, it still runs. It said:\n%s", s.voice)
	}
	if s.err != nil {
		s.c.t.Errorf("stopped, it ended with: %v", s.err)
	}
}

// crash ends the sidecar as the brokers see a kill -9: its connections break
// in the midst of whatever was on them, and nothing is heard of it again. What
// it goes on doing behind the cut is of no effect.
func (s *sidecar) crash() {
	s.voice.muted.Store(true)
	s.link.cut()
	s.kill()
}

// running reports whether the sidecar has not ended by itself.
func (s *sidecar) running() bool {
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// fails waits for the sidecar to end by itself and returns its fault.
func (s *sidecar) fails() *fault.Fault {
	s.c.t.Helper()
	select {
	case <-s.done:
	case <-time.After(s.c.patience()):
		s.c.t.Fatal("the sidecar goes on where it should have failed")
	}
	fault, ok := errors.AsType[*fault.Fault](s.err)
	if !ok {
		s.c.t.Fatalf("the sidecar ended with %v, which is no fault", s.err)
	}
	return fault
}

// voice is the log of a sidecar. The dead say nothing.
type voice struct {
	to    io.Writer
	muted atomic.Bool
	lines atomic.Int64

	mu   sync.Mutex
	said []string
}

// heard returns the lines with a text in them.
func (v *voice) heard(text string) (lines []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, line := range v.said {
		if strings.Contains(line, text) {
			lines = append(lines, line)
		}
	}
	return lines
}

// String returns what was said so far.
func (v *voice) String() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return strings.Join(v.said, "")
}

func (v *voice) Write(b []byte) (int, error) {
	v.lines.Add(1)
	v.mu.Lock()
	v.said = append(v.said, string(b))
	v.mu.Unlock()
	if v.muted.Load() {
		return len(b), nil
	}
	// A bubble that was given up may go on after its test has ended.
	defer func() { _ = recover() }()
	return v.to.Write(b)
}
