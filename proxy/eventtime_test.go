package proxy

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/emit/verify"
)

// Event times come from elsewhere from one start on. The commits say from which offset, also
// through crashes and further commits, so what came out before is not taken for wrong; and
// verify with the event times of before says so, and does not judge by them.
func TestKafkaEventTimeChanges(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(2)
		base := time.Now().Add(-time.Hour).Truncate(time.Second).UnixMilli()
		write := func(n int32, from, to int) {
			for i := from; i < to; i++ {
				r := record(topic, n, base+int64(i)*1000, fmt.Sprint(i))
				r.Timestamp = time.UnixMilli(base - int64(i)*1000) // another clock, backwards
				if i >= 40 {
					r.Timestamp = time.UnixMilli(base + int64(i)*10_000)
				}
				c.produce(c.cl, r)
			}
		}
		write(0, 0, 20)
		write(1, 0, 20)
		old := []string{"TIDEMARK_EVENT_TIME=header:event-time"}
		s := c.start(topic, old...)
		c.awaitDrained(s)
		s.stop()
		before := s.cfg

		write(0, 40, 60)
		changed := []string{"TIDEMARK_EVENT_TIME=timestamp"}
		for range 2 {
			s = c.start(topic, append(changed, noDrain)...)
			c.awaitRead(s)
			s.stop()
		}
		s = c.start(topic, changed...)
		c.awaitDrained(s)
		s.stop()
		r := c.verify(s.cfg)
		if r.Read != 60 || r.Unjudged[verify.GapOtherTimes] != 40 || !r.OtherTimes || r.Ordered != 60 || !r.Holds() {
			t.Errorf("%+v", r)
		}
		write(1, 40, 41)
		s = c.start(topic, changed...)
		c.awaitDrained(s)
		s.stop()
		if r := c.verify(s.cfg); r.OtherTimes || r.Unjudged[verify.GapOtherTimes] != 40 || r.Read != 61 {
			t.Errorf("%+v", r)
		}
		_, err := verify.Run(c.ctx, c.cl, verify.Options{
			Topics: []verify.Topic{{
				Source: topic, Ordered: before.OrderedTopic(topic), Late: before.LateTopic(topic),
				EventTime: before.EventTime.Extract, Fingerprint: before.EventTime.Fingerprint(),
			}},
			Group: before.Group, Prefix: before.HeaderPrefix, Required: before.OutputHeaders(),
		})
		if !errors.Is(err, verify.ErrOtherTimes) {
			t.Errorf("with the event times of before: %v", err)
		}
	})
}

// Without source offsets, records are found by their bytes.
func TestKafkaVerifyWithoutHeaders(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		w := workload{seed: 3, records: 1000, partitions: 2, transactions: true}
		topic := c.topic(w.partitions)
		done := c.writing(topic, &w)
		s := c.start(topic, "TIDEMARK_HEADERS=none", noDrain)
		<-done
		c.awaitRead(s)
		s.stop()
		r := c.holds(s.cfg, &w)
		if r.Verdict() != verify.Holds || r.Bare > 0 || len(r.Unjudged) > 0 {
			t.Errorf("%+v", r)
		}
	})
}
