package proxy

import (
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
)

// TestStrangersAreNotFenced: of the transactions that are open on an output only those
// of our group's instances are ended. The name of another group may begin with ours and
// a slash.
func TestStrangersAreNotFenced(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		cfg := c.config(topic)
		out := cfg.OrderedTopic(topic)
		c.create(out, 1)
		c.create(cfg.LateTopic(topic), 1)
		ours, theirs := cfg.Group+"/dead", cfg.Group+"/b/c"
		for _, id := range []string{ours, theirs, cfg.Group, cfg.Group + "/"} {
			cl := c.client(kgo.TransactionalID(id), kgo.RecordPartitioner(kgo.ManualPartitioner()))
			defer cl.Close()
			if err := cl.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			c.produce(cl, &kgo.Record{Topic: out})
		}
		group := kadm.Offsets{}
		group.Add(kadm.Offset{Topic: topic, LeaderEpoch: -1})
		if err := c.adm.CommitAllOffsets(c.ctx, cfg.Group, group); err != nil {
			t.Fatal(err) // without it there is no group to have members
		}
		topics := map[string]preflight.Topic{topic: {Name: topic, Partitions: 1, Usable: 1, Ordered: out, Late: cfg.LateTopic(topic)}}
		s := newSession(cfg, c.adm, topics, newProcess(slog.New(slog.DiscardHandler)))
		dead, err := s.admin.DeadTransactions(c.ctx, map[string][]int32{topic: {0}})
		if err != nil || !slices.Equal(dead, []string{ours}) {
			t.Errorf("to be ended: %q, %v; want %q alone", dead, err, ours)
		}
	})
}

// holdOffsets leaves a transaction open that has nothing in it but offsets of a
// sidecar's group, as an instance does that dies while all that it has read is held.
func (c *cluster) holdOffsets(transactionalID, topic string) *kgo.Client {
	c.t.Helper()
	const longerThanAnybodyWaits = 5 * time.Minute
	cl := c.client(kgo.TransactionalID(transactionalID), kgo.TransactionTimeout(longerThanAnybodyWaits))
	id, epoch, err := cl.ProducerID(c.ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	group := "sidecar-" + topic
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = transactionalID, id, epoch, group
	added, err := add.RequestWith(c.ctx, cl)
	if err == nil {
		err = kerr.ErrorForCode(added.ErrorCode)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	topics, err := c.adm.ListTopics(c.ctx, topic)
	if err != nil {
		c.t.Fatal(err)
	}
	commit := kmsg.NewPtrTxnOffsetCommitRequest()
	commit.TransactionalID, commit.ProducerID, commit.ProducerEpoch, commit.Group, commit.Generation = transactionalID, id, epoch, group, -1
	t := kmsg.NewTxnOffsetCommitRequestTopic()
	t.Topic, t.TopicID = topic, topics[topic].ID
	p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	p.LeaderEpoch = -1
	t.Partitions = append(t.Partitions, p)
	commit.Topics = append(commit.Topics, t)
	committed, err := commit.RequestWith(c.ctx, cl)
	if err == nil {
		err = kerr.ErrorForCode(committed.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return cl
}

// A dead instance's transaction that put nothing out is shown by no output. Who takes
// its partitions over ends it all the same.
func TestKafkaDeadHoldOffsets(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		c.await("the group's coordinator", func() bool {
			r := c.adm.FindGroupCoordinators(c.ctx, "sidecar-"+topic)
			return r["sidecar-"+topic].Err == nil
		})
		dead := "sidecar-" + topic + "/dead"
		c.holdOffsets(dead, topic).Close()
		var s *sidecar
		took := since(func() {
			s = c.start(topic)
			c.await("the first commit", func() bool { s.lives(); return len(c.commits(s.cfg)) == 1 })
		})
		if took > 5*time.Second {
			t.Errorf("the partition was taken up after %v", took)
		}
		s.stop()
		if said := s.voice.heard("ended a transaction that a dead instance had left open"); len(said) != 1 || !strings.Contains(said[0], dead) {
			t.Errorf("the log says %q", said)
		}
	})
}

// What is no instance's of ours is left alone, and named: it is the only one that it
// can be.
func TestKafkaStrangerHoldsOffsets(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		for _, id := range []string{"payments-app", "sidecar-%/eu/a", "sidecar-%.other/a"} {
			topic := c.topic(1)
			id = strings.ReplaceAll(id, "%", topic)
			stranger := c.holdOffsets(id, topic)
			s := c.start(topic)
			time.Sleep(5 * time.Second)
			s.lives()
			if n := len(c.commits(s.cfg)); n != 0 {
				t.Errorf("%s: %d partitions were taken up: its transaction was ended", id, n)
			}
			waits := s.voice.heard("waiting for the end of a transaction that holds offsets of the group")
			// kfake does not show that a transaction has offsets in it.
			if len(waits) != 1 || c.fake == nil && !strings.Contains(waits[0], id) {
				t.Errorf("%s: the log says %q", id, waits)
			}
			if _, err := c.endsTransaction(stranger, id); err != nil {
				t.Fatal(err)
			}
			c.await("the first commit", func() bool { s.lives(); return len(c.commits(s.cfg)) == 1 })
			s.stop()
			stranger.Close()
		}
	})
}

// endsTransaction has an id's transaction undone, as its owner does.
func (c *cluster) endsTransaction(cl *kgo.Client, transactionalID string) (kadm.DescribedTransactions, error) {
	if err := group.Fence(c.ctx, cl, transactionalID, time.Minute); err != nil {
		return nil, err
	}
	return c.adm.DescribeTransactions(c.ctx, transactionalID)
}

// An instance dies for good between the commit of its offsets and the end of the
// transaction. The survivor waits for the session timeout, and for nothing else.
func TestSurvivorEndsTransactionWithoutRecords(t *testing.T) {
	severalMembers(t)
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(2)
		env := []string{noDrain, "TIDEMARK_TRANSACTION_TIMEOUT=1m", "TIDEMARK_MAX_OUT_OF_ORDERNESS=10m"}
		a := c.start(topic, env...)
		c.await("a to have both", func() bool { return len(c.owned(a)) == 2 })
		b := c.start(topic, append(env, instance("b"))...)
		c.await("one each", func() bool { return len(c.owned(a)) == 1 && len(c.owned(b)) == 1 })
		time.Sleep(2 * time.Second)
		var died atomic.Bool
		c.fake.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
			c.fake.KeepControl()
			if req.(*kmsg.EndTxnRequest).TransactionalID != b.cfg.TransactionalID() || died.Swap(true) {
				return nil, nil, false
			}
			b.crash()
			resp := req.ResponseKind().(*kmsg.EndTxnResponse)
			resp.ErrorCode = kerr.ConcurrentTransactions.Code
			return resp, nil, true // and is not done
		})
		base := time.Now().UnixMilli()
		written := int64(0)
		write := func() {
			for n := range int32(2) {
				c.produce(c.cl, record(topic, n, base+written, ""))
			}
			written++
		}
		c.await("b to die", func() bool { write(); return died.Load() })
		took := since(func() {
			c.await("a to have both", func() bool { return len(c.owned(a)) == 2 })
			write()
			c.await("a to commit all", func() bool {
				a.lives()
				read := 0
				for _, snap := range c.commits(a.cfg) {
					if snap.Next == written {
						read++
					}
				}
				return read == 2
			})
		})
		if limit := a.cfg.SessionTimeout + 5*time.Second; took > limit {
			t.Errorf("the survivor went on after %v", took)
		}
		a.stop()
	})
}
