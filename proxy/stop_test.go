package proxy

import (
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

// A polite stop commits what is under way, leaves the group at once, leaves no
// transaction open and no goroutine behind. In a bubble every goroutine has to
// end, in all the other tests too.
func TestKafkaStop(t *testing.T) {
	for _, delivery := range []string{"exactly-once", "at-least-once"} {
		t.Run(delivery, func(t *testing.T) {
			if os.Getenv(brokersVar) != "" {
				alone(t) // it looks for goroutines that are left
			}
			onKafka(t, func(t *testing.T, c *cluster) {
				w := workload{seed: 20, records: 100_000, partitions: 3, pause: 5 * time.Millisecond}
				topic := c.topic(w.partitions)
				c.commits(c.config(topic)) // the test's own client has its connections now
				before := goleak.IgnoreCurrent()
				s := c.start(topic, "TIDEMARK_DELIVERY="+delivery)
				c.await("the first commit", func() bool { return len(c.commits(s.cfg)) > 0 })
				c.writing(topic, &w)
				time.Sleep(time.Second)
				took := since(s.stop)
				if took > 3*time.Second {
					t.Errorf("the stop took %v", took)
				}
				if members := c.members(s.cfg); members > 0 {
					t.Errorf("the group still has %d members", members)
				}
				if c.transactingOn(s, 0, 1, 2) {
					t.Error("a transaction is open")
				}
				c.end()
				c.writers.Wait()
				c.cl.CloseAllowingRebalance()
				if c.fake == nil {
					goleak.VerifyNone(t, before)
				}
				c.open()
				r := c.verify(s.cfg)
				if r.Read == 0 {
					t.Error("nothing was read")
				}
				again := c.start(topic, "TIDEMARK_DELIVERY="+delivery)
				c.awaitDrained(again)
				again.stop()
				if r := c.verify(s.cfg); r.Repeated != 0 {
					t.Errorf("%d records came again after a clean stop", r.Repeated)
				}
			})
		})
	}
}

func (c *cluster) members(cfg config.Config) int {
	c.t.Helper()
	groups, err := c.adm.DescribeGroups(c.ctx, cfg.Group)
	if err == nil {
		err = groups.Error()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return len(groups[cfg.Group].Members)
}

// A stop that comes while the sidecar starts is a stop too.
func TestKafkaStopDuringStart(t *testing.T) {
	for seed := range seeds(20, 2) {
		onKafka(t, func(t *testing.T, c *cluster) {
			topic := c.topic(1)
			s := c.start(topic)
			time.Sleep(time.Duration(seed) * 3 * time.Millisecond)
			if took := since(s.stop); took > 3*time.Second {
				t.Errorf("the stop took %v", took)
			}
		})
	}
}

// A stop does not wait for the end of a release: it cuts it short, commits how far it
// has come, and leaves the group. Here brokers take a second to acknowledge a request,
// and the release would go on for much longer than a stop may take.
func TestStopInsideLongRelease(t *testing.T) {
	besideOthers(t)
	const n = 100_000
	for _, delivery := range []string{"exactly-once", "at-least-once"} {
		t.Run(delivery, func(t *testing.T) {
			onFake(t, func(t *testing.T, c *cluster) {
				topic := c.topic(1)
				c.burst(topic, n)
				env := []string{"TIDEMARK_MAX_OUT_OF_ORDERNESS=20m", noDrain, "TIDEMARK_DELIVERY=" + delivery}
				slow := c.slowly(kmsg.Produce, time.Second)
				s := c.startWhole(topic, env...)
				out := func() int64 { return c.put(s.cfg.OrderedTopic(topic)) }
				c.await("some of it out", func() bool { return out() > 0 })
				s.stopsInTime()
				if lost := s.voice.heard("stopped before the last commit"); len(lost) > 0 {
					t.Errorf("it said %q", lost)
				}
				if members := c.members(s.cfg); members > 0 {
					t.Errorf("the group still has %d members", members)
				}
				if out() >= n {
					t.Error("all of it is out: the stop came too late to show anything")
				}
				slow.Store(false)
				again := c.start(topic, env...)
				c.awaitRead(again)
				again.stop()
				if r := c.verify(s.cfg); r.Read < n || r.Repeated != 0 {
					t.Errorf("%d read, %d put out again", r.Read, r.Repeated)
				}
			})
		})
	}
}

// put returns how far the log of an output goes.
func (c *cluster) put(topic string) int64 {
	ends, err := c.adm.ListEndOffsets(c.ctx, topic)
	if err != nil {
		return 0
	}
	end, _ := ends.Lookup(topic, 0)
	return end.Offset
}

// slowly has brokers take their time over requests of a kind, until that is over.
func (c *cluster) slowly(key kmsg.Key, takes time.Duration) *atomic.Bool {
	slow := new(atomic.Bool)
	slow.Store(true)
	c.fake.ControlKey(key.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.fake.KeepControl()
		if slow.Load() {
			c.fake.SleepControl(func() { time.Sleep(takes) })
		}
		return nil, nil, false
	})
	return slow
}
