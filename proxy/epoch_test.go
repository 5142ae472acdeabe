package proxy

import (
	"fmt"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/reorder"
)

// loseOffsets has the group lose all that it has committed.
func (c *cluster) loseOffsets(cfg config.Config) {
	c.t.Helper()
	c.await("the group to be empty", func() bool { return c.members(cfg) == 0 })
	if _, err := c.adm.DeleteGroup(c.ctx, cfg.Group); err != nil {
		c.t.Fatal(err)
	}
}

// epochs returns those of the records in an output, in which each counts once.
func (c *cluster) epochs(topic string) (all []string) {
	c.t.Helper()
	for _, r := range c.contents(topic)[0] {
		if e := header(r, "tidemark-epoch"); len(all) == 0 || all[len(all)-1] != e {
			all = append(all, e)
		}
	}
	return all
}

// TestKafkaEpochBehindBareRecords: a record for which there is room with none of our
// headers does not say its epoch. The ones before it do, on either output.
func TestKafkaEpochBehindBareRecords(t *testing.T) {
	for _, late := range []bool{false, true} {
		onKafka(t, func(t *testing.T, c *cluster) {
			topic := c.topic(1, "max.message.bytes=20000000")
			base := time.Now().Add(-time.Hour)
			bare := func(second int) *kgo.Record {
				r := timed(topic, base, second, noise(20_000))
				if late {
					r.Headers[0].Value = []byte("no time")
				}
				return r
			}
			limit := fmt.Sprintf("max.message.bytes=%d", max(size(bare(9)), size(bare(999)))+10)
			for _, out := range []string{topic + ".ordered", topic + ".late"} {
				c.create(out, 1, limit)
			}
			for epoch := range 4 {
				s := c.start(topic, newEpoch, "TIDEMARK_START=latest")
				c.await("the partition", func() bool { s.lives(); return len(c.commits(s.cfg)) == 1 })
				small := timed(topic, base, 1000*epoch, []byte("small"))
				if late {
					small.Headers[0].Value = []byte("no time")
				}
				c.produce(c.cl, small)
				for i := range 20 {
					c.produce(c.cl, bare(1000*epoch+1+i))
				}
				c.awaitDrained(s)
				s.stop()
				c.loseOffsets(s.cfg)
			}
			out := topic + ".ordered"
			if late {
				out = topic + ".late"
			}
			if got, want := fmt.Sprint(c.epochs(out)), "[- 1 - 2 - 3 -]"; got != want {
				t.Errorf("%s: epochs %s, want %s (- is bare, or 0)", out, got, want)
			}
		})
	}
}

// TestKafkaEpochWhenNothingIsLeft: neither commit nor records say which epoch was the
// last. The new one is above all that consumers may have seen, and counted on from then.
func TestKafkaEpochWhenNothingIsLeft(t *testing.T) {
	for _, gone := range []string{".ordered", ".late"} {
		onKafka(t, func(t *testing.T, c *cluster) {
			topic := c.topic(1)
			base := time.Now().Add(-time.Hour)
			var last []uint64
			for epoch := range 6 {
				if epoch == 3 {
					ends, err := c.adm.ListEndOffsets(c.ctx, topic+gone)
					if err != nil {
						t.Fatal(err)
					}
					end, _ := ends.Lookup(topic+gone, 0)
					c.deleteBelow(topic+gone, end.Offset)
				}
				s := c.start(topic, newEpoch, "TIDEMARK_START=latest")
				c.await("the partition", func() bool { s.lives(); return len(c.commits(s.cfg)) == 1 })
				none := timed(topic, base, 10*epoch+1, nil)
				none.Headers[0].Value = []byte("no time")
				c.produce(c.cl, timed(topic, base, 10*epoch, nil), none)
				c.awaitDrained(s)
				s.stop()
				out := c.contents(topic + ".ordered")[0]
				n, _ := strconv.ParseUint(header(out[len(out)-1], "tidemark-epoch"), 10, 32)
				last = append(last, n)
				c.loseOffsets(s.cfg)
			}
			now := uint64(time.Now().Unix())
			if fmt.Sprint(last[:3]) != "[0 1 2]" || last[3] < now-600 || last[3] > now || last[4] != last[3]+1 || last[5] != last[4]+1 {
				t.Errorf("%s emptied after the third of: %d; now it is %d", gone, last, now)
			}
		})
	}
}

// TestEpochAfterRecreation: the commit for a topic that was created again says which
// epoch was the last, whatever the outputs have kept of it.
func TestEpochAfterRecreation(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		cfg, _ := c.ranOnce()
		topic := cfg.Topics[0]
		snap, at := c.commits(cfg)[0], c.scope(cfg, 0)
		snap.Epoch = 5
		at.TopicID[0]++
		c.commit(cfg, snap.Low, snap.Encode(at))
		s := c.start(topic, newEpoch)
		c.await("a commit for the topic", func() bool {
			s.lives()
			_, text := c.committed(cfg)
			return reorder.TopicID(text) == c.scope(cfg, 0).TopicID
		})
		s.stop()
		if got := c.commits(cfg)[0].Epoch; got != 6 {
			t.Errorf("epoch %d begins after 5", got)
		}
	})
}

// An output may end in offsets without records; the last epoch is found all the same, and
// nobody waits for records there.
func TestLastEpochBeforeHole(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		s := c.openedSession(newProcess(slog.New(slog.DiscardHandler)), topic)
		defer s.cl.CloseAllowingRebalance()
		defer s.member.Cancel()
		for name, batches := range holes(1, 2) {
			c.forge(topic+".ordered").set(5, batches...)
			took := since(func() {
				if epoch, silent, err := s.loader.LastEpoch(c.ctx, topic+".ordered", 0); epoch != 0 || silent || err != nil {
					t.Errorf("%s: epoch %d, silent %v, %v", name, epoch, silent, err)
				}
			})
			if took > time.Second {
				t.Errorf("%s: it took %v", name, took)
			}
		}
	})
}
