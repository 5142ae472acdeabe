//go:build unix

package proxy

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

// How long the consumer behind Tidemark has to wait when something fails: one
// fault at a time, under a load that never pauses, TIDEMARK_TEST_ROUNDS times
// each. Real Kafka only; brokers fail where they are within reach.
func TestKafkaStandstill(t *testing.T) {
	if os.Getenv(brokersVar) == "" {
		t.Skip(brokersVar + " is not set: processes need a real cluster")
	}
	rounds := fromEnv(t, "TIDEMARK_TEST_ROUNDS", 1)
	var lines strings.Builder
	w := tabwriter.NewWriter(&lines, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "median\tlongest\tat most\trounds\t  standstill\t")
	scene := func(name string, atMost time.Duration, sidecars string, round func(*standstill) time.Duration) {
		t.Run(name, func(t *testing.T) {
			onReal(t, os.Getenv(brokersVar), func(t *testing.T, c *cluster) {
				s := c.standstill(sidecars)
				defer s.ps.end()
				var all []time.Duration
				for range rounds {
					s.steady()
					took := round(s)
					t.Logf("%s: %v", name, took.Round(time.Millisecond))
					all = append(all, took)
				}
				s.end()
				slices.Sort(all)
				median, longest := all[(len(all)-1)/2], all[len(all)-1]
				fmt.Fprintf(w, "%.2f s\t%.2f s\t%.0f s\t%d\t  %s\n", median.Seconds(), longest.Seconds(), atMost.Seconds(), rounds, name)
				if longest > atMost {
					t.Errorf("a consumer stood still for %v, %v are allowed", longest, atMost)
				}
			})
		})
	}
	const session = 6 * time.Second // see cluster.env
	scene("sidecar killed and restarted", 3*time.Second, "a", func(s *standstill) time.Duration {
		return s.longest(func() { s.ps.kill("a"); s.ps.spawn("a") })
	})
	scene("sidecar killed for good", session+3*time.Second, "ab", func(s *standstill) time.Duration {
		defer s.ps.spawn("b")
		return s.longest(func() { s.ps.kill("b") })
	})
	scene("sidecar stopped", time.Second, "ab", func(s *standstill) time.Duration {
		defer s.ps.spawn("b")
		return s.longest(func() { s.ps.stop("b") })
	})
	scene("sidecar stopped and restarted", 3*time.Second, "ab", func(s *standstill) time.Duration {
		return s.longest(func() { s.ps.stop("b"); s.ps.spawn("b") })
	})
	if os.Getenv(clusterVar) != "" {
		broker := 0
		scene("broker killed and restarted, once it answers", 3*time.Second, "a", func(s *standstill) time.Duration {
			broker = broker%s.brokers.n + 1
			return s.afterOutage(func() { s.brokers.do("kill", broker); s.brokers.do("restart", broker) })
		})
	}
	w.Flush()
	report(t, lines.String())
}

// standstill is a steady load, sidecars and a consumer of what they put out.
type standstill struct {
	c       *cluster
	cfg     config.Config
	ps      *processes
	brokers *brokers
	reader  *reader
	topic   string
	source  *reader // a second consumer, of the source: what it waits for is not ours
	written int64
	stop    func()
}

const flows = 4 // partitions

func (c *cluster) standstill(sidecars string) *standstill {
	c.t.Helper()
	s := &standstill{c: c, topic: c.topic(flows), brokers: c.brokers()}
	s.cfg = c.config(s.topic)
	s.ps = c.processes(s.topic)
	for _, name := range strings.Split(sidecars, "") {
		s.ps.spawn(name)
	}
	c.await("the first commit", func() bool { return len(c.commits(s.cfg)) > 0 })
	s.reader = c.lookOn(s.cfg.OrderedTopic(s.topic), 0, 1, 2, 3)
	s.source = c.lookOn(s.topic, 0, 1, 2, 3)
	s.flow()
	return s
}

// flow writes a record to every partition each 5 ms, some of them up to 100 ms
// behind, so that something is due at any time.
func (s *standstill) flow() {
	ctx, cancel := context.WithCancel(s.c.ctx)
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			for n := range int32(flows) {
				s.written++
				at := time.Now().UnixMilli() - s.written*37%100
				s.c.cl.Produce(context.Background(), record(s.topic, n, at, "x"), func(_ *kgo.Record, err error) {
					if err != nil {
						s.c.t.Errorf("write to the source: %v", err)
					}
				})
			}
		}
		_ = s.c.cl.Flush(context.Background())
	})
	s.stop = func() { cancel(); done.Wait() }
}

// steady waits until all who run have a share of the partitions, and every
// partition has flowed for three seconds.
func (s *standstill) steady() {
	s.c.t.Helper()
	s.c.await("a steady flow", func() bool {
		for _, name := range s.ps.names() {
			if len(s.c.ownedBy(s.cfg.Group, name)) != flows/len(s.ps.running) {
				return false
			}
		}
		return s.reader.flowed(flows, 3*time.Second)
	})
}

// longest returns the longest gap that a fault has made.
func (s *standstill) longest(fault func()) time.Duration {
	s.c.t.Helper()
	began := time.Now()
	fault()
	time.Sleep(500 * time.Millisecond)
	s.steady()
	return s.reader.since(began, func(g gap) time.Duration { return g.length() })
}

// afterOutage returns the longest gap there was from the moment on in which the
// brokers answered again for every partition.
func (s *standstill) afterOutage(fault func()) time.Duration {
	s.c.t.Helper()
	p := s.probe()
	began := time.Now()
	fault()
	s.steady()
	answered := p.end()
	s.c.t.Logf("brokers answered after %v; %s", answered.Sub(began).Round(time.Millisecond), p)
	still := func(g gap) time.Duration { return min(g.to.Sub(answered), g.length()) }
	s.c.t.Logf("the source itself stood still for %v after that", s.source.since(began, still).Round(time.Millisecond))
	return s.reader.since(began, still)
}

// end puts everything out and checks it.
func (s *standstill) end() {
	s.c.t.Helper()
	s.stop()
	s.c.await("all put out", func() bool { return s.c.drained(s.cfg) })
	for _, name := range s.ps.names() {
		s.ps.stop(name)
	}
	s.reader.leave()
	s.source.leave()
	if r := s.c.verify(s.cfg); r.Read != s.written || r.Ordered != s.written {
		s.c.t.Errorf("%d written, %d read, %d in order, late %v", s.written, r.Read, r.Ordered, r.Late)
	}
}

// prober asks the brokers, again and again, what they are there for.
type prober struct {
	cl     *kgo.Client
	cancel context.CancelFunc
	done   sync.WaitGroup
	mu     sync.Mutex
	back   map[string]time.Time // when they answered after not answering
}

func (s *standstill) probe() *prober {
	ctx, cancel := context.WithCancel(s.c.ctx)
	p := &prober{cl: s.c.client(eager()...), cancel: cancel, back: map[string]time.Time{}}
	adm := kadm.NewClient(p.cl)
	topics := []string{s.topic, s.cfg.OrderedTopic(s.topic), s.cfg.LateTopic(s.topic)}
	p.ask(ctx, "partitions", func(ctx context.Context) error {
		ends, err := adm.ListEndOffsets(ctx, topics...)
		if err == nil {
			err = ends.Error()
		}
		return err
	})
	p.ask(ctx, "the group's coordinator", func(ctx context.Context) error {
		_, err := adm.FetchOffsets(ctx, s.cfg.Group)
		return err
	})
	p.ask(ctx, "the transactions' coordinator", func(ctx context.Context) error {
		all, err := adm.DescribeTransactions(ctx, s.cfg.TransactionalID())
		for _, one := range all {
			if err == nil {
				err = one.Err
			}
		}
		return err
	})
	return p
}

func (p *prober) ask(ctx context.Context, what string, question func(context.Context) error) {
	p.done.Go(func() {
		failed := 0
		for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
			within, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
			err := question(within)
			cancel()
			if err != nil {
				failed++
				continue
			}
			if failed > 2 { // else it was only slow
				p.mu.Lock()
				p.back[what] = time.Now()
				p.mu.Unlock()
			}
			failed = 0
		}
	})
}

// end returns when the brokers answered for all partitions again.
func (p *prober) end() time.Time {
	p.cancel()
	p.done.Wait()
	p.cl.Close()
	return p.back["partitions"]
}

// String tells how much later than the partitions the coordinators answered.
func (p *prober) String() string {
	var all []string
	for what, at := range p.back {
		all = append(all, fmt.Sprintf("%s %+d ms", what, at.Sub(p.back["partitions"]).Milliseconds()))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
