package proxy

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/watermark"
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
		if limit := 1500*time.Millisecond + 3*group.AskInterval + 200*time.Millisecond; c.fake != nil && took > limit || took > 2*limit {
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

// slowAcks has brokers take so long to acknowledge what goes to the outputs of a topic,
// until that is set to nothing.
func (c *cluster) slowAcks(topic string, d time.Duration) *atomic.Int64 {
	var slow atomic.Int64
	slow.Store(int64(d))
	ordered, late := c.fake.TopicInfo(topic+".ordered").TopicID, c.fake.TopicInfo(topic+".late").TopicID
	c.fake.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.fake.KeepControl()
		for _, t := range req.(*kmsg.ProduceRequest).Topics {
			if t.TopicID == ordered || t.TopicID == late || strings.HasPrefix(t.Topic, topic+".") {
				c.fake.SleepControl(func() { time.Sleep(time.Duration(slow.Load())) })
				break
			}
		}
		return nil, nil, false
	})
	return &slow
}

// TestQuietBesideBusy: a partition whose burst is over does not wait for another that
// catches up, although brokers acknowledge so slowly that a turn takes longer than
// what breaks a stretch of answers.
func TestQuietBesideBusy(t *testing.T) {
	for _, delivery := range []string{"exactly-once", "at-least-once"} {
		onFake(t, func(t *testing.T, c *cluster) {
			const backlog = 150_000
			// Bound and idle timeout, and two commits, each of which waits for all that is
			// in flight: six batches, more or less, one after the other. The busy one takes
			// several times as long.
			const slowAnswer, limit = 1500 * time.Millisecond, 1500*time.Millisecond + 2*6*slowAnswer
			topic := c.topic(2)
			base := time.Now().Add(-24 * time.Hour).UnixMilli()
			s := c.start(topic, "TIDEMARK_DELIVERY="+delivery)
			c.await("the first commit", func() bool { return len(c.commits(s.cfg)) == 2 })
			c.slowAcks(topic, slowAnswer)
			c.produce(c.cl, record(topic, 1, base, "last of a burst"))
			c.await("it to be read", func() bool { snaps := c.commits(s.cfg); return len(snaps) == 2 && snaps[1].Next == 1 })
			c.backlog(topic, 0, base, backlog)
			done := func(n int, next int64) bool {
				s.lives()
				snaps := c.commits(s.cfg)
				return len(snaps) == 2 && snaps[n].Next == next && snaps[n].Count == 0
			}
			quiet := since(func() { c.await("the quiet one", func() bool { return done(1, 1) }) })
			if done(0, backlog) {
				t.Errorf("%s: the busy one was not busy for long enough", delivery)
			}
			if quiet > limit {
				t.Errorf("%s: the last record of the quiet partition came out after %v", delivery, quiet)
			}
			s.crash()
		})
	}
}

// backlog writes n records to a partition, as after a deployment of its producers.
func (c *cluster) backlog(topic string, partition int32, base int64, n int) {
	c.t.Helper()
	var rs []*kgo.Record
	for i := range n {
		if rs = append(rs, record(topic, partition, base+int64(i), fmt.Sprint("backlog ", i))); len(rs) == 5000 || i == n-1 {
			c.produce(c.cl, rs...)
			rs = nil
		}
	}
}

// TestPartitionWithoutLeaderIsAlone: the others fall idle, and drain.
func TestPartitionWithoutLeaderIsAlone(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(3)
		s := c.start(topic)
		c.await("the first commits", func() bool { return len(c.commits(s.cfg)) == 3 })
		base := time.Now().UnixMilli()
		for p := range int32(3) {
			c.produce(c.cl, record(topic, p, base, "last of a burst"))
		}
		c.await("them to be read", func() bool {
			for _, snap := range c.commits(s.cfg) {
				if snap.Next != 1 {
					return false
				}
			}
			return true
		})
		h := c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata, kmsg.ListOffsets}, Topic: topic, Partitions: []int32{0}, Err: kerr.LeaderNotAvailable, Count: -1})
		time.Sleep(5 * time.Second)
		for p, out := range c.contents(topic + ".ordered") {
			if len(out) != min(p, 1) {
				t.Errorf("partition %d has put out %d records, and it is partition 0 that has no leader", p, len(out))
			}
		}
		if said := s.voice.heard("cannot list end offsets"); len(said) != 1 || !strings.Contains(said[0], "partitions="+topic+"/0") {
			t.Errorf("the log says %q", said)
		}
		h.Remove()
		c.awaitFor(5*time.Second, "partition 0", func() bool { return c.drained(s.cfg) })
		s.stop()
	})
}

// TestNoLeaderIsNotAskedForAtOnce: a topic of which brokers say nothing, or that they do
// not let us look up, is looked up in every round, and not again and again within one.
func TestNoLeaderIsNotAskedForAtOnce(t *testing.T) {
	besideOthers(t)
	for name, answer := range map[string]func(topic *kmsg.MetadataResponseTopic){
		"refused":     func(topic *kmsg.MetadataResponseTopic) { topic.ErrorCode = kerr.UnknownTopicOrPartition.Code },
		"left out":    func(topic *kmsg.MetadataResponseTopic) { topic.Partitions = nil },
		"of the past": func(topic *kmsg.MetadataResponseTopic) { topic.Partitions[0].LeaderEpoch = 0 },
		"no leader":   func(topic *kmsg.MetadataResponseTopic) { topic.Partitions[0].Leader = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			onFake(t, func(t *testing.T, c *cluster) {
				topic := c.topic(1)
				var asked atomic.Int32
				w := group.NewWatcher(func() watermark.Instant { return 1 }, fault.NewReporter(slog.New(slog.DiscardHandler)), func() {})
				w.Client = c.cl
				w.Want([]group.WantedEnd{{TopicPartition: group.TopicPartition{Topic: topic}, Epoch: 1, At: -1}})
				c.fake.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
					c.fake.KeepControl()
					asked.Add(1)
					told := req.ResponseKind().(*kmsg.MetadataResponse)
					of := kmsg.NewMetadataResponseTopic()
					of.Topic = &topic
					p := kmsg.NewMetadataResponseTopicPartition()
					p.LeaderEpoch = 1
					of.Partitions = append(of.Partitions, p)
					answer(&of)
					told.Topics = append(told.Topics, of)
					return told, nil, true
				})
				ctx, stop := context.WithTimeout(c.ctx, 10*group.AskInterval)
				defer stop()
				w.Watch(ctx)
				if n := asked.Load(); n < 8 || n > 10 {
					t.Errorf("asked %d times in 10 rounds", n)
				}
			})
		})
	}
}

// TestHungBrokerIsAlone: a broker that does not answer says nothing of the partitions
// that others lead.
func TestHungBrokerIsAlone(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(3)
		s := c.start(topic)
		c.await("the first commits", func() bool { return len(c.commits(s.cfg)) == 3 })
		hung := c.fake.PartitionInfo(topic, 0).Leader
		c.fake.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
			c.fake.KeepControl()
			if asked := req.(*kmsg.ListOffsetsRequest).Topics; c.fake.CurrentNode() == hung && len(asked) > 0 && asked[0].Topic == topic {
				c.fake.SleepControl(func() { time.Sleep(time.Minute) })
			}
			return nil, nil, false
		})
		base := time.Now().UnixMilli()
		for p := range int32(3) {
			c.produce(c.cl, record(topic, p, base, "last of a burst"))
		}
		time.Sleep(5 * time.Second)
		for _, p := range c.fake.PartitionInfos(topic) {
			snap := c.commits(s.cfg)[p.Partition]
			if drained := snap.Count == 0 && snap.Next == 1; drained != (p.Leader != hung) {
				t.Errorf("partition %d of broker %d: %+v", p.Partition, p.Leader, snap)
			}
		}
		s.crash()
	})
}

// TestTrickleIsSilence: records that do not move the maximum, one after the other, do
// not keep the last good one in.
func TestTrickleIsSilence(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		s := c.start(topic)
		base := time.Now().Add(-time.Hour).UnixMilli()
		c.produce(c.cl, record(topic, 0, base, "good"))
		c.awaitRead(s)
		began := time.Now()
		for time.Since(began) < 4*time.Second {
			c.produce(c.cl, record(topic, 0, base-60_000, "late"))
			time.Sleep(7 * time.Millisecond)
		}
		if out := c.contents(topic + ".ordered")[0]; len(out) != 1 {
			t.Errorf("%d came out in order within 4 s; bound and idle timeout are 1.5 s together", len(out))
		}
		s.stop()
	})
}

// TestOlderLeaderProvesNothing: a broker that is cut off from the others goes on
// answering, with the epoch in which it led. What it says is no proof of silence once
// anybody has told of a newer one.
func TestOlderLeaderProvesNothing(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		said := new(voice)
		a := fault.NewReporter(slog.New(slog.NewTextHandler(said, nil)))
		said.to = io.Discard
		began := time.Now()
		w := group.NewWatcher(func() watermark.Instant { return watermark.Instant(time.Since(began)) }, a, func() {})
		w.Client = c.cl
		var epoch atomic.Int32 // of the answers
		c.fake.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
			c.fake.KeepControl()
			resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
			for _, t := range req.(*kmsg.ListOffsetsRequest).Topics {
				rt := kmsg.NewListOffsetsResponseTopic()
				rt.Topic = t.Topic
				rp := kmsg.NewListOffsetsResponseTopicPartition()
				rp.Offset, rp.LeaderEpoch = 7, epoch.Load()
				rt.Partitions = append(rt.Partitions, rp)
				resp.Topics = append(resp.Topics, rt)
			}
			return resp, nil, true
		})
		var idle watermark.Idle
		idle.Timeout = time.Second
		quiet := func(known int32) time.Duration {
			w.Want([]group.WantedEnd{{TopicPartition: group.TopicPartition{Topic: topic}, Epoch: known, At: -1}})
			time.Sleep(3 * time.Second)
			heard, _ := w.EndsOf(group.TopicPartition{Topic: topic})
			idle.Observe(heard.Stretch, true)
			return idle.Quiet()
		}
		ctx, stop := context.WithCancel(c.ctx)
		done := make(chan struct{})
		go func() { w.Watch(ctx); close(done) }()
		if got := quiet(0); got < 2*time.Second {
			t.Errorf("quiet for %v, by a leader of epoch 0, the newest", got)
		}
		if got := quiet(1); got != 0 || len(said.heard(group.ErrBehind.Error())) == 0 {
			t.Errorf("quiet for %v, by a leader of epoch 0 where epoch 1 has written; the log says %q", got, said)
		}
		epoch.Store(1)
		if got := quiet(0); got < 2*time.Second {
			t.Errorf("quiet for %v, by the newest leader again", got)
		}
		epoch.Store(0)
		if got := quiet(0); got != 0 {
			t.Errorf("quiet for %v, by a leader of epoch 0 where one of epoch 1 has answered", got)
		}
		stop()
		<-done
	})
}
