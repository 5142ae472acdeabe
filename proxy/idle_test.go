package proxy

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Three partitions, one of them fed: its last record comes out within bound
// and idle timeout, and nobody waits for the empty ones.
func TestKafkaIdleDrains(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(3)
		s := c.start(topic)
		c.await("the first commit", func() bool { return len(c.commits(s.cfg)) == 3 })
		base := time.Now().Add(-time.Hour).UnixMilli()
		c.produce(c.cl, record(topic, 1, base, "first"), record(topic, 1, base+100, "last"))
		took := since(func() { c.awaitDrained(s) })
		s.stop()
		// 500 ms and 1 s, three questions, a commit, and this poll
		if limit := 1500*time.Millisecond + 3*askInterval + 200*time.Millisecond; c.fake != nil && took > limit || took > 2*limit {
			t.Errorf("the last record took %v", took)
		}
		if took < 1500*time.Millisecond {
			t.Errorf("the last record took only %v", took)
		}
		if r := c.verify(s.cfg); r.Ordered != 2 {
			t.Errorf("%d ordered", r.Ordered)
		}
	})
}

// notIdle writes a record, has something stop the reading for ten idle
// timeouts, and writes one that is older, within the bound. It must not be
// late.
func notIdle(t *testing.T, c *cluster, stall func(topic string, base int64)) {
	topic := c.topic(1)
	s := c.start(topic)
	base := time.Now().Add(-time.Hour).UnixMilli()
	c.produce(c.cl, record(topic, 0, base, "first"))
	c.awaitRead(s)
	stall(topic, base)
	c.awaitDrained(s)
	s.stop()
	r := c.verify(s.cfg)
	if r.Read != 2 || r.Ordered != 2 {
		t.Errorf("%d read, %d ordered, late %v", r.Read, r.Ordered, r.Late)
	}
}

func older(topic string, base int64) *kgo.Record { return record(topic, 0, base-200, "older") }

func TestKafkaOpenTransactionIsNotIdle(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		notIdle(t, c, func(topic string, base int64) {
			tx := c.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID("open-"+topic))
			defer tx.Close()
			if err := tx.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			c.produce(tx, older(topic, base))
			time.Sleep(5 * time.Second)
			c.wrote(tx.EndTransaction(c.ctx, kgo.TryCommit))
		})
	})
}

func TestLaggingIsNotIdle(t *testing.T) {
	stalled(t, kmsg.Fetch)
}

func TestUnreachableBrokersAreNotIdle(t *testing.T) {
	stalled(t, kmsg.Fetch, kmsg.ListOffsets)
}

func stalled(t *testing.T, keys ...kmsg.Key) {
	onFake(t, func(t *testing.T, c *cluster) {
		notIdle(t, c, func(topic string, base int64) {
			h := c.fake.Fault(kfake.Fault{Keys: keys, Topic: topic, Err: kerr.NotLeaderForPartition, Count: -1})
			c.produce(c.cl, older(topic, base))
			time.Sleep(10 * time.Second)
			h.Remove()
			if h.Hits() == 0 {
				t.Error("nothing was stalled")
			}
		})
	})
}

// A suspended process learns nothing of what came meanwhile. Its time does not
// count.
func TestSuspendedIsNotIdle(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		notIdle(t, c, func(topic string, base int64) {
			s := c.sidecars[0]
			s.link.delay.Store(int64(10 * time.Second))
			time.Sleep(time.Second)
			c.produce(c.cl, older(topic, base))
			time.Sleep(5 * time.Second)
			s.link.delay.Store(0)
		})
	})
}
