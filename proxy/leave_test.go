package proxy

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/group"
)

// However a process ends, its partitions are free at once. As a static member it would
// keep them until its session timeout, and for ever if its supervisor starts it again
// and again.
func TestEveryExitLeaves(t *testing.T) {
	besideOthers(t)
	undone := func(c *cluster, times int) *kfake.FaultHandle {
		return c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.ProducerFenced, Count: times})
	}
	denied := func(c *cluster, key kmsg.Key, topic string) *kfake.FaultHandle {
		return c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Topic: topic, Err: kerr.TopicAuthorizationFailed, Count: -1})
	}
	for name, ends := range map[string]struct {
		code int // 0: it is stopped
		how  func(c *cluster, s *sidecar, topic string)
	}{
		"stopped": {0, func(*cluster, *sidecar, string) {}},
		"output refused": {2, func(c *cluster, s *sidecar, topic string) {
			denied(c, kmsg.Produce, s.cfg.OrderedTopic(topic))
		}},
		"source refused":     {2, func(c *cluster, _ *sidecar, topic string) { denied(c, kmsg.Fetch, topic) }},
		"fenced three times": {1, func(c *cluster, _ *sidecar, _ string) { undone(c, -1) }},
		"refused by the preflight of a later session": {2, func(c *cluster, s *sidecar, topic string) {
			s.link.drop()
			denied(c, kmsg.Metadata, topic)
			undone(c, 1)
		}},
		"stopped in the preflight of a later session": {0, func(c *cluster, s *sidecar, topic string) {
			undone(c, 1)
			c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Err: kerr.UnknownServerError, Count: -1})
			c.await("the preflight to wait", func() bool { return len(s.voice.heard("not ready; retrying")) > 0 })
		}},
		"stopped between two sessions": {0, func(c *cluster, s *sidecar, _ string) {
			undone(c, 1)
			c.await("the session to end", func() bool { return len(s.voice.heard("starting over")) > 0 })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			onFake(t, func(t *testing.T, c *cluster) {
				topic := c.topic(1)
				s := c.startWhole(topic, noDrain, "TIDEMARK_SESSION_TIMEOUT=30s")
				c.await("the first commit", func() bool { return len(c.commits(s.cfg)) > 0 })
				flow, stop := context.WithCancel(c.ctx)
				defer stop()
				go func() {
					for i := 0; flow.Err() == nil; i++ {
						_ = c.cl.ProduceSync(flow, timed(topic, time.Now().Add(-time.Hour), i, nil))
						time.Sleep(20 * time.Millisecond)
					}
				}()
				ends.how(c, s, topic)
				if ends.code == 0 {
					s.stopsInTime()
				} else if fault := s.fails(); fault.Code != ends.code {
					t.Errorf("exit code %d, not %d: %v", fault.Code, ends.code, fault)
				}
				if n := len(c.instances(s.cfg.Group, s.cfg.Instance)); n > 0 {
					t.Errorf("it is still a member. It said:\n%s", s.voice)
				}
			})
		})
	}
}

// instances returns the member ids of an instance.
func (c *cluster) instances(group, instance string) (ids []string) {
	c.t.Helper()
	groups, err := c.adm.DescribeGroups(c.ctx, group)
	if err == nil {
		err = groups.Error()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	for _, m := range groups[group].Members {
		if m.InstanceID != nil && *m.InstanceID == instance {
			ids = append(ids, m.MemberID)
		}
	}
	return ids
}

// A member of which the brokers have not answered yet that it is one leaves as well:
// until all others have joined again they hold that answer back.
func TestStoppedWhileJoining(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		c.produce(c.cl, timed(topic, time.Now(), 0, nil))
		cfg := c.config(topic)
		busy := c.client(
			kgo.ConsumerGroup(cfg.Group), kgo.ConsumeTopics(topic), kgo.Balancers(group.NewBalancer()),
			kgo.BlockRebalanceOnPoll(), kgo.RebalanceTimeout(time.Minute), kgo.DisableAutoCommit(),
		)
		defer busy.CloseAllowingRebalance()
		busy.PollFetches(c.ctx) // and works on it until the end of the test
		s := c.startWhole(topic)
		c.await("it to ask for its place", func() bool { return len(c.instances(s.cfg.Group, s.cfg.Instance)) > 0 })
		time.Sleep(3 * time.Second)
		s.stopsInTime()
		if n := len(c.instances(s.cfg.Group, s.cfg.Instance)); n > 0 {
			t.Errorf("it is still a member. It said:\n%s", s.voice)
		}
	})
}

// A session that is about to begin anew stays a member: the others do not get its
// partitions for a moment, only to give them back.
func TestNextSessionIsTheSameMember(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		s := c.start(topic, noDrain)
		c.await("the first commit", func() bool { return len(c.commits(s.cfg)) > 0 })
		left := 0
		c.fake.ControlKey(kmsg.LeaveGroup.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
			c.fake.KeepControl()
			left++
			return nil, nil, false
		})
		c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.ProducerFenced, Count: 1})
		c.produce(c.cl, timed(topic, time.Now().Add(-time.Hour), 0, nil), timed(topic, time.Now().Add(-time.Hour), 9, nil))
		c.awaitRead(s)
		if n := s.proc.reporter.Sessions.Load(); n != 2 || left > 0 {
			t.Errorf("%d sessions, left %d times", n, left)
		}
		s.stop()
		if left != 1 {
			t.Errorf("left %d times, once stopped", left)
		}
	})
}

// Whoever leaves after another process has taken the place of its instance does not
// throw that one out.
func TestKafkaLeavingSparesTheDouble(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		if c.fake != nil {
			t.Skip("kfake does not look at the member id of a static member that leaves")
		}
		topic := c.topic(1)
		older := c.start(topic)
		c.await("the first commit", func() bool { return len(c.commits(older.cfg)) > 0 })
		was := c.instances(older.cfg.Group, older.cfg.Instance)
		younger := c.start(topic)
		older.fails()
		c.awaitRead(younger)
		now := c.instances(older.cfg.Group, older.cfg.Instance)
		if len(was) != 1 || len(now) != 1 || was[0] == now[0] {
			t.Fatalf("members %v and then %v", was, now)
		}
		m := group.Membership{ID: was[0]}
		m.Leave(c.cl, func() {}, older.proc.reporter, older.cfg.Group, older.cfg.Instance)
		if still := c.instances(older.cfg.Group, older.cfg.Instance); len(still) != 1 || still[0] != now[0] {
			t.Errorf("the younger one was %v and is %v", now, still)
		}
		younger.stop()
	})
}
