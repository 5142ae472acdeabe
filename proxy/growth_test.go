package proxy

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The source has more partitions than the outputs, which may not be grown: the
// others go on, and the new ones are read from where they begin as soon as they
// can be put out.
func TestNewPartitionsWait(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(2)
		outputs := []string{topic + ".ordered", topic + ".late"}
		for _, out := range outputs {
			c.create(out, 1)
		}
		refused := c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreatePartitions}, Err: kerr.TopicAuthorizationFailed, Count: -1})
		base := time.Now().Add(-time.Hour)
		write := func(seconds int) {
			for n := range int32(2) {
				r := timed(topic, base, seconds, nil)
				r.Partition = n
				c.produce(c.cl, r)
			}
		}
		s := c.start(topic, "TIDEMARK_START=latest")
		c.await("the first commit of both", func() bool { return len(c.commits(s.cfg)) == 2 })
		write(0)
		write(1)
		c.await("the first partition", func() bool { return len(c.contents(outputs[0])[0]) == 2 })
		if snaps := c.commits(s.cfg); snaps[1].Next != 0 {
			t.Errorf("the second has been read: %+v", snaps[1])
		}
		refused.Remove()
		if _, err := c.adm.UpdatePartitions(c.ctx, 2, outputs...); err != nil {
			t.Fatal(err)
		}
		took := since(func() { c.awaitDrained(s) })
		if took > 2*retrySuspended {
			t.Errorf("it took %v", took)
		}
		s.stop()
		if r := c.verify(s.cfg); r.Read != 4 || r.Ordered != 4 {
			t.Errorf("%d read, %d ordered", r.Read, r.Ordered)
		}
	})
}

// The source grows while it is read: the outputs grow with it, and the new
// partition is read from its beginning.
func TestKafkaSourceGrows(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		base := time.Now().Add(-time.Hour)
		s := c.start(topic, "TIDEMARK_START=latest")
		c.await("the first commit", func() bool { return len(c.commits(s.cfg)) == 1 })
		if _, err := c.adm.UpdatePartitions(c.ctx, 3, topic); err != nil {
			t.Fatal(err)
		}
		c.await("the brokers to know", func() bool {
			listed, err := c.adm.ListEndOffsets(c.ctx, topic)
			return err == nil && listed.Error() == nil && len(listed[topic]) == 3
		})
		c.cl.Close()
		c.open() // it knows the smaller one
		for i := range 30 {
			r := timed(topic, base, i/3, fmt.Append(nil, i))
			r.Partition = int32(i % 3)
			c.produce(c.cl, r)
		}
		s.stop() // a running client learns of it within minutes
		s = c.start(topic, "TIDEMARK_START=latest")
		c.await("three commits", func() bool { s.lives(); return len(c.commits(s.cfg)) == 3 })
		c.awaitDrained(s)
		s.stop()
		if r := c.verify(s.cfg); r.Read != 30 || r.Ordered != 30 {
			t.Errorf("%d read, %d ordered", r.Read, r.Ordered)
		}
	})
}
