package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/position"
	"github.com/tidemarkhq/tidemark/reorder"
)

const goOn = "TIDEMARK_ON_DATA_LOSS=continue"

// loses starts a sidecar and expects it to end with exit code 1, numbers, and
// the way out.
func (c *cluster) loses(topic string, words ...string) {
	c.t.Helper()
	fault := c.start(topic, noDrain).fails()
	if fault.Code != 1 || !strings.Contains(fault.Advice, goOn) || !strings.Contains(fault.Advice, "`tidemark position rebuild --partition "+topic+"/0`") {
		c.t.Errorf("exit code %d: %v\nhint: %s", fault.Code, fault, fault.Advice)
	}
	for _, word := range words {
		if !strings.Contains(fault.Error(), word) {
			c.t.Errorf("%q is not in: %v", word, fault)
		}
	}
}

// goesOn starts a sidecar that accepts the loss, and expects a new record to
// come out.
func (c *cluster) goesOn(cfg config.Config, w *workload) {
	c.t.Helper()
	topic := cfg.Topics[0]
	s := c.start(topic, goOn)
	for i := range 3 {
		c.produce(c.cl, record(topic, 0, w.base.Add(3*time.Second).UnixMilli(), fmt.Sprint("after-", i)))
	}
	c.awaitDrained(s)
	s.stop()
	out := c.contents(cfg.OrderedTopic(topic))[0]
	if last := string(out[len(out)-1].Value); last != "after-2" {
		c.t.Errorf("the last record out is %q", last)
	}
}

// Records that were buffered have been deleted while nobody ran.
func TestKafkaBufferedRecordsDeleted(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		cfg, w := c.ranOnce(noDrain)
		topic := cfg.Topics[0]
		snap := c.commits(cfg)[0]
		if snap.Count == 0 {
			t.Fatal("nothing is buffered")
		}
		c.deleteBelow(topic, snap.Low+int64(snap.Count)/2)
		c.loses(topic, fmt.Sprint(snap.Low), fmt.Sprint(snap.Count))
		c.goesOn(cfg, w)
	})
}

// The same, and the position is made again as the hint says: what is gone is not owed, and
// everything else comes out.
func TestKafkaLossLeadsOut(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		cfg, w := c.ranOnce(noDrain)
		topic := cfg.Topics[0]
		snap := c.commits(cfg)[0]
		c.deleteBelow(topic, snap.Low+int64(snap.Count)/2)
		c.loses(topic, fmt.Sprint(snap.Low))
		c.await("the group to be empty", func() bool { return c.members(cfg) == 0 })
		tool := c.positions(cfg)
		plan, err := tool.PlanRebuild(c.ctx, position.Which{Only: position.Partitions{topic: {0}}}, -1)
		if err == nil {
			err = tool.Apply(c.ctx, plan)
		}
		if err != nil {
			t.Fatal(err)
		}
		s := c.start(topic)
		c.produce(c.cl, record(topic, 0, w.base.Add(time.Hour).UnixMilli(), "after"))
		c.awaitDrained(s)
		s.stop()
		c.verify(cfg)
		out := c.contents(cfg.OrderedTopic(topic))[0]
		if last := string(out[len(out)-1].Value); last != "after" {
			t.Errorf("the last record out is %q", last)
		}
	})
}

func (c *cluster) deleteBelow(topic string, offset int64) {
	c.t.Helper()
	os := kadm.Offsets{}
	os.Add(kadm.Offset{Topic: topic, At: offset})
	all, err := c.adm.DeleteRecords(c.ctx, os)
	if err == nil {
		err = all.Error()
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// The log ends before the commit, or holds other records than it held: a
// leader that was behind has been elected.
func TestKafkaLogTruncated(t *testing.T) {
	besideOthers(t)
	for name, falsify := range map[string]func(*reorder.Snapshot){
		"it ends early":       func(s *reorder.Snapshot) { s.Next += 10 },
		"other records":       func(s *reorder.Snapshot) { s.Sum++ },
		"fewer were buffered": func(s *reorder.Snapshot) { s.Count++ },
	} {
		t.Run(name, func(t *testing.T) {
			onKafka(t, func(t *testing.T, c *cluster) {
				cfg, w := c.ranOnce(noDrain)
				snap := c.commits(cfg)[0]
				falsify(&snap)
				c.commit(cfg, snap.Low, snap.Encode(c.scope(cfg, 0)))
				c.loses(cfg.Topics[0], fmt.Sprint(snap.Low), fmt.Sprint(snap.Count))
				c.goesOn(cfg, w)
			})
		})
	}
}

// The source topic was deleted and created again: what was buffered is gone,
// and offsets begin anew. That is a reset.
func TestKafkaTopicRecreated(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		cfg, w := c.ranOnce(noDrain)
		topic := cfg.Topics[0]
		running := c.start(topic, noDrain)
		time.Sleep(time.Second)
		c.recreate(topic)
		c.produce(c.cl, record(topic, 0, w.base.UnixMilli(), "new"))
		if fault := running.fails(); fault.Advice == "" {
			t.Errorf("no hint: %v", fault)
		}
		c.refused(topic, newEpoch, noDrain)
		s := c.start(topic, newEpoch)
		c.awaitDrained(s)
		s.stop()
		out := c.contents(cfg.OrderedTopic(topic))[0]
		if last := out[len(out)-1]; string(last.Value) != "new" || header(last, "tidemark-epoch") != "1" {
			t.Errorf("the last record out is %q in epoch %s", last.Value, header(last, "tidemark-epoch"))
		}
	})
}

func (c *cluster) recreate(topic string) {
	c.t.Helper()
	if _, err := c.adm.DeleteTopic(c.ctx, topic); err != nil {
		c.t.Fatal(err)
	}
	c.await("the topic to be gone", func() bool {
		_, err := c.adm.CreateTopic(c.ctx, 1, 1, nil, topic)
		return err == nil
	})
	c.settle()
	c.cl.Close() // it knows the old one
	c.open()
	c.await("the new topic", func() bool {
		err := c.cl.ProduceSync(c.ctx, &kgo.Record{Topic: topic, Headers: []kgo.RecordHeader{{Key: "event-time"}}}).FirstErr()
		return err == nil
	})
}

// The commit carries the leader epoch of the record at L and the metadata that
// of the last one read, so that truncation can be told.
func TestCommitCarriesLeaderEpoch(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		base := time.Now().Add(-time.Hour).UnixMilli()
		for i := range int64(4) {
			c.produce(c.cl, record(topic, 0, base+400*i, fmt.Sprint(i)))
			if err := c.fake.MoveTopicPartition(topic, 0, int32(i+1)%3); err != nil {
				t.Fatal(err)
			}
		}
		s := c.start(topic, noDrain)
		c.awaitRead(s)
		s.stop()
		snap, in := c.commits(s.cfg)[0], c.contents(topic)[0]
		if want := in[snap.Low].LeaderEpoch; snap.LowEpoch != want || want == in[0].LeaderEpoch {
			t.Errorf("committed %d with leader epoch %d, want %d", snap.Low, snap.LowEpoch, want)
		}
		if want := in[snap.Next-1].LeaderEpoch; snap.NextEpoch != want || want == snap.LowEpoch {
			t.Errorf("leader epoch %d before %d, want %d", snap.NextEpoch, snap.Next, want)
		}
	})
}

// The log is deleted before a partition that is being replayed: how much is
// said to be lost?
func TestLossIsCountedOnce(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		base := time.Now().Add(-time.Hour)
		var all []*kgo.Record
		for i := range 20 {
			all = append(all, record(topic, 0, base.UnixMilli()+int64(i), "x"))
		}
		c.produce(c.cl, all...)
		s := c.start(topic, noDrain)
		c.awaitRead(s)
		s.stop() // 20 are held
		for range 10 {
			c.produce(c.cl, record(topic, 0, base.UnixMilli()+5000, "y"))
		}
		c.deleteBelow(topic, 25) // all that is held, and 5 more
		s = c.start(topic, noDrain, goOn)
		c.awaitRead(s)
		st := s.status()
		if sum := sum(st); sum.Lost != 20 || sum.Carried != 20 || sum.Read != 5 || sum.Unaccounted() != 0 {
			t.Errorf("the account of 20 that were held and are gone, and 5 that were read: %+v", sum)
		}
		s.stop()
		if n := s.proc.reporter.Snapshot().Lost; n != 25 {
			t.Errorf("%d counted as lost, 25 are", n)
		}
	})
}

// A broker says OFFSET_OUT_OF_RANGE for an offset that the log has.
func TestOutOfRangeThatIsNot(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		base := time.Now().Add(-time.Hour)
		c.produce(c.cl, timed(topic, base, 0, nil), timed(topic, base, 9, nil))
		s := c.start(topic, noDrain, goOn)
		c.awaitRead(s)
		s.link.delay.Store(int64(2 * time.Millisecond))
		h := c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: topic, Err: kerr.OffsetOutOfRange, Count: -1})
		c.produce(c.cl, timed(topic, base, 10, nil))
		before := s.voice.lines.Load()
		time.Sleep(5 * time.Second)
		if n := s.voice.lines.Load() - before; n > 20 {
			t.Errorf("%d lines in 5 s", n)
		}
		h.Remove()
		c.awaitRead(s)
		s.stop()
	})
}
