package proxy

import (
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// What may happen to logs under a sidecar that runs, or is about to.

// Brokers abort a transaction that is open for longer than its timeout: a
// process that was held up that long begins again from the commit.
func TestKafkaTransactionTimesOut(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		w := workload{seed: 60, records: 3000, partitions: 2, pause: 100 * time.Millisecond}
		topic := c.topic(w.partitions)
		env := []string{noDrain, "TIDEMARK_TRANSACTION_TIMEOUT=1s", "TIDEMARK_SESSION_TIMEOUT=40s", "TIDEMARK_COMMIT_INTERVAL=400ms"}
		s := c.start(topic, env...)
		written := c.writing(topic, &w)
		c.await("a transaction", func() bool { return c.transactingOn(s, 0, 1) })
		s.link.delay.Store(int64(13 * time.Second)) // brokers look every 10 s
		time.Sleep(time.Second)
		s.link.delay.Store(0)
		<-written
		c.awaitRead(s)
		s.stop()
		c.holds(s.cfg, &w)
		c.sameBeside(s, noDrain)
	})
}

// An output is deleted under a sidecar: it says so and ends. The next start
// creates it, and goes on.
func TestKafkaOutputDeleted(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		cfg, w := c.ranOnce(noDrain)
		topic := cfg.Topics[0]
		s := c.start(topic, noDrain)
		c.await("the partition taken up", func() bool { return len(c.owned(s)) == 1 })
		if _, err := c.adm.DeleteTopic(c.ctx, cfg.OrderedTopic(topic)); err != nil {
			t.Fatal(err)
		}
		c.settle() // or what comes next is still written to the topic that was
		later := func(ms int) *kgo.Record {
			return record(topic, 0, w.base.Add(time.Hour).UnixMilli()+int64(ms), fmt.Sprint("later-", ms))
		}
		c.produce(c.cl, later(0), later(1000))
		if fault := s.fails(); fault.Code != 1 || fault.Advice == "" {
			t.Errorf("exit code %d: %v (hint: %s)", fault.Code, fault, fault.Advice)
		}
		again := c.start(topic, noDrain)
		c.awaitRead(again)
		again.stop()
		out := c.contents(cfg.OrderedTopic(topic))[0]
		if len(out) == 0 || string(out[len(out)-1].Value) != "later-0" {
			t.Errorf("%d records in the new topic", len(out))
		}
	})
}

// The group's offset is set beyond the end of the log. Where to go on is not
// guessed.
func TestKafkaOffsetSetBeyondTheEnd(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		cfg, w := c.ranOnce()
		topic := cfg.Topics[0]
		c.commit(cfg, 1_000_000, "")
		c.refused(topic, newEpoch)
		fault := c.start(topic, newEpoch).fails()
		if fault.Code != 1 || !strings.Contains(fault.Error(), "1000000") || !strings.Contains(fault.Error(), fmt.Sprint(w.records)) {
			t.Errorf("exit code %d: %v", fault.Code, fault)
		}
		s := c.start(topic, goOn)
		c.await("the end of the log", func() bool {
			s.lives()
			snaps := c.commits(cfg) // without those that are not stable
			return len(snaps) == 1 && snaps[0].Next == int64(w.records)
		})
		c.produce(c.cl, record(topic, 0, w.base.UnixMilli(), "after"))
		c.awaitDrained(s)
		s.stop()
		out := c.contents(cfg.OrderedTopic(topic))[0]
		if last := out[len(out)-1]; string(last.Value) != "after" || header(last, "tidemark-epoch") != "1" {
			t.Errorf("the last record out is %q in epoch %s", last.Value, header(last, "tidemark-epoch"))
		}
	})
}

// A timestamp that an output refuses stops its partition, with the setting. When that is
// changed, the partition goes on.
func TestKafkaTimestampRefused(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(2, fault.TimestampAfter+"="+fmt.Sprint(int64(math.MaxInt64)))
		s := c.start(topic)
		c.await("the first commit", func() bool { return len(c.commits(s.cfg)) > 0 })
		out := s.cfg.OrderedTopic(topic)
		var refused *kfake.FaultHandle
		if c.fake != nil {
			refused = c.refuse(out, 0, kerr.InvalidTimestamp)
		}
		c.set(out, fault.TimestampAfter, "1000")
		base, written := time.Now().Add(-time.Hour), 0
		write := func() {
			for n := range int32(2) {
				r := timed(topic, base, written, nil)
				if r.Partition = n; n == 0 && written == 1 {
					r.Timestamp = unwelcome
				}
				c.produce(c.cl, r)
			}
			written++
		}
		for range 3 {
			write()
		}
		c.await("the partition to stop", func() bool { s.lives(); return len(s.voice.heard("a partition is suspended")) > 0 })
		if line := s.voice.heard("a partition is suspended")[0]; !hasAll(line, fault.TimestampAfter+"="+fmt.Sprint(int64(math.MaxInt64)), out, "offset 1 ") {
			t.Error(line)
		}
		for range 3 {
			write()
		}
		c.await("the other partition to go on", func() bool { s.lives(); return len(c.contents(out)[1]) == written })
		if n := len(c.contents(out)[0]); n != 1 {
			t.Errorf("%d came out of the partition that stands still", n)
		}
		if refused != nil {
			refused.Remove()
		}
		c.set(out, fault.TimestampAfter, fmt.Sprint(int64(math.MaxInt64)))
		c.awaitDrained(s)
		s.stop()
		if r := c.verify(s.cfg); r.Ordered != int64(2*written) {
			t.Errorf("%d ordered", r.Ordered)
		}
	})
}

// A batch that would fill the memory when it is decompressed stops its
// partition alone.
func TestKafkaBatchInflates(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(2)
		base := time.Now().Add(-time.Hour)
		bomb := c.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(99<<20), kgo.ProducerBatchCompression(kgo.GzipCompression()))
		defer bomb.Close()
		c.produce(c.cl, timed(topic, base, 0, nil), timed(topic, base, 9, nil))
		c.produce(bomb, timed(topic, base, 10, make([]byte, 80<<20)))
		for _, out := range []string{topic + ".ordered", topic + ".late"} {
			c.create(out, 2, "max.message.bytes=90000000")
		}
		s := c.start(topic, noDrain, "TIDEMARK_MEMORY=16MiB")
		for i := range 4 {
			r := timed(topic, base, i, nil)
			r.Partition = 1
			c.produce(c.cl, r)
		}
		c.await("the other partition", func() bool { s.lives(); return len(c.contents(s.cfg.OrderedTopic(topic))[1]) == 3 })
		c.await("what comes before", func() bool { s.lives(); return len(c.contents(s.cfg.OrderedTopic(topic))[0]) == 1 })
		s.stop()
		if snaps := c.commits(s.cfg); snaps[0].Next != 2 {
			t.Errorf("read up to %d", snaps[0].Next)
		}
		more := c.start(topic, noDrain, "TIDEMARK_MEMORY=512MiB")
		c.await("the rest", func() bool { more.lives(); return c.read(more.cfg) })
		more.stop()
		c.verify(more.cfg)
	})
}

// The source is compacted, and some of what was buffered is gone: that is a
// loss and not a hole.
func TestKafkaSourceCompacted(t *testing.T) {
	if os.Getenv(brokersVar) == "" {
		t.Skip(brokersVar + " is not set: kfake does not compact")
	}
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1, "cleanup.policy=compact", "segment.ms=100", "min.cleanable.dirty.ratio=0.001", "max.compaction.lag.ms=100")
		for _, out := range []string{topic + ".ordered", topic + ".late"} {
			c.create(out, 1)
		}
		base := time.Now().Add(-time.Hour)
		write := func(seconds int) {
			r := timed(topic, base, seconds, []byte("x"))
			r.Key = []byte("same")
			c.produce(c.cl, r)
		}
		for i := range 5 {
			write(i)
		}
		env := []string{noDrain, "TIDEMARK_MAX_OUT_OF_ORDERNESS=1h", "TIDEMARK_MAX_FUTURE=0"}
		s := c.start(topic, env...)
		c.awaitRead(s)
		s.stop()
		snap := c.commits(s.cfg)[0]
		if snap.Count != 5 {
			t.Fatalf("%d buffered", snap.Count)
		}
		c.await("the compaction", func() bool {
			time.Sleep(time.Second)
			write(6) // only what is not in the last segment is compacted
			first := int64(-1)
			for _, r := range c.contents(topic)[0] {
				first = r.Offset
				break
			}
			return first >= 5
		})
		fault := c.start(topic, env...).fails()
		if fault.Code != 1 || !strings.Contains(fault.Error(), "0 of the 5 records") {
			t.Errorf("exit code %d: %v", fault.Code, fault)
		}
	})
}

// What came out of records that compaction has removed since cannot be compared with
// anything, and is nothing that verify complains of.
func TestKafkaVerifyOfCompactedSource(t *testing.T) {
	if os.Getenv(brokersVar) == "" {
		t.Skip(brokersVar + " is not set: kfake does not compact")
	}
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1, "cleanup.policy=compact", "segment.ms=100", "min.cleanable.dirty.ratio=0.001", "max.compaction.lag.ms=100")
		for _, out := range []string{topic + ".ordered", topic + ".late"} {
			c.create(out, 1)
		}
		base := time.Now().Add(-time.Hour)
		write := func(seconds int, key string) {
			r := timed(topic, base, seconds, []byte("x"))
			r.Key = []byte(key)
			c.produce(c.cl, r)
		}
		for i := range 6 {
			write(2*i, "same")
			write(2*i+1, fmt.Sprint("other", i))
		}
		s := c.start(topic)
		c.awaitDrained(s)
		s.stop()
		left := 0
		c.await("the compaction", func() bool {
			time.Sleep(time.Second)
			write(13, "last") // only what is not in the last segment is compacted
			left = 0
			for _, r := range c.contents(topic)[0] {
				if r.Offset < 12 {
					left++
				}
			}
			return left == 7
		})
		if r := c.verify(s.cfg); r.Ordered != 12 || r.Expired != 5 || r.Read != 7 {
			t.Errorf("%+v", r)
		}
	})
}
