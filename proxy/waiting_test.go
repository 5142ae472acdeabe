package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/status"
)

// Whatever the process waits for, it stops in time, and without an error: every request
// that is never answered, answered with an error for ever, or sent into a network that is
// gone, from the first start on and in the midst of a transaction.
func TestStopWhateverIsWaitedFor(t *testing.T) {
	besideOthers(t)
	scene := func(name string, early bool, breaks func(c *cluster, s *sidecar)) {
		for _, delivery := range []string{"exactly-once", "at-least-once"} {
			when := map[bool]string{true: "at the start", false: "later"}[early]
			t.Run(fmt.Sprint(name, "/", when, "/", delivery), func(t *testing.T) {
				onFake(t, func(t *testing.T, c *cluster) {
					topic := c.topic(2)
					cfg := c.config(topic)
					if early {
						breaks(c, &sidecar{cfg: cfg, link: newLink(c.dial)})
					}
					s := c.startWhole(topic, "TIDEMARK_DELIVERY="+delivery)
					if !early {
						c.await("the first commit", func() bool { return len(c.commits(s.cfg)) == 2 })
						for i := range 50 {
							c.produce(c.cl, timed(topic, time.Now().Add(-time.Hour), i, nil))
						}
						time.Sleep(50 * time.Millisecond) // it is in the midst of it
						breaks(c, s)
					}
					time.Sleep(8 * time.Second)
					if !s.running() {
						t.Fatalf("it ended by itself with %v", s.err)
					}
					s.stopsInTime()
				})
			})
		}
	}
	keys := []kmsg.Key{
		kmsg.Metadata, kmsg.ListOffsets, kmsg.Fetch, kmsg.Produce, kmsg.FindCoordinator, kmsg.DescribeConfigs, kmsg.CreateTopics,
		kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Heartbeat, kmsg.LeaveGroup, kmsg.DescribeGroups, kmsg.OffsetFetch, kmsg.OffsetCommit,
		kmsg.InitProducerID, kmsg.AddPartitionsToTxn, kmsg.AddOffsetsToTxn, kmsg.TxnOffsetCommit, kmsg.EndTxn, kmsg.DescribeProducers, kmsg.ListTransactions,
	}
	for _, early := range []bool{true, false} {
		for _, key := range keys {
			scene("no answer to "+key.Name(), early, func(c *cluster, _ *sidecar) {
				c.fake.ControlKey(key.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) { c.fake.KeepControl(); return nil, nil, true })
			})
		}
		// As brokers that are suspended, or behind a firewall that drops packets.
		scene("no answer to anything", early, func(c *cluster, _ *sidecar) {
			c.fake.Control(func(kmsg.Request) (kmsg.Response, error, bool) { c.fake.KeepControl(); return nil, nil, true })
		})
		for key, errs := range map[kmsg.Key][]*kerr.Error{
			kmsg.InitProducerID:  {kerr.ConcurrentTransactions, kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress, kerr.NotCoordinator},
			kmsg.EndTxn:          {kerr.ConcurrentTransactions, kerr.CoordinatorNotAvailable, kerr.UnknownServerError},
			kmsg.TxnOffsetCommit: {kerr.ConcurrentTransactions, kerr.CoordinatorLoadInProgress, kerr.IllegalGeneration},
			kmsg.OffsetCommit:    {kerr.CoordinatorNotAvailable, kerr.IllegalGeneration, kerr.RebalanceInProgress},
			kmsg.OffsetFetch:     {kerr.UnstableOffsetCommit, kerr.CoordinatorNotAvailable, kerr.NotCoordinator},
			kmsg.JoinGroup:       {kerr.CoordinatorNotAvailable, kerr.RebalanceInProgress},
			kmsg.SyncGroup:       {kerr.CoordinatorNotAvailable},
			kmsg.FindCoordinator: {kerr.CoordinatorNotAvailable, kerr.UnknownServerError},
			kmsg.ListOffsets:     {kerr.NotLeaderForPartition},
			kmsg.Fetch:           {kerr.NotLeaderForPartition, kerr.UnknownServerError},
			kmsg.Produce:         {kerr.NotEnoughReplicas, kerr.NotLeaderForPartition, kerr.RequestTimedOut, kerr.ConcurrentTransactions},
		} {
			for _, e := range errs {
				scene(key.Name()+" "+e.Message, early, func(c *cluster, s *sidecar) {
					f := kfake.Fault{Keys: []kmsg.Key{key}, Err: e, Count: -1}
					switch key {
					case kmsg.OffsetFetch:
						f.Group = s.cfg.Group
					case kmsg.Produce:
						f.Topic = s.cfg.OrderedTopic(s.cfg.Topics[0])
					case kmsg.Fetch:
						f.Topic = s.cfg.Topics[0]
					}
					c.fake.Fault(f)
				})
			}
		}
	}
	scene("no network", false, func(_ *cluster, s *sidecar) { s.link.leave() })
}

// A coordinator that never gets on is told of at once and every half a minute, with the
// transactional id and the command that shows where it is, at the start and in a session;
// the status says it, and a stop ends it.
func TestHungCoordinatorIsTold(t *testing.T) {
	besideOthers(t)
	for _, e := range []*kerr.Error{kerr.ConcurrentTransactions, kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable, kerr.NotCoordinator} {
		for _, later := range []bool{false, true} {
			t.Run(fmt.Sprint(e.Message, map[bool]string{false: " at the start", true: " in a session"}[later]), func(t *testing.T) {
				onFake(t, func(t *testing.T, c *cluster) {
					topic := c.topic(1)
					cfg := c.config(topic)
					hang := func() *kfake.FaultHandle {
						return c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, TxnID: cfg.TransactionalID(), Err: e, Count: -1})
					}
					var hung *kfake.FaultHandle
					if !later {
						hung = hang()
					}
					s := c.startWhole(topic)
					if later {
						c.await("the first commit", func() bool { return len(c.commits(s.cfg)) > 0 })
						hung = hang()
						c.produce(c.cl, timed(topic, time.Now().Add(-time.Hour), 0, nil), timed(topic, time.Now().Add(-time.Hour), 9, nil))
					}
					time.Sleep(3 * time.Second)
					lines := s.voice.heard("waiting for the brokers")
					if len(lines) != 1 || !says(lines[0], "transactional_id="+cfg.TransactionalID(), "kafka-transactions", "--transactional-id") {
						t.Errorf("after three seconds it has said %q", lines)
					}
					if st := s.status(); st.State == status.Healthy || !says(st.Reason, "waiting for the brokers") {
						t.Errorf("the state is %s: %s", st.State, st.Reason)
					}
					time.Sleep(5 * time.Minute)
					if n := len(s.voice.heard("waiting for the brokers")); n < 9 || n > 12 { // the client gives up now and then, and the next session begins
						t.Errorf("in five minutes it said so %d times:\n%s", n, s.voice)
					}
					hung.Remove()
					if !later {
						c.await("the first commit", func() bool { return len(c.commits(s.cfg)) > 0 })
					}
					c.awaitRead(s)
					if st := s.status(); st.Waits != "" {
						t.Errorf("it waits no more, and says: %s", st.Waits)
					}
					hang()
					c.produce(c.cl, timed(topic, time.Now().Add(-time.Hour), 20, nil))
					time.Sleep(3 * time.Second)
					s.stopsInTime()
				})
			})
		}
	}
}

// A place in the group, or offsets, that do not come are told of as well.
func TestMissingPlaceIsTold(t *testing.T) {
	besideOthers(t)
	for _, key := range []kmsg.Key{kmsg.JoinGroup, kmsg.SyncGroup, kmsg.OffsetFetch} {
		t.Run(key.Name(), func(t *testing.T) {
			onFake(t, func(t *testing.T, c *cluster) {
				topic := c.topic(1)
				cfg := c.config(topic)
				f := kfake.Fault{Keys: []kmsg.Key{key}, Group: cfg.Group, Err: kerr.CoordinatorNotAvailable, Count: -1}
				refused := c.fake.Fault(f)
				s := c.startWhole(topic)
				time.Sleep(time.Minute)
				lines := s.voice.heard("waiting for the brokers")
				if n := len(lines); n < 2 || n > 3 || !says(lines[0], "group="+cfg.Group, "kafka-consumer-groups") {
					t.Errorf("in a minute it has said %q", lines)
				}
				if st := s.status(); st.Ready || !says(st.Reason, "waiting for the brokers") {
					t.Errorf("ready %v: %s", st.Ready, st.Reason)
				}
				refused.Remove()
				c.await("the first commit", func() bool { return len(c.commits(s.cfg)) > 0 })
				s.stopsInTime()
			})
		})
	}
}

func says(text string, parts ...string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}
