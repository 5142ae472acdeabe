package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/position"
)

var (
	newSuffixes = []string{"TIDEMARK_ORDERED_SUFFIX=.ordered-2", "TIDEMARK_LATE_SUFFIX=.late-2"}
	lacks       = "an output lacks the records that the group has put out"
)

// New names for the outputs and the old group: what came out before would be in none of
// them. That is refused before they are created, and both ways that the hint names give
// everything.
func TestKafkaNewOutputsOfOldGroup(t *testing.T) {
	besideOthers(t)
	for name, env := range map[string][]string{
		"all out":                        nil,
		"some held":                      {noDrain},
		"some held, other event times":   {noDrain},
		"everything late, none in order": {"TIDEMARK_EVENT_TIME=header:nobody-has-it:unix-ms,header:event-time:rfc3339"},
	} {
		t.Run(name, func(t *testing.T) {
			onKafka(t, func(t *testing.T, c *cluster) {
				cfg, w := c.ranOnce(env...)
				topic, env := cfg.Topics[0], append(newSuffixes, env...)
				if strings.Contains(name, "other event times") {
					env = append(env, "TIDEMARK_EVENT_TIME=timestamp")
				}
				for range 2 { // a supervisor starts it again
					c.refused(topic, "take a new TIDEMARK_GROUP", env...)
				}
				there := c.config(topic, newSuffixes...)
				if all, err := c.adm.ListTopics(c.ctx, there.OrderedTopic(topic), there.LateTopic(topic)); err == nil && (all.Has(there.OrderedTopic(topic)) || all.Has(there.LateTopic(topic))) {
					t.Error("outputs were created all the same")
				}
				s := c.start(topic, append(newSuffixes, "TIDEMARK_GROUP=another-"+topic)...)
				c.awaitDrained(s)
				s.stop()
				c.known(s.cfg)
				if r := c.verify(s.cfg); r.Read != int64(w.records) {
					t.Errorf("%d read by the new group, want %d", r.Read, w.records)
				}
			})
		})
	}
}

func TestKafkaNewOutputsLeadOut(t *testing.T) {
	besideOthers(t)
	for name, from := range map[string]position.From{"earliest": {Offset: -1}, "committed": fromCommitted} {
		t.Run(name, func(t *testing.T) {
			onKafka(t, func(t *testing.T, c *cluster) {
				cfg, w := c.ranOnce()
				topic := cfg.Topics[0]
				c.refused(topic, "`tidemark position new-epoch --all", newSuffixes...)
				c.await("the group to be empty", func() bool { return c.members(cfg) == 0 })
				there := c.config(topic, newSuffixes...)
				tool := c.positions(there)
				plan, err := tool.PlanNewEpoch(c.ctx, position.Which{All: true}, from)
				if err == nil {
					err = tool.Apply(c.ctx, plan)
				}
				if err != nil {
					t.Fatal(err)
				}
				s := c.start(topic, newSuffixes...)
				c.produce(c.cl, record(topic, 0, w.base.Add(time.Hour).UnixMilli(), "after"))
				c.awaitDrained(s)
				s.stop()
				c.known(s.cfg)
				want := 1
				if !from.Committed {
					want += w.records
				}
				if got := len(c.contents(there.OrderedTopic(topic))[0]) + len(c.contents(there.LateTopic(topic))[0]); got != want {
					t.Errorf("%d came out, want %d", got, want)
				}
			})
		})
	}
}

// A broker that does not know the outputs for a moment, as after it started or after another
// instance made them, is no reason to refuse.
func TestOutputsAreNotKnownYet(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		cfg, _ := c.ranOnce()
		topic := cfg.Topics[0]
		var unknown []*kfake.FaultHandle
		for _, out := range []string{cfg.OrderedTopic(topic), cfg.LateTopic(topic)} {
			unknown = append(unknown, c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: out, Err: kerr.UnknownTopicOrPartition, Count: -1}))
		}
		time.AfterFunc(time.Second, func() {
			for _, f := range unknown {
				f.Remove()
			}
		})
		s := c.start(topic)
		c.await("the partition taken up", func() bool { s.lives(); return len(c.owned(s)) == 1 })
		s.stop()
		if told := s.voice.heard(lacks); len(told) > 0 {
			t.Errorf("told: %v", told)
		}
	})
}

// Another instance puts out the first records and commits between two questions of one that
// starts: no output lacks anything.
func TestOutputsFillMeanwhile(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		cfg, _ := c.ranOnce()
		topic := cfg.Topics[0]
		before := map[string]bool{cfg.OrderedTopic(topic): true, cfg.LateTopic(topic): true} // then they were empty
		c.fake.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
			c.fake.KeepControl()
			asked, empty := req.(*kmsg.ListOffsetsRequest), false
			resp := asked.ResponseKind().(*kmsg.ListOffsetsResponse)
			for _, t := range asked.Topics {
				empty = empty || before[t.Topic]
				delete(before, t.Topic)
				answer := kmsg.NewListOffsetsResponseTopic()
				answer.Topic = t.Topic
				for _, p := range t.Partitions {
					end := kmsg.NewListOffsetsResponseTopicPartition()
					end.Partition, end.Offset = p.Partition, 0
					answer.Partitions = append(answer.Partitions, end)
				}
				resp.Topics = append(resp.Topics, answer)
			}
			return resp, nil, empty
		})
		s := c.start(topic)
		c.await("the partition taken up", func() bool { s.lives(); return len(c.owned(s)) == 1 })
		s.stop()
		if told := s.voice.heard(lacks); len(told) > 0 || len(before) > 0 {
			t.Errorf("told: %v; not asked for: %v", told, before)
		}
	})
}

// Outputs of other names that somebody has made, or only one other name: perhaps the old
// ones were deleted, and that is known. It is told, and goes on.
func TestNewOutputsAreWarnedOf(t *testing.T) {
	besideOthers(t)
	for name, env := range map[string][]string{
		"made by hand":    newSuffixes,
		"only the suffix": newSuffixes[:1],
	} {
		t.Run(name, func(t *testing.T) {
			onFake(t, func(t *testing.T, c *cluster) {
				cfg, _ := c.ranOnce()
				topic := cfg.Topics[0]
				there := c.config(topic, env...)
				if len(env) == 2 {
					for _, out := range []string{there.OrderedTopic(topic), there.LateTopic(topic)} {
						if _, err := c.adm.CreateTopic(c.ctx, 1, 1, nil, out); err != nil {
							t.Fatal(err)
						}
					}
				}
				s := c.start(topic, env...)
				c.await("the partition taken up", func() bool { s.lives(); return len(c.owned(s)) == 1 })
				s.stop()
				if told := s.voice.heard(lacks); len(told) != 1 || !strings.Contains(told[0], there.OrderedTopic(topic)) || !strings.Contains(told[0], "TIDEMARK_GROUP") {
					t.Errorf("told %d times: %v", len(told), told)
				}
			})
		})
	}
}

// Nothing has come out, whatever the outputs are called: there is nothing to tell. And
// outputs that retention has emptied lack nothing that was not to go.
func TestNewOutputsLackNothing(t *testing.T) {
	besideOthers(t)
	silent := func(c *cluster, topic string, env ...string) {
		c.t.Helper()
		s := c.start(topic, env...)
		c.await("the partition taken up", func() bool { s.lives(); return len(c.owned(s)) > 0 })
		s.stop()
		if told := s.voice.heard(lacks); len(told) > 0 {
			c.t.Errorf("told: %v", told)
		}
	}
	for name, fill := range map[string]func(c *cluster, topic string){
		"no record": func(*cluster, string) {},
		"all held": func(c *cluster, topic string) {
			base := time.Now().Add(-time.Hour).UnixMilli()
			c.produce(c.cl, record(topic, 0, base, "a"), record(topic, 0, base+1, "b"))
		},
		"all held behind an aborted transaction": func(c *cluster, topic string) {
			tx := c.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID("tx"))
			defer tx.Close()
			base := time.Now().Add(-time.Hour).UnixMilli()
			for i, end := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit} {
				if err := tx.BeginTransaction(); err != nil {
					c.t.Fatal(err)
				}
				c.produce(tx, record(topic, 0, base+int64(i), fmt.Sprint(i)))
				c.wrote(tx.EndTransaction(c.ctx, end))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			onFake(t, func(t *testing.T, c *cluster) {
				topic := c.topic(2)
				fill(c, topic)
				s := c.start(topic, noDrain)
				c.awaitRead(s)
				s.stop()
				silent(c, topic, append(newSuffixes, noDrain)...)
			})
		})
	}
	t.Run("retention", func(t *testing.T) {
		onFake(t, func(t *testing.T, c *cluster) {
			cfg, _ := c.ranOnce()
			if _, err := c.adm.DeleteRecords(c.ctx, deletedUpTo(cfg.OrderedTopic(cfg.Topics[0]), 1<<40, c)); err != nil {
				t.Fatal(err)
			}
			silent(c, cfg.Topics[0])
		})
	})
}

// known waits until the client has forgotten that the outputs were not there.
func (c *cluster) known(cfg config.Config) {
	c.t.Helper()
	topic := cfg.Topics[0]
	c.await("the outputs to be known", func() bool {
		ends, err := c.adm.ListEndOffsets(c.ctx, cfg.OrderedTopic(topic), cfg.LateTopic(topic))
		return err == nil && ends.Error() == nil
	})
}
