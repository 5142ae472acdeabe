package proxy

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/tidemarkhq/tidemark/reorder"
)

// TestTopicIDsAppear: brokers before 2.8 have no topic ids. What was committed there is
// taken up after their upgrade, with something held or not, and says the id at once, so
// that a topic that is created again from then on is told. An answer without ids, of a
// broker that is not upgraded yet or any more, takes the id away from no commit.
func TestTopicIDsAppear(t *testing.T) {
	for _, delivery := range []string{"exactly-once", "at-least-once"} {
		for _, held := range []bool{true, false} {
			onFake(t, func(t *testing.T, c *cluster) {
				topic := c.topic(2)
				env := []string{"TIDEMARK_DELIVERY=" + delivery}
				if held {
					env = append(env, noDrain)
				}
				written := int64(0)
				more := func() {
					for range 20 {
						for n := range int32(2) {
							c.produce(c.cl, record(topic, n, time.Now().Add(-time.Hour).UnixMilli()+100*written, ""))
						}
						written++
					}
				}
				now := c.connection
				before := append(slices.Clone(now), kgo.MaxVersions(kversion.V2_7_0()))
				id := c.scope(c.config(topic), 0).TopicID
				for _, step := range []struct {
					connection []kgo.Opt
					id         [16]byte
				}{{before, [16]byte{}}, {now, id}, {before, id}, {now, id}} {
					c.connection = step.connection
					s := c.start(topic, env...)
					c.await("partitions", func() bool { s.lives(); return len(c.owned(s)) == 2 })
					for n := range int32(2) {
						c.await("the id in what is committed", func() bool {
							_, text := c.committedAt(s.cfg, n)
							return step.id == [16]byte{} || reorder.TopicID(text) == id
						})
					}
					more()
					c.awaitRead(s)
					if !held {
						c.awaitDrained(s)
					}
					s.stop()
					for n := range int32(2) {
						if _, text := c.committedAt(s.cfg, n); reorder.TopicID(text) != step.id {
							t.Errorf("%s, held %v: partition %d is committed as %s, want id %x", delivery, held, n, text, step.id)
						}
					}
				}
				s := c.start(topic, "TIDEMARK_DELIVERY="+delivery)
				c.awaitDrained(s)
				s.stop()
				if r := c.verify(s.cfg); r.Ordered != 2*written || r.Replayed != 0 {
					t.Errorf("%s, held %v: %d of %d in order, %d in another epoch", delivery, held, r.Ordered, 2*written, r.Replayed)
				}
			})
		}
	}
}
