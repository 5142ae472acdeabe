package proxy

import (
	"fmt"
	"testing"
	"time"
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
