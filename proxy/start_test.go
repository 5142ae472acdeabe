package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/recovery"
	"github.com/tidemarkhq/tidemark/proxy/status"
)

// Where a group begins that has no commit.
func TestKafkaStart(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		base := time.Now().Add(-time.Hour).Truncate(time.Second)
		for start, want := range map[string]int64{
			"earliest": 10,
			"latest":   0,
			fmt.Sprint(base.Add(4 * time.Second).UnixMilli()):    6,
			base.Add(7 * time.Second).UTC().Format(time.RFC3339): 3,
			base.Add(3 * time.Hour).UTC().Format(time.RFC3339):   0, // nothing is that young
		} {
			topic := c.topic(1)
			for i := range 10 {
				r := record(topic, 0, base.UnixMilli()+int64(i), fmt.Sprint(i))
				r.Timestamp = base.Add(time.Duration(i) * time.Second)
				c.produce(c.cl, r)
			}
			s := c.start(topic, "TIDEMARK_START="+start)
			c.awaitDrained(s)
			c.produce(c.cl, record(topic, 0, base.Add(time.Minute).UnixMilli(), "after"))
			c.awaitDrained(s)
			s.stop()
			if r := c.verify(s.cfg); r.Read != want+1 {
				t.Errorf("start %s: %d read, want %d", start, r.Read, want+1)
			}
		}
	})
}

// TestUnusedStartIsTold: TIDEMARK_START counts once. Whoever sets it later is told that it
// does nothing, and nobody else is.
func TestUnusedStartIsTold(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(2)
		told := func(env ...string) int {
			s := c.start(topic, env...)
			c.await("both partitions", func() bool { return len(c.owned(s)) == 2 })
			s.stop()
			return len(s.voice.heard("TIDEMARK_START does not count"))
		}
		if n := told("TIDEMARK_START=latest"); n != 0 {
			t.Errorf("told %d times when it counts", n)
		}
		for _, start := range []string{"latest", "earliest"} {
			if n := told("TIDEMARK_START=" + start); n != 1 {
				t.Errorf("%s: told %d times", start, n)
			}
		}
		if n := told(); n != 0 {
			t.Errorf("told %d times who has not set it", n)
		}
	})
}

// A record that arrives while brokers are asked where to begin is from after a START
// that all others are from before: it is read.
func TestStartAtATimeMissesNothing(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		start := time.Now().Add(-10 * time.Minute)
		old := record(topic, 0, start.Add(-time.Hour).UnixMilli(), "before")
		old.Timestamp = start.Add(-time.Hour)
		c.produce(c.cl, old)
		asked := map[bool]int{} // by time or not
		c.fake.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
			c.fake.KeepControl()
			asks := req.(*kmsg.ListOffsetsRequest).Topics[0]
			if byTime := asks.Partitions[0].Timestamp >= 0; asks.Topic == topic {
				// Before the first question of a kind, and after the other kind's.
				if asked[byTime]++; asked[byTime] == 1 && asked[!byTime] > 0 {
					c.fake.SleepControl(func() { c.produce(c.cl, record(topic, 0, start.UnixMilli(), "between")) })
				}
			}
			return nil, nil, false
		})
		s := c.start(topic, "TIDEMARK_START="+start.UTC().Format(time.RFC3339))
		c.await("the first commit", func() bool { return len(c.commits(s.cfg)) == 1 })
		c.produce(c.cl, record(topic, 0, start.UnixMilli()+1, "after"))
		c.awaitDrained(s)
		s.stop()
		if asked[true] == 0 || asked[false] == 0 {
			t.Fatalf("asked by time or not: %v", asked)
		}
		if r := c.verify(s.cfg); r.Read != 2 || r.Ordered != 2 {
			t.Errorf("%d read, %d ordered", r.Read, r.Ordered)
		}
	})
}

// The place to begin at is committed before anything is read: a crash right
// after does not move it, although START says latest.
func TestKafkaOriginIsCommittedFirst(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(2)
		base := time.Now().Add(-time.Hour).UnixMilli()
		c.produce(c.cl, record(topic, 0, base, "before"), record(topic, 1, base, "before"))
		s := c.start(topic, "TIDEMARK_START=latest")
		c.await("the first commit", func() bool { return len(c.commits(s.cfg)) == 2 })
		s.crash()
		c.produce(c.cl, record(topic, 0, base, "between"), record(topic, 1, base, "between"))
		s = c.start(topic, "TIDEMARK_START=latest")
		c.awaitDrained(s)
		s.stop()
		if r := c.verify(s.cfg); r.Read != 2 || r.Ordered != 2 {
			t.Errorf("%d read, %d ordered", r.Read, r.Ordered)
		}
	})
}

// A partition that appears later is read from its beginning, whatever START
// says: what was written to it before anybody noticed is not lost.
func TestPartitionAppearsLater(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		base := time.Now().Add(-time.Hour).UnixMilli()
		s := c.start(topic, "TIDEMARK_START=latest")
		c.await("the first commit", func() bool { return len(c.commits(s.cfg)) == 1 })
		if _, err := c.adm.CreatePartitions(c.ctx, 1, topic); err != nil {
			t.Fatal(err)
		}
		c.await("the partition", func() bool {
			return c.cl.ProduceSync(c.ctx, record(topic, 1, base, "new")).FirstErr() == nil
		})
		c.await("its commit", func() bool { return len(c.commits(s.cfg)) == 2 })
		c.awaitDrained(s)
		s.stop()
		if r := c.verify(s.cfg); r.Read != 1 || r.Ordered != 1 {
			t.Errorf("%d read, %d ordered", r.Read, r.Ordered)
		}
	})
}

// A partition that cannot begin because somebody does not answer waits by itself: its
// leader, or that of its outputs. It begins where it would have begun.
func TestBeginsWithoutLeader(t *testing.T) {
	besideOthers(t)
	for name, fault := range map[string]func(topic string) kfake.Fault{
		"of the source": func(topic string) kfake.Fault {
			return kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata, kmsg.ListOffsets}, Topic: topic, Err: kerr.LeaderNotAvailable}
		},
		"of the ordered output": func(topic string) kfake.Fault {
			return kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: topic + ".ordered", Err: kerr.NotLeaderForPartition}
		},
		"of the late output, all the time": func(topic string) kfake.Fault {
			return kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata, kmsg.ListOffsets}, Topic: topic + ".late", Err: kerr.LeaderNotAvailable}
		},
	} {
		t.Run(name, func(t *testing.T) {
			onFake(t, func(t *testing.T, c *cluster) {
				topic := c.topic(3)
				c.create(topic+".ordered", 3)
				c.create(topic+".late", 3)
				base := time.Now().Add(-time.Hour).UnixMilli()
				c.produce(c.cl, record(topic, 0, base, "before"), record(topic, 1, base, "before"), record(topic, 2, base, "before"))
				f := fault(topic)
				f.Partitions, f.Count = []int32{1}, -1
				h := c.fake.Fault(f)
				s := c.start(topic, "TIDEMARK_START=latest")
				begun := func(n int32) bool {
					g := c.fake.GroupInfo(s.cfg.Group)
					if g == nil {
						return false
					}
					_, ok := g.Commits[topic][n]
					return ok
				}
				c.awaitFor(25*time.Second, "the others to begin", func() bool { s.lives(); return begun(0) && begun(2) })
				if begun(1) {
					t.Error("partition 1 has begun, and nobody knows where")
				}
				c.produce(c.cl, record(topic, 0, base+1, "after"), record(topic, 2, base+1, "after"))
				c.awaitFor(5*time.Second, "theirs to come out", func() bool {
					return c.fake.PartitionInfo(topic+".ordered", 0).HighWatermark > 0 && c.fake.PartitionInfo(topic+".ordered", 2).HighWatermark > 0
				})
				if why := s.status().Partitions[1]; why.State != status.Stopped || !strings.Contains(why.Hold.Words, recovery.ErrLeaderAway.Error()) {
					t.Errorf("the status says %s: %s", why.State, why.Hold.Words)
				}
				if said := s.voice.heard("cannot start a partition while a leader does not answer"); len(said) != 1 {
					t.Errorf("the log says %q", said)
				}
				late := name != "of the source"
				if late { // there is a leader of the source who takes it meanwhile
					c.produce(c.cl, record(topic, 1, base+1, "after"))
				}
				h.Remove()
				c.awaitFor(3*time.Second, "partition 1 to begin", func() bool { s.lives(); return len(c.commits(s.cfg)) == 3 })
				if !late {
					c.produce(c.cl, record(topic, 1, base+1, "after"))
				}
				c.awaitDrained(s)
				s.stop()
				if r := c.verify(s.cfg); r.Read != 3 || r.Ordered != 3 {
					t.Errorf("%d read, %d ordered", r.Read, r.Ordered)
				}
			})
		})
	}
}
