package proxy

import (
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/txn"
)

// expiring returns how long an idle transactional id lives here, and a function to be
// called when that has passed. On a real cluster time alone does it, and the test is
// skipped where that would take long.
func (c *cluster) expiring(t *testing.T, s *sidecar) (after time.Duration, pass func()) {
	if c.fake == nil {
		configs, err := c.adm.DescribeBrokerConfigs(c.ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range configs[0].Configs {
			if ms, _ := strconv.Atoi(kv.MaybeValue()); kv.Key == "transactional.id.expiration.ms" && ms <= 5000 {
				return 2*time.Duration(ms)*time.Millisecond + 2*time.Second, func() {}
			}
		}
		t.Skip("transactional ids live for long here")
	}
	var gone atomic.Bool
	id := s.cfg.TransactionalID()
	keys := []kmsg.Key{kmsg.AddPartitionsToTxn, kmsg.AddOffsetsToTxn, kmsg.TxnOffsetCommit, kmsg.EndTxn}
	unknown := func(kmsg.Request) bool { return gone.Load() }
	c.fake.Fault(
		kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, TxnID: id, Observe: true, Count: -1, When: func(kmsg.Request) bool { gone.Store(false); return true }},
		kfake.Fault{Keys: keys, TxnID: id, Err: kerr.InvalidProducerIDMapping, Count: -1, When: unknown},
		kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: s.cfg.OrderedTopic(s.cfg.Topics[0]), Err: kerr.InvalidProducerIDMapping, Count: -1, When: unknown},
	)
	return 10 * time.Second, func() { gone.Store(true) }
}

// A transactional id that had no transaction for long is forgotten by the brokers. It is
// taken again, at once and as often as it happens, and nobody is accused of having it.
func TestKafkaTransactionalIDExpires(t *testing.T) {
	besideOthers(t)
	for _, w := range []way{exactly, announced} {
		t.Run(w.name, func(t *testing.T) {
			onKafka(t, func(t *testing.T, c *cluster) {
				topic := c.topic(1)
				base, written := time.Now().Add(-time.Hour), 0
				s := w.start(c, topic)
				after, pass := c.expiring(t, s)
				for range 4 {
					for range 3 {
						c.produce(c.cl, timed(topic, base, written, nil))
						written++
					}
					if took := since(func() { c.awaitRead(s) }); written > 3 && took > 3*time.Second {
						t.Errorf("it took %v to go on", took)
					}
					time.Sleep(after)
					pass()
				}
				s.lives()
				s.stop()
				if n := s.proc.reporter.Snapshot(); n.Fencings > 0 {
					t.Errorf("%d fencings", n.Fencings)
				}
				if len(s.voice.heard(txn.Expired)) == 0 {
					t.Error("not told")
				}
				if r := c.verify(s.cfg); r.Read != int64(written) {
					t.Errorf("%d read", r.Read)
				}
			})
		})
	}
}
