package proxy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/repair"
	"github.com/tidemarkhq/tidemark/reorder"
)

// Brokers refuse some corrections of one partition for good. The run corrects all that
// stands before the first of them on the late topic, and all other partitions; it ends
// with exit code 1, the place and the way out. When they are let in, the next run does
// the rest, and nothing comes twice.
func TestRepairRefusedForGood(t *testing.T) {
	besideOthers(t)
	for _, err := range []*kerr.Error{kerr.InvalidTimestamp, kerr.InvalidRecord} {
		t.Run(err.Message, func(t *testing.T) {
			onFake(t, func(t *testing.T, c *cluster) {
				const each, at = 700, 117
				topic := c.topic(3)
				c.create(topic+".late", 3)
				c.create(topic+".corrections", 3)
				rnd, now := rand.New(rand.NewPCG(3, 14)), time.Now()
				written := make([][]*kgo.Record, 3)
				for n := range written {
					for i := range each {
						r := lateRecord(topic, int32(n), now.Add(-time.Hour).UnixMilli()+rnd.Int64N(each), int64(i), reorder.BehindWatermark, now)
						if n == 1 && (i == at || i == 500) {
							r.Timestamp = unwelcome
						}
						written[n] = append(written[n], r)
					}
					c.produce(c.cl, written[n]...)
				}
				sorted := func(rs []*kgo.Record) []*kgo.Record {
					rs = slices.Clone(rs)
					slices.SortStableFunc(rs, inOrder)
					return rs
				}
				refused := c.refuse(topic+".corrections", 1, err)
				m := c.mend(topic, nil)
				c.await("the run to end", func() bool {
					select {
					case <-m.done:
						return true
					default:
						return false
					}
				})
				fault, ok := errors.AsType[*fault.Fault](m.err)
				if !ok || fault.Code != 1 || !hasAll(fault.Error(), fmt.Sprintf("%s.late partition 1 offset %d to %s.corrections", topic, at, topic), err.Message) || fault.Advice == "" {
					t.Fatalf("%v", m.err)
				}
				c.correctedAs(topic+".corrections", sorted(written[0]), sorted(written[1][:at]), sorted(written[2]))
				if refused.Hits() > 120 {
					t.Errorf("found in %d tries", refused.Hits())
				}
				refused.Remove()
				if r := c.mended(topic, nil); r.Corrections != each-at {
					t.Errorf("the next run made %d corrections, want %d", r.Corrections, each-at)
				}
				c.correctedAs(topic+".corrections", sorted(written[0]), append(sorted(written[1][:at]), sorted(written[1][at:])...), sorted(written[2]))
			})
		})
	}
}

// inOrder compares late records by the order of their corrections.
func inOrder(a, b *kgo.Record) int {
	number := func(r *kgo.Record, name string) (n int64) {
		_, _ = fmt.Sscan(header(r, name), &n)
		return n
	}
	for _, name := range []string{"event-time", "tidemark-source-offset"} {
		if d := number(a, name) - number(b, name); d != 0 {
			return int(d)
		}
	}
	return 0
}

// Brokers take nothing for one partition of the corrections: the others are corrected,
// and a repair that goes on does the rest when they take it.
func TestRepairPartitionTakesNothing(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(2)
		c.create(topic+".late", 2)
		c.create(topic+".corrections", 2)
		rnd := rand.New(rand.NewPCG(3, 15))
		want := [][]*kgo.Record{c.lateRecords(topic, 0, 0, 50, rnd), c.lateRecords(topic, 1, 0, 50, rnd)}
		refused := c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic + ".corrections", Partitions: []int32{0}, Err: kerr.KafkaStorageError, Count: -1})
		m := c.mend(topic, func(o *repair.Options) { o.Every = time.Minute })
		c.await("the other partition", func() bool { return len(c.contents(topic + ".corrections")[1]) == 50 })
		time.Sleep(5 * time.Minute)
		if told := m.voice.heard("a correction is refused"); len(told) < 3 || !hasAll(told[0], "topic="+topic+".late", "partition=0", "KAFKA_STORAGE_ERROR", "hint=") {
			t.Errorf("told %q", told)
		}
		refused.Remove()
		c.await("the partition", func() bool { return len(c.contents(topic + ".corrections")[0]) == 50 })
		m.end()
		<-m.done
		if m.err != nil {
			t.Error(m.err)
		}
		c.correctedAs(topic+".corrections", want...)
	})
}
