package proxy

import (
	"log/slog"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
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
		topics := map[string]Topic{topic: {Name: topic, Partitions: 1, Usable: 1, Ordered: out, Late: cfg.LateTopic(topic)}}
		s := newSession(cfg, c.connection, c.adm, topics, newProcess(slog.New(slog.DiscardHandler)))
		dead, err := s.deadTransactions(c.ctx, map[string][]int32{topic: {0}})
		if err != nil || !slices.Equal(dead, []string{ours}) {
			t.Errorf("to be ended: %q, %v; want %q alone", dead, err, ours)
		}
	})
}
