package proxy

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/status"
)

// flowing writes a record to partition 0 of a topic every 50 ms, until it is stopped.
func (c *cluster) flowing(topic string) (stop func()) {
	done := make(chan struct{})
	c.writers.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			case <-c.ctx.Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
			c.produce(c.cl, record(topic, 0, time.Now().UnixMilli(), "flows"))
		}
	})
	return func() { close(done) }
}

// open is a commit interval that leaves a transaction open most of the time: an
// in-process broker tells of producers with an open one only.
const open = "TIDEMARK_COMMIT_INTERVAL=2s"

// TestKafkaSecondGroup: a second group with the same outputs would put out everything
// twice. It is refused as long as the first is at work, also when told to begin anew;
// the first goes on. When the first has ended, its traces keep nobody out.
func TestKafkaSecondGroup(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(2)
		for _, out := range []string{".ordered", ".late", ".o", ".l"} {
			c.create(topic+out, 2)
		}
		first := c.start(topic, open)
		stop := c.flowing(topic)
		defer stop()
		c.await("records in order", func() bool { first.lives(); return len(c.contents(topic + ".ordered")[0]) > 0 })
		second := []string{"TIDEMARK_GROUP=second" + c.run, open, newEpoch}
		for _, env := range [][]string{second[:2], second} {
			s := c.start(topic, env...)
			fault := s.fails()
			if fault.Code != 2 || !strings.Contains(fault.Error(), `instance "a" of group "`+first.cfg.Group+`" writes to `) ||
				!strings.Contains(fault.Advice, "TIDEMARK_ORDERED_SUFFIX") {
				t.Errorf("exit code %d: %v\nhint: %s", fault.Code, fault, fault.Advice)
			}
			if said := s.voice.heard("a new epoch begins"); len(said) > 0 {
				t.Errorf("none has begun: %q", said)
			}
		}
		elsewhere := c.start(topic, "TIDEMARK_GROUP=third"+c.run, "TIDEMARK_ORDERED_SUFFIX=.o", "TIDEMARK_LATE_SUFFIX=.l")
		c.await("outputs of its own", func() bool { elsewhere.lives(); return len(c.contents(topic + ".o")[0]) > 0 })
		elsewhere.stop()
		time.Sleep(group.RivalEvery)
		first.lives()
		first.stop()
		next := c.start(topic, second...)
		c.await("the other group's work", func() bool {
			next.lives()
			out := c.contents(topic + ".ordered")[0]
			return header(out[len(out)-1], "tidemark-epoch") == "1"
		})
		time.Sleep(3 * group.RivalEvery)
		next.lives()
		if st := next.status(); st.Rival != "" {
			t.Errorf("who has ended is still a rival: %s", st.Rival)
		}
		next.stop()
	})
}

// TestKafkaTwoGroupsBeginTogether: neither sees the other's traces before both have
// written. Then whoever has just begun ends, which may be both.
func TestKafkaTwoGroupsBeginTogether(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		for _, out := range []string{".ordered", ".late"} {
			c.create(topic+out, 1)
		}
		a, b := c.start(topic, open), c.start(topic, open, "TIDEMARK_GROUP=second"+c.run)
		stop := c.flowing(topic)
		defer stop()
		c.await("one of them ended", func() bool { return !a.running() || !b.running() })
		for _, s := range []*sidecar{a, b} {
			s.end()
			<-s.done
			if s.err == nil {
				continue
			}
			if fault := s.fails(); fault.Code != 2 || !strings.Contains(fault.Error(), "twice") {
				t.Errorf("exit code %d: %v", fault.Code, fault)
			}
		}
	})
}

// TestKafkaStrangerWrites: whoever else writes to an output, and is not seen to be a
// Tidemark, is told of by who was there before, and keeps out who begins.
func TestKafkaStrangerWrites(t *testing.T) {
	if os.Getenv(brokersVar) == "" {
		t.Skip("an in-process broker does not tell of producers without transactions")
	}
	onKafka(t, func(t *testing.T, c *cluster) {
		for _, delivery := range []string{"exactly-once", "at-least-once"} {
			topic := c.topic(1)
			c.create(topic+".ordered", 1)
			s := c.start(topic, "TIDEMARK_DELIVERY="+delivery)
			stop := c.flowing(topic)
			c.await("records in order", func() bool { s.lives(); return len(c.contents(topic + ".ordered")[0]) > 0 })
			s.stop()
			s = c.start(topic, "TIDEMARK_DELIVERY="+delivery) // it has not begun in this process
			end := c.flowing(topic + ".ordered")
			c.await("a word of it", func() bool { s.lives(); return len(s.voice.heard("another producer writes to an output topic")) > 0 })
			if st := s.status(); st.State != status.Degraded || !strings.Contains(st.Reason, "writes to "+topic+".ordered partition 0 too") {
				t.Errorf("%s: %s: %s", delivery, st.State, st.Reason)
			}
			s.stop()
			c.loseOffsets(s.cfg)
			fault := c.start(topic, newEpoch, "TIDEMARK_DELIVERY="+delivery).fails()
			if fault.Code != 2 || !strings.Contains(fault.Error(), "a producer that is not of this group") {
				t.Errorf("exit code %d: %v", fault.Code, fault)
			}
			end()
			time.Sleep(time.Second)
			s = c.start(topic, newEpoch, "TIDEMARK_DELIVERY="+delivery)
			time.Sleep(2 * group.RivalEvery)
			s.lives()
			s.stop()
			stop()
		}
	})
}

// strangerHasWritten creates the outputs of a topic and leaves a transaction of another
// group's instance open there, with a record for each partition.
func (c *cluster) strangerHasWritten(topic string, partitions int32) *kgo.Client {
	c.t.Helper()
	for _, out := range []string{".ordered", ".late"} {
		c.create(topic+out, partitions)
	}
	cl := c.client(kgo.TransactionalID("other/x"), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionTimeout(time.Minute))
	if err := cl.BeginTransaction(); err != nil {
		c.t.Fatal(err)
	}
	for p := range partitions {
		c.produce(cl, &kgo.Record{Topic: topic + ".ordered", Partition: p})
	}
	return cl
}

// TestTracesAreNoProof: what another group's instance left on an output counts while
// it is a member of its group and has our source, and only then.
func TestTracesAreNoProof(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		defer c.strangerHasWritten(topic, 1).Close()
		s := c.start(topic, newEpoch)
		c.await("the partition", func() bool { s.lives(); return len(c.commits(s.cfg)) == 1 })
		s.stop()
	})
}

// TestUnseenIsNoRival: what another producer has left behind is no rival because the broker
// that has it did not answer at first.
func TestUnseenIsNoRival(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(2)
		defer c.strangerHasWritten(topic, 2).Close()
		silent := c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeProducers}, Topic: topic + ".ordered", Partitions: []int32{0}, Err: kerr.UnknownServerError, Count: 2})
		s := c.start(topic, newEpoch)
		c.await("the partitions", func() bool { s.lives(); return len(c.commits(s.cfg)) == 2 })
		s.stop()
		if silent.Hits() != 2 {
			t.Errorf("%d questions were not answered", silent.Hits())
		}
	})
}
