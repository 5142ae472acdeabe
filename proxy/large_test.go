package proxy

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// noise does not compress.
func noise(n int) []byte {
	var b []byte
	for i := 0; len(b) < n; i++ {
		sum := sha256.Sum256(strconv.AppendInt(nil, int64(i), 10))
		b = append(b, sum[:]...)
	}
	return b[:n]
}

// set changes a setting of a topic.
func (c *cluster) set(topic, key, value string) {
	c.t.Helper()
	_, err := c.adm.AlterTopicConfigs(c.ctx, []kadm.AlterConfig{{Name: key, Value: &value}}, topic)
	if err != nil {
		c.t.Fatal(err)
	}
	c.settle()
}

// settle waits until the brokers go by what was set. They answer before they do, and
// tell of it before they do; but they take in what is new batch by batch, in each of
// them topics before settings. So when they have a topic that was made after another
// was there, they are done with the batch of that other, and with all before it.
func (c *cluster) settle() {
	c.t.Helper()
	if c.fake != nil {
		return
	}
	brokers, err := c.adm.ListBrokers(c.ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	for range 2 {
		c.topic(int32(len(brokers))) // one that each of them leads
	}
}

// timed is a record of a second after base.
func timed(topic string, base time.Time, seconds int, value []byte) *kgo.Record {
	r := record(topic, 0, base.Add(time.Duration(seconds)*time.Second).UnixMilli(), fmt.Sprint(seconds))
	r.Value = value
	return r
}

// size is what a broker counts of a record that is alone in its batch and does
// not compress.
func size(r *kgo.Record) int {
	field := func(b []byte) int { return len(binary.AppendVarint(nil, int64(len(b)))) + len(b) }
	body := 3 + field(r.Key) + field(r.Value) + 1 // attributes, deltas of time and offset, number of headers
	for _, h := range r.Headers {
		body += field([]byte(h.Key)) + field(h.Value)
	}
	return 61 + len(binary.AppendVarint(nil, int64(body))) + body
}

// A record that is too large with our headers goes without them, as few as it
// takes; what compresses enough loses none. The rest of the topic is not held up.
func TestKafkaLargeRecord(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1, "max.message.bytes=20000000")
		base := time.Now().Add(-time.Hour)
		large := timed(topic, base, 1, noise(100_000))
		limit := size(large)
		c.create(topic+".ordered", 1, fmt.Sprintf("max.message.bytes=%d", limit+30)) // room for the source offset
		c.create(topic+".late", 1, fmt.Sprintf("max.message.bytes=%d", limit+10))
		many := timed(topic, base, 4, []byte("10,000 headers"))
		for i := range 10_000 {
			many.Headers = append(many.Headers, kgo.RecordHeader{Key: fmt.Sprint(i % 7)})
		}
		key := timed(topic, base, 5, nil)
		key.Key = bytes.Repeat([]byte("k"), 1_000_000)
		c.produce(c.cl,
			timed(topic, base, 0, []byte("small")),
			large,
			timed(topic, base, 2, bytes.Repeat([]byte("compresses"), 100_000)),
			timed(topic, base, 3, []byte("small")),
			many, key,
			timed(topic, base, -9, noise(100_000)), // late
			timed(topic, base, 9, []byte("end")),
		)
		s := c.start(topic, "TIDEMARK_HEADERS=watermark,source-offset,event-time")
		c.awaitDrained(s)
		s.stop()
		r := c.verify(s.cfg)
		if r.Read != 8 || r.Ordered != 7 || r.Late["unknown"] != 1 || r.Bare != 1 {
			t.Errorf("%d read, %d ordered, late %v, %d bare", r.Read, r.Ordered, r.Late, r.Bare)
		}
		for i, want := range [][3]string{
			{"0", "has", "has"}, {"1", "-", "-"}, {"2", "has", "has"}, {"3", "has", "has"}, {"4", "has", "has"}, {"5", "has", "has"}, {"7", "has", "has"},
		} {
			got := c.contents(topic + ".ordered")[0][i]
			has := func(name string) string {
				if header(got, name) != "-" {
					return "has"
				}
				return "-"
			}
			if o, w, e := header(got, "tidemark-source-offset"), has("tidemark-watermark"), has("tidemark-event-time"); o != want[0] || w != want[1] || e != want[2] {
				t.Errorf("record %d: source offset %s, watermark %s, event time %s; want %v", i, o, w, e, want)
			}
		}
		if late := c.contents(topic + ".late")[0][0]; len(late.Headers) != 1 {
			t.Errorf("a late record that fills its limit has %d headers, not its own alone", len(late.Headers))
		}
	})
}

// A record of 10 MB that does not compress, where topics take it.
func TestKafkaTenMegabytes(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1, "max.message.bytes=11000000")
		base := time.Now().Add(-time.Hour)
		for _, seconds := range []int{1, 2, -9} {
			c.produce(c.cl, timed(topic, base, seconds, noise(10_000_000)))
		}
		c.produce(c.cl, timed(topic, base, 3, nil))
		s := c.start(topic)
		c.awaitDrained(s)
		s.stop()
		if r := c.verify(s.cfg); r.Read != 4 || r.Ordered != 3 || r.Bare != 0 {
			t.Errorf("%d read, %d ordered, %d bare", r.Read, r.Ordered, r.Bare)
		}
	})
}

// A record that does not fit at all stops its partition and no other, and it is
// gone on with when it fits.
func TestKafkaRecordDoesNotFit(t *testing.T) {
	besideOthers(t)
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprintf("late=%v", late), func(t *testing.T) {
			if late && testing.Short() {
				t.Skip("takes half a minute on a real cluster")
			}
			onKafka(t, func(t *testing.T, c *cluster) {
				topic := c.topic(2, "max.message.bytes=20000000")
				outputs := []string{topic + ".ordered", topic + ".late"}
				for _, out := range outputs {
					c.create(out, 2, "max.message.bytes=50000")
				}
				base := time.Now().Add(-time.Hour)
				at := 1
				if late {
					at = -9
				}
				c.produce(c.cl, timed(topic, base, 0, nil), timed(topic, base, 1, nil), timed(topic, base, at, noise(60_000)), timed(topic, base, 2, nil), timed(topic, base, 9, nil))
				seconds := 0
				other := func() {
					r := timed(topic, base, seconds, nil)
					r.Partition = 1
					c.produce(c.cl, r)
					seconds++
				}
				other()
				s := c.start(topic, noDrain)
				c.await("the other partition to go on", func() bool { other(); return len(c.contents(outputs[0])[1]) > 3 })
				c.await("the commit before it", func() bool {
					snaps := c.commits(s.cfg)
					return len(snaps) == 2 && (late && snaps[0].Next == 2 || !late && snaps[0].Low == 2)
				})
				want := 2 // those before it
				if late {
					want = 1 // and one is held, as long as nothing is read
				}
				if n := len(c.contents(outputs[0])[0]); n != want || len(c.contents(outputs[1])[0]) != 0 {
					t.Errorf("%d ordered records came out of the partition that does not fit, want %d", n, want)
				}
				c.verify(s.cfg)
				for _, out := range outputs {
					c.set(out, "max.message.bytes", "100000")
				}
				c.await("the partition to go on", func() bool { s.lives(); snaps := c.commits(s.cfg); return len(snaps) == 2 && snaps[0].Next == 5 })
				s.stop()
				if r := c.verify(s.cfg); r.Bare != 0 {
					t.Errorf("%d bare", r.Bare)
				}
			})
		})
	}
}

// The limit is smaller than we know: packed batches are refused until they fit.
func TestKafkaLimitIsLowered(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		w := workload{seed: 50, records: 3000, partitions: 2, pause: 5 * time.Millisecond, chunk: 1000}
		topic := c.topic(w.partitions)
		s := c.start(topic, noDrain, "TIDEMARK_COMMIT_INTERVAL=500ms")
		c.await("the first commit", func() bool { return len(c.commits(s.cfg)) > 0 })
		c.set(topic+".ordered", "max.message.bytes", "30000")
		<-c.writing(topic, &w)
		c.awaitRead(s)
		s.stop()
		c.holds(s.cfg, &w)
	})
}
