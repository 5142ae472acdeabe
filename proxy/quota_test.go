package proxy

import (
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/status"
)

// quota bounds what clients of a name read and write, in bytes a second; 0: no bound.
func (c *cluster) quota(client string, read, written float64) {
	c.t.Helper()
	entity := kadm.ClientQuotaEntity{{Type: "client-id", Name: &client}}
	var ops []kadm.AlterClientQuotaOp
	for key, rate := range map[string]float64{"consumer_byte_rate": read, "producer_byte_rate": written} {
		ops = append(ops, kadm.AlterClientQuotaOp{Key: key, Value: rate, Remove: rate == 0})
	}
	altered, err := c.adm.AlterClientQuotas(c.ctx, []kadm.AlterClientQuotaEntry{{Entity: entity, Ops: ops}})
	if err != nil || altered[0].Err != nil {
		c.t.Fatal(err, altered)
	}
}

// TestKafkaByteQuotas: under quotas by which what is read and put out at a time would take
// longer than timeouts allow, all comes out in about the time that the quotas ask for,
// whichever of the two directions has one. It is told of, and shown.
func TestKafkaByteQuotas(t *testing.T) {
	besideOthers(t)
	if os.Getenv(brokersVar) == "" {
		t.Skip("an in-process broker has no quotas; see TestQuotasAreLearnt")
	}
	for _, q := range []struct{ read, written float64 }{{50e3, 50e3}, {50e3, 0}, {0, 50e3}} {
		for _, delivery := range []string{"exactly-once", "at-least-once"} {
			t.Run(fmt.Sprint(q, delivery), func(t *testing.T) {
				onKafka(t, func(t *testing.T, c *cluster) {
					client := "bounded" + c.run
					c.quota(client, q.read, q.written)
					topic := c.topic(4)
					source := c.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(16<<10), kgo.ProducerBatchCompression(kgo.NoCompression()))
					defer source.Close()
					const records = 1500
					base := time.Now().Add(-time.Hour).UnixMilli()
					for i := range records {
						r := record(topic, int32(i%4), base+int64(i), "")
						r.Value = noise(1000)
						c.produce(source, r)
					}
					free := c.connection
					c.connection = append(slices.Clone(free), kgo.ClientID(client))
					s := c.start(topic, "TIDEMARK_DELIVERY="+delivery, "TIDEMARK_COMPRESSION=none")
					c.connection = free
					seen := false
					c.awaitFor(2*time.Minute, "all in order", func() bool {
						s.lives()
						seen = seen || s.status().Throttled != ""
						return c.drained(s.cfg)
					})
					s.stop()
					if r := c.verify(s.cfg); r.Ordered-r.Repeated != records {
						t.Errorf("%d in order, %d of them repeated", r.Ordered, r.Repeated)
					}
					if said := s.voice.heard("a broker quota throttles requests"); len(said) == 0 || !seen {
						t.Errorf("told %d times, shown %v", len(said), seen)
					}
				})
			})
		}
	}
}

// throttler answers as a broker does that bounds the bytes of a client: the average of
// the last ten seconds is to be at the quota.
type throttler struct {
	q     *group.Quotas
	kind  kmsg.Key
	rate  float64
	sent  map[int64]int
	quiet time.Duration // asked for last
}

func (b *throttler) request(bytes int) {
	meta := kgo.BrokerMetadata{NodeID: 1, Host: "broker", Port: 9092}
	now := time.Now().Unix()
	b.sent[now] += bytes
	sum := 0
	for at, n := range b.sent {
		if now-at < 10 {
			sum += n
		}
	}
	e := kgo.BrokerE2E{BytesRead: bytes}
	if b.kind == kmsg.Produce {
		e = kgo.BrokerE2E{BytesWritten: bytes}
	}
	b.q.OnBrokerE2E(meta, b.kind.Int16(), e)
	b.quiet = time.Duration((float64(sum)/b.rate - 10) * float64(time.Second))
	if b.quiet > 0 {
		b.q.OnBrokerThrottle(meta, b.quiet, true)
		time.Sleep(b.quiet)
	}
}

// TestQuotasAreLearnt: what goes at a time comes to be so little that no answer holds us
// up for longer than two thirds of a timeout, and so much that the quota is used; and when the
// quota is gone, all goes at once again.
func TestQuotasAreLearnt(t *testing.T) {
	for _, kind := range []kmsg.Key{kmsg.Produce, kmsg.Fetch} {
		for _, rate := range []float64{20e3, 50e3, 500e3, 5e6} {
			synctest.Test(t, func(t *testing.T) {
				const most = 32 << 20
				q := group.NewQuotas(fault.NewReporter(slog.New(slog.DiscardHandler)))
				q.Keep(config.Config{SessionTimeout: 6 * time.Second, TransactionTimeout: 10 * time.Second})
				b := &throttler{q: q, kind: kind, rate: rate, sent: map[int64]int{}}
				of := group.Produce
				if kind == kmsg.Fetch {
					of = group.Fetch
				}
				for began := time.Now(); time.Since(began) < 5*time.Minute; time.Sleep(10 * time.Millisecond) {
					b.request(q.AtOnce(of, 8<<20)) // until it is learnt
				}
				sum, longest := 0, time.Duration(0)
				began := time.Now()
				for time.Since(began) < 10*time.Minute {
					n := q.AtOnce(of, most)
					sum += n
					b.request(n)
					longest = max(longest, b.quiet)
					time.Sleep(10 * time.Millisecond)
				}
				used := float64(sum) / time.Since(began).Seconds() / rate
				if longest > 4*time.Second || used < 0.8 || used > 1.2 {
					t.Errorf("%v at %.0f bytes a second: held up for %v at the most, and used %.2f of it", kind.Name(), rate, longest, used)
				}
				if q.Describe() == "" {
					t.Error("it is not shown")
				}
				time.Sleep(10 * time.Minute)
				if n := q.AtOnce(of, most); n != most || q.Describe() != "" {
					t.Errorf("without a quota: %d bytes at a time, %q", n, q.Describe())
				}
			})
		}
	}
}

// TestQuotaIsForgotten: when the quota is gone, ever more goes, also while it goes without
// a pause; and what has no bound of its own comes to have none.
func TestQuotaIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := group.NewQuotas(fault.NewReporter(slog.New(slog.DiscardHandler)))
		q.Keep(config.Config{SessionTimeout: 6 * time.Second, TransactionTimeout: 10 * time.Second})
		b := &throttler{q: q, kind: kmsg.Produce, rate: 50e3, sent: map[int64]int{}}
		for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(10 * time.Millisecond) {
			b.request(q.AtOnce(group.Produce, 8<<20))
		}
		const full = 10 << 20 // bytes a second there is to put out
		b.rate = 100 * full
		sum := 0
		for began := time.Now(); time.Since(began) < 10*time.Minute; time.Sleep(10 * time.Millisecond) {
			n := min(q.AtOnce(group.Produce, math.MaxInt), full/100)
			if b.request(n); time.Since(began) >= 9*time.Minute {
				sum += n
			}
		}
		if sum < 59*full {
			t.Errorf("%d bytes a second, 9 minutes after the quota was lifted", sum/60)
		}
		if n := q.AtOnce(group.Produce, math.MaxInt); n != math.MaxInt {
			t.Errorf("%d bytes at a time", n)
		}
	})
}

// TestUnknownEndIsNotIdle: before brokers have told where a log ends, nothing is known of
// what is behind; that is not idle, nor healthy.
func TestUnknownEndIsNotIdle(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		s := c.start(topic)
		c.await("the end of the log", func() bool { s.lives(); st := s.status(); return st.State == status.Healthy })
		s.stop()
		silent := c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: topic, Err: kerr.LeaderNotAvailable, Count: 1 << 30})
		s = c.start(topic)
		c.await("the partition", func() bool { s.lives(); return len(s.status().Partitions) == 1 })
		time.Sleep(20 * time.Second)
		if st := s.status(); st.State != status.Degraded || st.Partitions[0].State == status.Idle {
			t.Errorf("%s (%s), the partition %s", st.State, st.Reason, st.Partitions[0].State)
		}
		silent.Remove()
		c.await("an answer", func() bool {
			s.lives()
			st := s.status()
			return st.State == status.Healthy && st.Partitions[0].State == status.Idle
		})
		s.stop()
	})
}
