package proxy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/group"
)

// normal is a consumer as others have them, in the group of a sidecar.
func (c *cluster) normal(cfg config.Config) *kgo.Client {
	return c.client(
		kgo.ClientID("normal"), kgo.ConsumerGroup(cfg.Group), kgo.ConsumeTopics(cfg.Topics...),
		kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(500*time.Millisecond),
	)
}

// A consumer that is pointed at the sidecar's group by mistake is refused, gets no
// partition, and moves no offset.
func TestKafkaConsumerIsKeptOut(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		w := workload{seed: 61, records: 400, partitions: 2, pause: 10 * time.Millisecond}
		topic := c.topic(2)
		s := c.start(topic)
		c.await("it to have both partitions", func() bool { return len(c.owned(s)) == 2 })
		written := c.writing(topic, &w)
		rebalances := s.proc.reporter.Rebalances.Load()
		other := c.normal(s.cfg)
		defer other.CloseAllowingRebalance()
		var refused error
		c.await("it to be refused", func() bool {
			polling, enough := context.WithTimeout(c.ctx, time.Second)
			defer enough()
			for _, f := range other.PollFetches(polling).Errors() {
				if errors.As(f.Err, new(*kgo.ErrGroupSession)) {
					refused = f.Err
				}
			}
			return refused != nil
		})
		if !errors.Is(refused, kerr.InconsistentGroupProtocol) {
			t.Errorf("it was refused with %v", refused)
		}
		<-written
		c.awaitDrained(s)
		if n := s.proc.reporter.Rebalances.Load(); n != rebalances || len(c.owned(s)) != 2 {
			t.Errorf("%d rebalances, %d partitions", n-rebalances, len(c.owned(s)))
		}
		s.stop()
		c.holds(s.cfg, &w)
	})
}

// While others are in the group the sidecar waits, says who they are, and is not ready;
// once they are gone it goes on.
func TestKafkaWaitsForConsumers(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(2)
		cfg := c.config(topic)
		other := c.normal(cfg)
		c.await("the consumer to be in", func() bool { return c.sharedBy(cfg) != "" })
		c.waitsForOthers(topic, other.CloseAllowingRebalance)
	})
}

// The same with consumers of the new protocol, which Kafka mixes with others as it likes.
func TestKafkaWaitsForConsumersOfTheNewProtocol(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(2)
		other := c.modern(c.config(topic))
		defer other.cl.Close()
		if err := other.joins(); errors.Is(err, kerr.UnsupportedVersion) {
			t.Skip("these brokers do not know the new protocol")
		} else if err != nil {
			t.Fatal(err)
		}
		c.waitsForOthers(topic, other.leaves)
	})
}

func (c *cluster) waitsForOthers(topic string, leave func()) {
	c.t.Helper()
	s := c.start(topic)
	c.await("it to tell", func() bool { return len(s.voice.heard("not Tidemark; waiting")) > 0 })
	time.Sleep(2 * time.Second)
	if lines := s.voice.heard("not Tidemark; waiting"); len(lines) != 1 || !says(lines[0], "normal", "group="+s.cfg.Group, "kafka-consumer-groups") {
		c.t.Errorf("it said %q", lines)
	}
	if st := s.status(); st.Ready || !strings.Contains(st.NotReady, "normal") {
		c.t.Errorf("ready %v: %s", st.Ready, st.NotReady)
	} else if hints := strings.Join(st.Hints, ""); !strings.HasPrefix(hints, "give Tidemark a group of its own (TIDEMARK_GROUP), or stop them") || st.NotReadyHint != hints {
		c.t.Errorf("what to do about %q is %q", st.Reasons, hints)
	}
	if !s.running() {
		c.t.Fatalf("it ended with %v", s.err)
	}
	leave()
	c.await("its partitions", func() bool { return len(c.owned(s)) == 2 })
	s.stop()
}

// One of the new protocol is refused by a group of sidecars. Without the mark in the
// assignments Kafka would make the group one of the new protocol.
func TestKafkaConsumerOfTheNewProtocolIsKeptOut(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(2)
		s := c.start(topic)
		c.await("it to have both partitions", func() bool { return len(c.owned(s)) == 2 })
		other := c.modern(s.cfg)
		defer other.cl.Close()
		if err := other.joins(); err == nil {
			t.Error("it was let in")
		}
		time.Sleep(time.Second)
		if shared := c.sharedBy(s.cfg); shared != group.Protocol || len(c.owned(s)) != 2 {
			t.Errorf("the group is shared by %q, the sidecar has %d partitions", shared, len(c.owned(s)))
		}
		s.stop()
	})
}

// sharedBy returns the protocol by which a classic group shares partitions.
func (c *cluster) sharedBy(cfg config.Config) string {
	c.t.Helper()
	groups, err := c.adm.DescribeGroups(c.ctx, cfg.Group)
	if err != nil {
		c.t.Fatal(err)
	}
	return groups[cfg.Group].Protocol
}

// modern is a consumer with group.protocol=consumer (KIP-848), as far as it takes.
type modern struct {
	c   *cluster
	cl  *kgo.Client
	cfg config.Config
}

func (c *cluster) modern(cfg config.Config) *modern {
	return &modern{c, c.client(kgo.ClientID("normal")), cfg}
}

func (m *modern) beat(epoch int32) error {
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.Group, req.MemberID, req.MemberEpoch = m.cfg.Group, "0CRn0tQdSfCjTCsh2BYsNw", epoch
	req.RebalanceTimeoutMillis = 60_000
	req.SubscribedTopicNames = m.cfg.Topics
	req.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	resp, err := req.RequestWith(m.c.ctx, m.cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	return err
}

// joins makes it a member, for as long as brokers wait for its next heartbeat.
func (m *modern) joins() error { return m.beat(0) }

func (m *modern) leaves() {
	m.c.t.Helper()
	if err := m.beat(-1); err != nil {
		m.c.t.Error(err)
	}
}

// Partitions are shared as the cooperative-sticky balancer does it, whatever version the
// members are of, and each assignment bears the mark.
func TestSharingIsCooperativeAndMarked(t *testing.T) {
	o, before := group.NewBalancer(), kgo.CooperativeStickyBalancer()
	if !o.IsCooperative() {
		t.Error("all would give up everything at each rebalance")
	}
	id := func(b kgo.GroupBalancer, name string, has map[string][]int32) kmsg.JoinGroupResponseMember {
		m := kmsg.NewJoinGroupResponseMember()
		m.MemberID, m.InstanceID = name, &name
		m.ProtocolMetadata = b.JoinGroupMetadata([]string{"raw"}, has, 3)
		return m
	}
	balancer, topics, err := o.MemberBalancer([]kmsg.JoinGroupResponseMember{
		id(o, "a", map[string][]int32{"raw": {0, 1, 2}}), id(before, "b", map[string][]int32{"raw": {3}}), id(o, "c", nil),
	})
	if _, ours := topics["raw"]; err != nil || !ours {
		t.Fatal(topics, err)
	}
	plan, err := balancer.(kgo.GroupMemberBalancerOrError).BalanceOrError(map[string]int32{"raw": 4})
	if err != nil {
		t.Fatal(err)
	}
	has := map[string][]int32{}
	for _, a := range plan.IntoSyncAssignment() {
		var read kmsg.ConsumerMemberAssignment
		if err := read.ReadFrom(a.MemberAssignment); err != nil || string(read.UserData) != group.Protocol {
			t.Errorf("%s: user data %q, %v", a.MemberID, read.UserData, err)
		}
		mine, err := o.ParseSyncAssignment(a.MemberAssignment)
		if err != nil {
			t.Fatal(err)
		}
		has[a.MemberID] = mine["raw"]
	}
	// What a gives up nobody has before the next generation.
	if len(has["a"]) != 2 || !slices.Equal(has["b"], []int32{3}) || len(has["c"]) != 0 {
		t.Errorf("they share %v", has)
	}
	if _, _, err := o.MemberBalancer([]kmsg.JoinGroupResponseMember{{MemberID: "d", ProtocolMetadata: []byte{9}}}); err == nil {
		t.Error("nonsense is taken for a member's metadata")
	}
}
