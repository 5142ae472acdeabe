package proxy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/txn"
)

func instance(name string) string { return "TIDEMARK_INSTANCE=" + name }

// A second instance joins under load, takes its share, and leaves again.
func TestKafkaJoinAndLeave(t *testing.T) {
	severalMembers(t)
	for _, delivery := range []string{"exactly-once", "at-least-once"} {
		t.Run(delivery, func(t *testing.T) {
			onKafka(t, func(t *testing.T, c *cluster) {
				w := workload{seed: 30, records: 3000, partitions: 4, pause: 60 * time.Millisecond}
				topic := c.topic(w.partitions)
				env := []string{noDrain, "TIDEMARK_DELIVERY=" + delivery}
				a := c.start(topic, env...)
				written := c.writing(topic, &w)
				c.await("a to have all", func() bool { return len(c.owned(a)) == 4 })
				b := c.start(topic, append(env, instance("b"))...)
				c.await("each to have half", func() bool { return len(c.owned(a)) == 2 && len(c.owned(b)) == 2 })
				b.stop()
				c.await("a to have all again", func() bool { return len(c.owned(a)) == 4 })
				<-written
				c.awaitRead(a)
				a.stop()
				c.holds(a.cfg, &w)
				if delivery == "exactly-once" {
					c.sameBeside(a, noDrain)
				}
			})
		})
	}
}

// A commit takes so long that a rebalance has to be let through meanwhile, and then it
// goes through. It counts as what it is, though half of the partitions have moved.
func TestCommitGoesThroughBesideRebalance(t *testing.T) {
	severalMembers(t)
	onFake(t, func(t *testing.T, c *cluster) {
		w := workload{seed: 31, records: 4000, partitions: 4, pause: 60 * time.Millisecond}
		topic := c.topic(w.partitions)
		a := c.start(topic, noDrain)
		// So that its heartbeats do not wait behind the end of its transaction.
		for c.fake.CoordinatorFor(a.cfg.Group) == c.fake.CoordinatorFor(a.cfg.TransactionalID()) {
			c.fake.RehashCoordinators()
		}
		written := c.writing(topic, &w)
		c.await("a to have all", func() bool { return len(c.owned(a)) == 4 && sum(a.status()).Ordered > 0 })
		slow, aborts := false, int64(0)
		c.fake.ControlKey(kmsg.EndTxn.Int16(), func(r kmsg.Request) (kmsg.Response, error, bool) {
			c.fake.KeepControl()
			end := r.(*kmsg.EndTxnRequest)
			switch {
			case end.TransactionalID != a.cfg.TransactionalID():
			case !end.Commit:
				aborts++
			case !slow:
				slow = true
				c.fake.SleepControl(func() { time.Sleep(2 * txn.EndPatience) })
			}
			return nil, nil, false
		})
		b := c.start(topic, noDrain, instance("b"))
		c.await("each to have half", func() bool { return len(c.owned(a)) == 2 && len(c.owned(b)) == 2 })
		<-written
		c.awaitRead(a)
		c.awaitRead(b)
		if n := a.status().Counts.Aborts; n != aborts {
			t.Errorf("%d aborts are counted, and there were %d", n, aborts)
		}
		a.stop()
		b.stop()
		c.holds(a.cfg, &w)
	})
}

// owned returns the partitions that the group has assigned to an instance.
func (c *cluster) owned(s *sidecar) []int32 { return c.ownedBy(s.cfg.Group, s.cfg.Instance) }

func (c *cluster) ownedBy(group, instance string) []int32 {
	groups, err := c.adm.DescribeGroups(c.ctx, group)
	if err != nil || groups.Error() != nil || groups[group].State != "Stable" {
		return nil
	}
	for _, m := range groups[group].Members {
		if m.InstanceID == nil || *m.InstanceID != instance {
			continue
		}
		if assigned, ok := m.Assigned.AsConsumer(); ok && len(assigned.Topics) > 0 {
			return assigned.Topics[0].Partitions
		}
	}
	return nil
}

// An instance crashes and never comes back. It costs its partitions the
// session timeout and no more: the survivor ends its open transaction, which
// would otherwise hold back all readers for a minute.
func TestKafkaSurvivorTakesOver(t *testing.T) {
	severalMembers(t)
	onKafka(t, func(t *testing.T, c *cluster) {
		w := workload{seed: 31, records: 8_000, partitions: 4, pause: 90 * time.Millisecond}
		topic := c.topic(w.partitions)
		env := []string{noDrain, "TIDEMARK_TRANSACTION_TIMEOUT=1m", "TIDEMARK_COMMIT_INTERVAL=500ms"}
		a := c.start(topic, env...)
		written := c.writing(topic, &w)
		c.await("a to have all", func() bool { return len(c.owned(a)) == 4 })
		b := c.start(topic, append(env, instance("b"))...)
		c.await("each to have half", func() bool { return len(c.owned(a)) == 2 && len(c.owned(b)) == 2 })
		reader := c.lookOn(topic+".ordered", c.owned(b)...)
		time.Sleep(2 * time.Second)
		c.await("b to have a transaction open", func() bool { return c.transactingOn(b, c.owned(b)...) })
		b.crash()
		c.await("a to have all again", func() bool { return len(c.owned(a)) == 4 })
		<-written
		c.awaitRead(a)
		longest := reader.leave()
		t.Logf("readers stood still for %v", longest)
		if longest < 3*time.Second || longest > 9*time.Second {
			t.Errorf("readers stood still for %v; the session timeout is 6s", longest)
		}
		a.stop()
		c.holds(a.cfg, &w)
		c.sameBeside(a, noDrain)
	})
}

// Three instances are restarted one after the other, under load.
func TestKafkaRollingRestart(t *testing.T) {
	severalMembers(t)
	onKafka(t, func(t *testing.T, c *cluster) {
		w := workload{seed: 32, records: 4000, partitions: 6, pause: 90 * time.Millisecond}
		topic := c.topic(w.partitions)
		written := c.writing(topic, &w)
		ss := []*sidecar{}
		for i := range 3 {
			ss = append(ss, c.start(topic, noDrain, instance(fmt.Sprint(i))))
		}
		for i := range ss {
			time.Sleep(700 * time.Millisecond)
			ss[i].stop()
			ss[i] = c.start(topic, noDrain, instance(fmt.Sprint(i)))
		}
		<-written
		c.awaitRead(ss[0])
		for _, s := range ss {
			s.stop()
		}
		c.holds(ss[0].cfg, &w)
		c.sameBeside(ss[0], noDrain)
	})
}

// Instances come, stop and crash as they like, and links break in the midst of
// it. The bytes are those of one that ran alone.
func TestKafkaChurn(t *testing.T) {
	severalMembers(t)
	for seed := range seeds(5, 1) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			onKafka(t, func(t *testing.T, c *cluster) {
				w := workload{seed: seed, records: 2000, partitions: 5, transactions: true, pause: 100 * time.Millisecond}
				topic := c.topic(w.partitions)
				s := c.churn(topic, seed, c.writing(topic, &w), noDrain, "TIDEMARK_COMMIT_INTERVAL=50ms")
				c.awaitRead(s)
				s.stop()
				c.holds(s.cfg, &w)
				c.sameBeside(s, noDrain)
			})
		})
	}
}

// churn starts, stops and crashes three instances until the source has been
// written, and leaves one.
func (c *cluster) churn(topic string, seed uint64, written <-chan struct{}, env ...string) *sidecar {
	c.t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 4))
	running := map[int]*sidecar{}
	for {
		i := rnd.IntN(3)
		switch s := running[i]; {
		case s == nil:
			running[i] = c.start(topic, append(env, instance(fmt.Sprint(i)))...)
			if rnd.IntN(2) == 0 {
				running[i].link.breakAt(50+rnd.IntN(500), rnd.IntN(2) == 0)
			}
		case s.link.isBroken() || rnd.IntN(2) == 0:
			s.crash()
			delete(running, i)
		default:
			s.stop()
			delete(running, i)
		}
		select {
		case <-written:
			for _, s := range running {
				s.crash()
			}
			s := c.start(topic, append(env, instance("0"))...)
			c.expire(s.cfg, "1", "2")
			return s
		case <-time.After(time.Duration(rnd.IntN(800)) * time.Millisecond):
		}
	}
}

// expire has dead members thrown out when their session has timed out. kfake
// keeps for ever one that crashed while it joined; Kafka does not.
func (c *cluster) expire(cfg config.Config, instances ...string) {
	if c.fake == nil {
		return
	}
	time.Sleep(cfg.SessionTimeout + time.Second)
	for _, dead := range instances {
		_, _ = c.adm.LeaveGroup(c.ctx, kadm.LeaveGroup(cfg.Group).InstanceIDs(dead))
	}
}

// transactingOn reports whether a transaction is open on one of the partitions
// of the ordered topic.
func (c *cluster) transactingOn(s *sidecar, partitions ...int32) bool {
	open, _ := c.unsettled(s.cfg.OrderedTopic(s.cfg.Topics[0]))
	return slices.ContainsFunc(open, func(n int32) bool { return slices.Contains(partitions, n) })
}
