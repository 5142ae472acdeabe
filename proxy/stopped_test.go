package proxy

import (
	"bytes"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A stuck partition and one that waits for its outputs, among members that come
// and go; loss of nothing.
func TestStoppedAmongRebalances(t *testing.T) {
	severalMembers(t)
	for _, mode := range []string{"exactly-once", "at-least-once"} {
		t.Run(mode, func(t *testing.T) {
			onFake(t, func(t *testing.T, c *cluster) {
				topic := c.topic(4, "max.message.bytes=20000000")
				for _, out := range []string{topic + ".ordered", topic + ".late"} {
					c.create(out, 4, "max.message.bytes=50000")
				}
				base := time.Now().Add(-time.Hour)
				done := make(chan struct{})
				go func() {
					defer close(done)
					for i := range 900 {
						for n := range int32(4) {
							v := []byte("small")
							if n == 0 && i%100 == 50 {
								v = noise(60_000)
							}
							if n == 1 && i%10 == 0 {
								v = bytes.Repeat([]byte("compresses"), 6_000)
							}
							r := timed(topic, base, i+3*(i%3), v)
							if i%97 == 5 {
								r = timed(topic, base, i-20, v)
							}
							r.Partition = n
							c.produce(c.cl, r)
						}
						time.Sleep(200 * time.Millisecond)
					}
				}()
				env := []string{noDrain, "TIDEMARK_DELIVERY=" + mode, "TIDEMARK_MAX_OUT_OF_ORDERNESS=5s"}
				a := c.start(topic, env...)
				time.Sleep(10 * time.Second)
				for range 3 {
					b := c.start(topic, append(env, instance("b"))...)
					time.Sleep(17 * time.Second)
					b.stop()
					time.Sleep(7 * time.Second)
					d := c.start(topic, append(env, instance("d"))...)
					time.Sleep(15 * time.Second)
					d.crash()
					time.Sleep(11 * time.Second)
				}
				<-done
				for _, out := range []string{topic + ".ordered", topic + ".late"} {
					c.set(out, "max.message.bytes", "100000")
				}
				c.awaitRead(a)
				a.stop()
				if r := c.verify(a.cfg); r.Read != 3600 {
					t.Errorf("%d read", r.Read)
				}
			})
		})
	}
}

// A partition that waits for its outputs must not keep dead instances'
// transactions on the others from being ended.
func TestWaitingPartitionAndDeadTransaction(t *testing.T) {
	for _, partitions := range []int32{1, 2} {
		onFake(t, func(t *testing.T, c *cluster) {
			topic := c.topic(partitions)
			for _, out := range []string{topic + ".ordered", topic + ".late"} {
				c.create(out, 1)
			}
			c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreatePartitions}, Err: kerr.TopicAuthorizationFailed, Count: -1})
			base := time.Now().Add(-time.Hour).UnixMilli()
			c.produce(c.cl, record(topic, 0, base, "first"))
			s := c.start(topic, noDrain)
			c.await("the commits", func() bool {
				snaps := c.commits(s.cfg)
				return len(snaps) == int(partitions) && snaps[0].Next == 1
			})
			s.stop()
			c.produce(c.cl, record(topic, 0, base+1000, "second"))
			c.dies(topic)
			s = c.start(topic, noDrain)
			took := since(func() {
				c.await("the first record out", func() bool { s.lives(); return len(c.contents(topic + ".ordered")[0]) > 0 })
			})
			if took > 2*time.Second {
				t.Errorf("it took %v", took)
			}
			s.stop()
		})
	}
}

// A batch that inflates, at the place where the partition goes on: it is tried
// again every 30 s. When it is gone, the partition goes on.
func TestInflatingBatchIsTriedAgain(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		base := time.Now().Add(-time.Hour)
		bomb := c.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(99<<20), kgo.ProducerBatchCompression(kgo.GzipCompression()))
		defer bomb.Close()
		c.produce(bomb, timed(topic, base, 0, make([]byte, 80<<20)))
		for _, out := range []string{topic + ".ordered", topic + ".late"} {
			c.create(out, 1, "max.message.bytes=90000000")
		}
		s := c.start(topic, noDrain, "TIDEMARK_MEMORY=16MiB", "TIDEMARK_ON_DATA_LOSS=continue")
		c.await("the first commit", func() bool { s.lives(); return len(c.commits(s.cfg)) == 1 })
		time.Sleep(5 * time.Minute)
		if n := s.proc.reporter.Snapshot().Record; n < 5 {
			t.Errorf("tried %d times in 5 minutes", n)
		}
		// The batch goes away.
		at := kadm.Offsets{}
		at.AddOffset(topic, 0, 1, -1)
		if _, err := c.adm.DeleteRecords(c.ctx, at); err != nil {
			t.Fatal(err)
		}
		c.produce(c.cl, timed(topic, base, 1, nil), timed(topic, base, 9, nil))
		c.awaitRead(s)
		s.stop()
	})
}

// A long release of records that are each sent alone, to brokers that are a
// little slow, must not outlive its transaction.
func TestSlowReleaseOfLargeRecords(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1, "max.message.bytes=20000000")
		for _, out := range []string{topic + ".ordered", topic + ".late"} {
			c.create(out, 1, "max.message.bytes=5000")
		}
		base := time.Now().Add(-time.Hour)
		var all []*kgo.Record
		for i := range 300 {
			r := record(topic, 0, base.UnixMilli()+int64(i%200), "x")
			r.Value = bytes.Repeat([]byte("compresses"), 600)
			all = append(all, r)
		}
		all = append(all, timed(topic, base, 9, nil)) // releases them all
		c.produce(c.cl, all...)
		s := c.start(topic, noDrain)
		c.await("a record put out", func() bool {
			return !s.running() || len(c.contents(topic + ".ordered")[0]) > 0 || s.proc.reporter.Snapshot().Sessions > 1
		})
		s.link.delay.Store(int64(60 * time.Millisecond))
		c.await("all put out, or the end", func() bool {
			return !s.running() || len(c.contents(topic + ".ordered")[0]) == 300
		})
		s.lives()
		s.stop()
	})
}
