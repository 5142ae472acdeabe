package proxy

import (
	"fmt"
	"slices"
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
		env := []string{noDrain, "TIDEMARK_MAX_OUT_OF_ORDERNESS=1h", "TIDEMARK_MAX_FUTURE=0", "TIDEMARK_EVENT_TIME=header:event-time"}
		base := time.Now().UTC().Truncate(time.Hour)
		at := func(i int) string { return base.Add(time.Duration(i) * time.Minute).Format("2006-01-02T15:04Z") }

		topic := c.topic(1)
		put := func(value string, minutes int) {
			c.produce(c.cl, withTime(record(topic, 0, 0, value), at(minutes)))
		}
		for i := range 3 {
			put(fmt.Sprint(i), i)
		}
		s := c.start(topic, env...)
		c.awaitRead(s)
		s.stop()

		// The version of before took the second for invalid.
		c.commitOfBefore(s.cfg, 1)
		invalid := withTime(record(topic, 0, 0, "1"), at(1))
		invalid.Offset, invalid.Timestamp = 1, base
		c.produce(c.cl, routed(invalid, 0, reorder.InvalidTime, time.Now()))
		c.refused(topic, "`tidemark position rebuild --partition "+topic+"/0`", env...)
		c.refused(topic, "run the version of before until nothing is held", append(env, "TIDEMARK_ON_DATA_LOSS=continue")...)

		// From the outputs.
		tool := c.positions(s.cfg)
		plan, err := tool.PlanRebuild(c.ctx, position.Which{Only: position.Partitions{topic: {0}}}, 0)
		if err == nil {
			err = tool.Apply(c.ctx, plan)
		}
		if err != nil {
			t.Fatal(err)
		}
		env = []string{"TIDEMARK_MAX_FUTURE=0", "TIDEMARK_EVENT_TIME=header:event-time"}
		s = c.start(topic, env...)
		put("3", 90)
		c.awaitDrained(s)
		s.stop()

		// Once the version of before holds nothing.
		c.commitOfBefore(s.cfg)
		s = c.start(topic, env...)
		put("4", 91)
		c.await("both", func() bool { return len(c.contents(s.cfg.OrderedTopic(topic))[0]) == 4 })
		s.stop()

		var got []string
		for _, r := range c.contents(s.cfg.OrderedTopic(topic))[0] {
			got = append(got, string(r.Value))
		}
		if want := []string{"0", "2", "3", "4"}; !slices.Equal(got, want) {
			t.Errorf("%v came out, want %v", got, want)
		}
		if late := c.contents(s.cfg.LateTopic(topic))[0]; len(late) != 1 {
			t.Errorf("%d are late", len(late))
		}
	})
}

func withTime(r *kgo.Record, text string) *kgo.Record {
	r.Headers = []kgo.RecordHeader{{Key: "event-time", Value: []byte(text)}}
	return r
}
