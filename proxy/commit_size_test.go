package proxy

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// room has brokers take commits of so many partitions at the most.
func (c *cluster) room(most int) *kfake.FaultHandle {
	return c.fake.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.OffsetCommit, kmsg.TxnOffsetCommit}, Err: kerr.InvalidCommitOffsetSize, Count: -1,
		When: func(req kmsg.Request) bool {
			n := 0
			switch req := req.(type) {
			case *kmsg.OffsetCommitRequest:
				for _, t := range req.Topics {
					n += len(t.Partitions)
				}
			case *kmsg.TxnOffsetCommitRequest:
				for _, t := range req.Topics {
					n += len(t.Partitions)
				}
			}
			return n > most
		},
	})
}

// More partitions change at once than brokers take in one commit: at the first start, by
// records, and by the clock when all fall idle. They are committed in several, after few
// tries, and none when it is known.
func TestCommitOfManyPartitions(t *testing.T) {
	besideOthers(t)
	const partitions, most = 48, 8
	for _, delivery := range refusalModes {
		for _, known := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/known=%v", delivery, known), func(t *testing.T) {
				onFake(t, func(t *testing.T, c *cluster) {
					topic := c.topic(partitions)
					refused := c.room(most)
					base := time.Now().Add(-time.Hour)
					write := func(from, to int) {
						var rs []*kgo.Record
						for i := from; i < to; i++ {
							for n := range int32(partitions) {
								r := timed(topic, base, i, nil)
								r.Partition = n
								rs = append(rs, r)
							}
						}
						c.produce(c.cl, rs...)
					}
					write(0, 5)
					if s := c.start(topic, "TIDEMARK_DELIVERY="+delivery); known {
						s.proc.limits.LimitCommit(most * 150)
					}
					s := c.sidecars[0]
					c.awaitDrained(s)
					write(5, 10)
					c.awaitDrained(s)
					if n := refused.Hits(); known && n > 0 || n > 4*partitions {
						t.Errorf("%d offsets were refused", n)
					}
					st := s.status()
					if sum := sum(st); sum.Unaccounted() != 0 {
						t.Errorf("unaccounted: %d", sum.Unaccounted())
					}
					s.stop()
					if r := c.verify(s.cfg); r.Ordered != 10*partitions || r.Repeated > 0 && delivery == "exactly-once" {
						t.Errorf("%d ordered, %d repeated", r.Ordered, r.Repeated)
					}
				})
			})
		}
	}
}

// A repair of many partitions commits as many at once as brokers take.
func TestRepairOfManyPartitions(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		const partitions, most = 60, 10
		topic := c.topic(partitions)
		c.create(topic+".late", partitions)
		rnd := rand.New(rand.NewPCG(3, 16))
		var want [][]*kgo.Record
		for n := range int32(partitions) {
			want = append(want, c.lateRecords(topic, n, 0, 3, rnd))
		}
		c.room(most)
		if r := c.mended(topic, nil); r.Transactions < partitions/most || r.Corrections != 3*partitions {
			t.Errorf("%d corrections in %d transactions", r.Corrections, r.Transactions)
		}
		c.correctedAs(topic+".corrections", want...)
	})
}

// One offset alone is too large: nothing helps but the setting.
func TestCommitTooLarge(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(2)
		c.room(0)
		if f := c.start(topic).fails(); f.Code != 1 || !hasAll(f.Advice, "__consumer_offsets", fault.MaxMessageBytes) {
			t.Errorf("%d %v (hint: %s)", f.Code, f, f.Advice)
		}
	})
}
