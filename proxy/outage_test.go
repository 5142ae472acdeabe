package proxy

import (
	"context"
	"net"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
)

// The brokers are away for an hour. Nothing counts as idle meanwhile, so
// nothing is late because of it; the sidecar lives, its memory stays as it is,
// and its log tells of the outage without drowning in it.
func TestAnHourWithoutBrokers(t *testing.T) {
	for _, delivery := range []string{"exactly-once", "at-least-once"} {
		t.Run(delivery, func(t *testing.T) {
			alone(t) // the heap is that of the process
			onFake(t, func(t *testing.T, c *cluster) {
				topic := c.topic(1)
				base := time.Now().Add(-time.Hour).UnixMilli()
				s := c.start(topic, "TIDEMARK_DELIVERY="+delivery)
				c.produce(c.cl, record(topic, 0, base, "first"))
				c.awaitRead(s)
				s.link.leave()
				c.produce(c.cl, older(topic, base)) // within the bound of what is held
				time.Sleep(time.Minute)
				before := heap()
				time.Sleep(time.Hour)
				if grown := heap() - before; grown > 4<<20 {
					t.Errorf("%d bytes more than an hour before", grown)
				}
				s.lives()
				s.link.comeBack()
				if took := since(func() { c.await("the older record", func() bool { return c.read(s.cfg) }) }); took > 3*time.Second {
					t.Errorf("it took %v to go on", took)
				}
				c.awaitDrained(s)
				s.stop()
				if r := c.verify(s.cfg); r.Read != 2 || r.Ordered-r.Repeated != 2 {
					t.Errorf("%d read, %d ordered, late %v", r.Read, r.Ordered, r.Late)
				}
				lines, got := s.voice.lines.Load(), s.proc.reporter.Snapshot()
				t.Logf("%d lines, %+v", lines, got)
				if lines < 60 || lines > 300 || got.Network < 1000 {
					t.Errorf("%d lines, counted %+v", lines, got)
				}
			})
		})
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// The wall clock of the machine jumps. Only what is about the wall clock sees
// that: the guard against records from the future, and the time at which a
// record went to the late topic. Idleness and commits go by a clock that does
// not jump.
func TestWallClockJumps(t *testing.T) {
	besideOthers(t)
	for _, jump := range []time.Duration{6 * time.Hour, -6 * time.Hour} {
		t.Run(jump.String(), func(t *testing.T) {
			onFake(t, func(t *testing.T, c *cluster) {
				topic := c.topic(1)
				now := time.Now()
				at := func(d time.Duration, value string) {
					c.produce(c.cl, record(topic, 0, now.Add(d).UnixMilli(), value))
				}
				s := c.start(topic)
				at(-time.Second, "before")
				c.awaitRead(s)
				s.jump.Store(int64(jump))
				at(-1200*time.Millisecond, "older") // on time: a jump is no silence
				at(-time.Hour, "late")
				at(time.Hour, "ahead") // for a clock that is ahead it is not
				c.awaitDrained(s)
				idle := since(func() {
					at(2*time.Hour+time.Minute, "last")
					c.awaitDrained(s)
				})
				s.stop()
				r := c.verify(s.cfg)
				ordered, future := int64(2), int64(2)
				if jump > 0 {
					ordered, future = 4, 0
					if idle < 1500*time.Millisecond || idle > 3*time.Second {
						t.Errorf("the last record came out after %v", idle)
					}
				}
				if r.Read != 5 || r.Ordered != ordered || r.Late["future"] != future || r.Late["behind-watermark"] != 1 {
					t.Errorf("%d read, %d ordered, late %v", r.Read, r.Ordered, r.Late)
				}
				for _, late := range c.contents(topic + ".late")[0] {
					if string(late.Value) != "late" {
						continue
					}
					if at := header(late, "tidemark-late-at"); at < millis(now.Add(jump)) || at > millis(now.Add(jump+time.Minute)) {
						t.Errorf("late at %s, the clock of the machine says %s", at, millis(now.Add(jump)))
					}
				}
			})
		})
	}
}

func millis(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

// No goroutine is left when sessions have ended, be it by a polite stop or by
// a fault. (In a bubble that is so in every test, or the bubble fails; here it
// is so with real time and real connections.)
func TestNoGoroutineIsLeft(t *testing.T) {
	for name, end := range map[string]func(*kfake.Cluster, *sidecar){
		"stop": func(_ *kfake.Cluster, s *sidecar) { s.end() },
		"fault": func(fake *kfake.Cluster, s *sidecar) {
			fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Group: s.cfg.Group, Err: kerr.FencedInstanceID})
		},
		"stop while joining": func(fake *kfake.Cluster, s *sidecar) {
			h := fake.Fault(
				kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Group: s.cfg.Group, Err: kerr.UnknownMemberID},
				kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Group: s.cfg.Group, Err: kerr.CoordinatorLoadInProgress, Count: -1})
			if err := h.Wait(context.Background(), 3); err != nil {
				panic(err)
			}
			s.end()
		},
	} {
		t.Run(name, func(t *testing.T) {
			fake, err := kfake.NewCluster(kfake.GroupMinSessionTimeout(time.Second),
				kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
			if err != nil {
				t.Fatal(err)
			}
			defer fake.Close()
			c := &cluster{
				t: t, fake: fake, connection: []kgo.Opt{kgo.SeedBrokers(fake.ListenAddrs()...)},
				dial: (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			}
			c.open()
			topic := c.topic(1)
			c.cl.Close()
			before := goleak.IgnoreCurrent()
			s := c.start(topic)
			s.voice.muted.Store(true)
			for s.proc.reporter.Rebalances.Load() == 0 {
				time.Sleep(time.Millisecond)
			}
			end(fake, s)
			<-s.done
			if name == "fault" && s.err == nil || name != "fault" && s.err != nil {
				t.Errorf("it ended with %v", s.err)
			}
			goleak.VerifyNone(t, before, goleak.IgnoreAnyFunction("github.com/twmb/franz-go/pkg/kfake.(*clientConn).read"),
				goleak.IgnoreAnyFunction("github.com/twmb/franz-go/pkg/kfake.(*clientConn).write"))
		})
	}
}
