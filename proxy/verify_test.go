package proxy

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

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

// A stranger's transaction on an output hides what comes out behind it. Nothing of that is
// lost, which is seen when the transaction has ended.
func TestKafkaVerifyHidden(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		base := time.Now().Add(-time.Hour).UnixMilli()
		for i := range 10 {
			c.produce(c.cl, record(topic, 0, base+int64(i)*1000, fmt.Sprint(i)))
		}
		s := c.start(topic)
		c.awaitDrained(s)
		stranger := c.client(kgo.TransactionalID("stranger " + topic))
		defer stranger.Close()
		if err := stranger.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		c.produce(stranger, &kgo.Record{Topic: s.cfg.OrderedTopic(topic), Value: []byte("never mind")})
		for i := range 10 {
			c.produce(c.cl, record(topic, 0, base+int64(20+i)*1000, fmt.Sprint(20+i)))
		}
		c.awaitDrained(s)
		s.stop()
		r := c.verify(s.cfg)
		if r.Verdict() != verify.Unknown || r.Unjudged[verify.GapHidden] != 10 || r.Ordered != 10 || len(r.Hidden) != 1 ||
			len(r.Hidden[0].Transactions) == 0 || r.Hidden[0].Transactions[0].ID != "stranger "+topic {
			t.Errorf("%+v", r)
		}
		if err := stranger.EndTransaction(c.ctx, kgo.TryAbort); err != nil {
			t.Fatal(err)
		}
		if r := c.verify(s.cfg); r.Verdict() != verify.Holds || r.Ordered != 20 || len(r.Hidden) > 0 {
			t.Errorf("%+v", r)
		}
	})
}

// While a sidecar is at work, its own open transactions hide nothing that a commit has
// promised, however long they are open.
func TestKafkaVerifyBeside(t *testing.T) {
	besideOthers(t)
	for _, interval := range []string{"50ms", "4s"} {
		t.Run(interval, func(t *testing.T) {
			onKafka(t, func(t *testing.T, c *cluster) {
				topic := c.topic(2)
				base := time.Now().Add(-time.Hour).UnixMilli()
				s := c.start(topic, noDrain, "TIDEMARK_COMMIT_INTERVAL="+interval)
				for i := range 40 {
					c.produce(c.cl, record(topic, int32(i%2), base+int64(i)*1000, fmt.Sprint(i)))
					if i%8 == 7 {
						c.await("a commit", func() bool { return len(c.commits(s.cfg)) == 2 })
						if r := c.verify(s.cfg); r.Verdict() != verify.Holds {
							t.Errorf("after %d: %+v", i, r)
						}
					}
				}
				c.awaitRead(s)
				s.stop()
				if r := c.verify(s.cfg); r.Read != 40 {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}
