package proxy

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/tidemarkhq/tidemark/emit/verify"
	"github.com/tidemarkhq/tidemark/proxy/config"
)

const newEpoch = "TIDEMARK_ON_RESET=new-epoch"

// ranOnce is a group that has read and put out a small workload. With noDrain
// some of it is still buffered.
func (c *cluster) ranOnce(env ...string) (cfg config.Config, w *workload) {
	c.t.Helper()
	w = &workload{seed: 40, records: 2000, plain: true}
	topic := c.topic(1)
	c.write(topic, w)
	s := c.start(topic, env...)
	c.awaitRead(s)
	if s.cfg.IdleTimeout > 0 {
		c.awaitDrained(s)
	}
	s.stop()
	return s.cfg, w
}

// refused starts a sidecar and expects it to end with exit code 2 and a hint
// that has a word in it.
func (c *cluster) refused(topic, word string, env ...string) {
	c.t.Helper()
	s := c.start(topic, env...)
	fault := s.fails()
	if n := len(c.instances(s.cfg.Group, s.cfg.Instance)); n > 0 {
		c.t.Error("it is still a member of the group")
	}
	if fault.Code != 2 || !strings.Contains(fault.Advice, word) {
		c.t.Errorf("exit code %d: %v\nhint: %s\nwant 2, and a hint with %q", fault.Code, fault, fault.Advice, word)
	}
}

// The group has no commit any more, but the outputs hold records: refused,
// unless a new epoch may begin. Its number is one above the highest.
func TestKafkaCommitsDeleted(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		cfg, w := c.ranOnce()
		topic := cfg.Topics[0]
		for epoch := 1; epoch <= 2; epoch++ {
			if _, err := c.adm.DeleteGroup(c.ctx, cfg.Group); err != nil {
				t.Fatal(err)
			}
			c.refused(topic, newEpoch)
			s := c.start(topic, newEpoch)
			c.awaitDrained(s)
			s.stop()
			out := c.contents(cfg.OrderedTopic(topic))[0]
			if got, want := header(out[len(out)-1], "tidemark-epoch"), string(rune('0'+epoch)); got != want {
				t.Errorf("epoch %s, want %s", got, want)
			}
			if r := c.verify(cfg); r.Unjudged[verify.GapOtherTimes] != int64(epoch*w.records) {
				t.Errorf("%v not judged, want %d", r.Unjudged, epoch*w.records)
			}
			if r := c.verifyFrom(cfg, everyEpoch); r.Replayed != int64(epoch*w.records) || len(r.Unjudged) > 0 {
				t.Errorf("%d replayed, want %d; not judged: %v", r.Replayed, epoch*w.records, r.Unjudged)
			}
		}
	})
}

// An offset set by hand has no metadata: the same.
func TestKafkaOffsetSetByHand(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		cfg, _ := c.ranOnce()
		topic := cfg.Topics[0]
		c.commit(cfg, 1000, "")
		c.refused(topic, newEpoch)
		s := c.start(topic, newEpoch)
		c.awaitDrained(s)
		s.stop()
		if snaps := c.commits(cfg); snaps[0].Origin != 1000 || snaps[0].Epoch != 1 {
			t.Errorf("begun at %d in epoch %d", snaps[0].Origin, snaps[0].Epoch)
		}
		c.verifyFrom(cfg, everyEpoch)
	})
}

// Metadata that was written for another place, damaged, or by a later version
// is refused whatever TIDEMARK_ON_RESET says.
func TestKafkaForeignMetadata(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		cfg, _ := c.ranOnce(noDrain)
		topic := cfg.Topics[0]
		at, text := c.committed(cfg)
		for _, bad := range []struct {
			what, text, hint string
			at               int64
		}{
			{"of another program", "hello", "TIDEMARK_GROUP", at},
			{"shifted by one", text, "TIDEMARK_GROUP", at + 1},
			{"damaged", strings.Replace(text, ";o=0", ";o=1", 1), "TIDEMARK_GROUP", at},
			{"newer", "v3" + strings.TrimPrefix(text, "v1"), "version", at},
		} {
			c.commit(cfg, bad.at, bad.text)
			c.refused(topic, bad.hint, newEpoch)
		}
		c.commit(cfg, at, text)
		s := c.start(topic)
		c.awaitDrained(s)
		s.stop()
		c.verify(cfg)
	})
}

// Event times made in another way would judge what is buffered anew: refused.
// When nothing is buffered it may change, and the bound may at any time.
func TestKafkaSettingsChange(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		cfg, w := c.ranOnce(noDrain)
		topic := cfg.Topics[0]
		other := "TIDEMARK_EVENT_TIME=header:event-time:unix-ms,header:other,timestamp"
		c.refused(topic, "TIDEMARK_EVENT_TIME", other)
		s := c.start(topic, "TIDEMARK_MAX_OUT_OF_ORDERNESS=20ms")
		c.awaitDrained(s)
		s.stop()
		c.holds(s.cfg, w)
		s = c.start(topic, other)
		c.produce(c.cl, record(topic, 0, w.base.Add(time.Minute).UnixMilli(), "after"))
		c.awaitDrained(s)
		s.stop()
		if r := c.verify(s.cfg); r.Read != int64(w.records)+1 {
			t.Errorf("%d read", r.Read)
		}
	})
}

// commit commits an offset from outside the group, once nobody is in it;
// committed reads it.
func (c *cluster) commit(cfg config.Config, at int64, metadata string) {
	c.t.Helper()
	c.await("the group to be empty", func() bool { return c.members(cfg) == 0 })
	os := kadm.Offsets{}
	os.Add(kadm.Offset{Topic: cfg.Topics[0], At: at, LeaderEpoch: -1, Metadata: metadata})
	if err := c.adm.CommitAllOffsets(c.ctx, cfg.Group, os); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) committed(cfg config.Config) (at int64, metadata string) {
	c.t.Helper()
	return c.committedAt(cfg, 0)
}

func (c *cluster) committedAt(cfg config.Config, partition int32) (at int64, metadata string) {
	c.t.Helper()
	all, err := c.adm.FetchOffsets(c.ctx, cfg.Group)
	if err != nil {
		c.t.Fatal(err)
	}
	o, _ := all.Lookup(cfg.Topics[0], partition)
	return o.At, o.Metadata
}
