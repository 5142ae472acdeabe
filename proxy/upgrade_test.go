package proxy

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/position"
	"github.com/tidemarkhq/tidemark/reorder"
)

// commitOfBefore makes the commit one of an earlier version, which had not held some offsets.
func (c *cluster) commitOfBefore(cfg config.Config, invalid ...int64) {
	c.t.Helper()
	at, text := c.committed(cfg)
	scope := c.scope(cfg, 0)
	snap, err := reorder.Decode(text, at, -1, scope)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, offset := range invalid {
		snap.Count--
		snap.Sum -= reorder.OffsetHash(offset)
	}
	scope.Fingerprint = cfg.EventTime.Earlier()[0]
	c.commit(cfg, at, snap.Encode(scope))
}

// A version that reads some event times otherwise goes on from what an earlier one held, if it
// finds the same records again: those whose times were invalid, and are past now, are as late
// as they were.
func TestKafkaUpgrade(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		cfg, w := c.ranOnce(noDrain)
		if c.commits(cfg)[0].Count == 0 {
			t.Fatal("nothing is held")
		}
		c.commitOfBefore(cfg)
		_, before := c.committed(cfg)
		s := c.start(cfg.Topics[0])
		c.await("a commit of this version", func() bool { _, now := c.committed(cfg); return now != before })
		c.awaitDrained(s)
		s.stop()
		c.holds(s.cfg, w)
		c.verify(s.cfg)
	})
}

// If it does not, it does not go on, for one of them would come out a second time; nor does it
// where loss is accepted. Both ways out that the hint has lead out.
func TestKafkaUpgradeRefused(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		base := time.Now().UTC().Truncate(time.Hour)
		for i := range 3 {
			c.produce(c.cl, withTime(record(topic, 0, 0, fmt.Sprint(i)), base.Add(time.Duration(i)*time.Minute).Format("2006-01-02T15:04Z")))
		}
		env := []string{noDrain, "TIDEMARK_MAX_OUT_OF_ORDERNESS=1h", "TIDEMARK_MAX_FUTURE=0", "TIDEMARK_EVENT_TIME=header:event-time"}
		s := c.start(topic, env...)
		c.awaitRead(s)
		s.stop()
		at, text := c.committed(s.cfg)
		c.commitOfBefore(s.cfg, 1)
		c.refused(topic, "run the version of before until nothing is held", env...)
		c.refused(topic, "`tidemark position new-epoch --partition "+topic+"/0`", append(env, "TIDEMARK_ON_DATA_LOSS=continue")...)

		// The version of before goes on from its own commit, and once nothing is held
		// there is nothing to find again.
		snap, err := reorder.Decode(text, at, -1, c.scope(s.cfg, 0))
		if err != nil {
			t.Fatal(err)
		}
		scope := c.scope(s.cfg, 0)
		scope.Fingerprint = s.cfg.EventTime.Earlier()[0]
		drained := snap
		drained.Low, drained.LowEpoch, drained.Count, drained.Sum = snap.Next, snap.NextEpoch, 0, 0
		c.commit(s.cfg, drained.Low, drained.Encode(scope))
		s = c.start(topic, env...)
		c.produce(c.cl, withTime(record(topic, 0, 0, "after"), base.Add(time.Hour).Format("2006-01-02T15:04Z")))
		c.awaitRead(s)
		s.stop()

		// A new epoch, of the partition that the hint names.
		tool := c.positions(c.config(topic, env...))
		plan, err := tool.PlanNewEpoch(c.ctx, position.Which{Only: position.Partitions{topic: {0}}}, position.From{Offset: 0})
		if err == nil {
			err = tool.Apply(c.ctx, plan)
		}
		if err != nil {
			t.Fatal(err)
		}
		s = c.start(topic, "TIDEMARK_MAX_FUTURE=0", "TIDEMARK_EVENT_TIME=header:event-time")
		c.awaitDrained(s)
		s.stop()
		out := c.contents(s.cfg.OrderedTopic(topic))[0]
		if len(out) != 4 {
			t.Errorf("%d records came out", len(out))
		}
	})
}

func withTime(r *kgo.Record, text string) *kgo.Record {
	r.Headers = []kgo.RecordHeader{{Key: "event-time", Value: []byte(text)}}
	return r
}
