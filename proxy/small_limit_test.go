package proxy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/reorder"
)

// The limit of an output is below the smallest batch that the client can be told of, from
// the beginning or while it runs. What does not fit suspends its partition with the setting,
// the others go on, and so does the partition once the limit is raised.
func TestKafkaLimitBelowClientBatch(t *testing.T) {
	besideOthers(t)
	for _, test := range []struct {
		name  string
		limit int
		fits  bool // the small records do
	}{
		{name: "one of several records", limit: 300, fits: true},
		// A batch of one of them has 94 bytes, without any of our headers. The marker that ends a
		// transaction has 78, and brokers do not write it where less is allowed.
		{name: "no record", limit: 90},
	} {
		for _, mode := range refusalModes {
			for _, lowered := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/lowered=%v", test.name, mode, lowered), func(t *testing.T) {
					onKafka(t, func(t *testing.T, c *cluster) {
						c.limitBelowClientBatch(mode, test.limit, test.fits, lowered)
					})
				})
			}
		}
	}
}

// TestLimitBelowClientBatchIsHidden: brokers do not say what the limit is, or it is another
// one that is in the way. It is found by trying, down to one record in a batch, and forgotten
// when the record is accepted.
func TestLimitBelowClientBatchIsHidden(t *testing.T) {
	besideOthers(t)
	for _, mode := range refusalModes {
		for _, refusal := range []*kerr.Error{kerr.MessageTooLarge, kerr.RecordListTooLarge} {
			t.Run(mode+"/"+refusal.Message, func(t *testing.T) {
				onFake(t, func(t *testing.T, c *cluster) { c.hiddenLimit(mode, refusal) })
			})
		}
	}
}

func (c *cluster) hiddenLimit(mode string, refusal *kerr.Error) {
	t, setting := c.t, "max.message.bytes=1049612"
	topic := c.topic(1)
	c.create(topic+".ordered", 1)
	known := 0
	if refusal == kerr.MessageTooLarge {
		c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Resource: topic + ".ordered", Err: kerr.TopicAuthorizationFailed, Count: -1})
	} else {
		setting, known = "segment.bytes=", 1_048_588 // the default of kfake
	}
	var batches atomic.Int64
	wall := c.fake.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Topic: topic + ".ordered", Err: refusal, Count: -1,
		When: func(req kmsg.Request) bool {
			batches.Add(1)
			for _, t := range req.(*kmsg.ProduceRequest).Topics {
				for _, p := range t.Partitions {
					if len(p.Records) > 300 {
						return true
					}
				}
			}
			return false
		},
	})
	base := time.Now().Add(-time.Hour)
	for i, value := range [][]byte{nil, nil, noise(400), nil, nil} {
		c.produce(c.cl, timed(topic, base, i, value))
	}
	c.produce(c.cl, timed(topic, base, 30, nil))
	s := c.start(topic, noDrain, "TIDEMARK_DELIVERY="+mode)
	c.await("the partition to be suspended", func() bool { s.lives(); return len(s.voice.heard("a partition is suspended")) > 0 })
	if line := s.voice.heard("a partition is suspended")[0]; !hasAll(line, "offset 2:", "more than "+topic+".ordered accepts", setting) {
		t.Errorf("the log has %s", line)
	}
	c.verify(s.cfg)
	wall.Remove()
	c.await("the partition to go on", func() bool { s.lives(); snaps := c.commits(s.cfg); return len(snaps) == 1 && snaps[0].Next == 6 })
	if n := s.proc.limits.Batch(topic+".ordered", known); n < 1_000_000 {
		t.Errorf("the limit is still believed to be %d", n)
	}
	s.stop()
	if r := c.verify(s.cfg); r.Read != 6 || r.Late["behind-watermark"] != 0 {
		t.Errorf("%d read, late %v", r.Read, r.Late)
	}
}

// In at-least-once mode, no record passes one that the client itself finds too large.
func TestNothingPassesOversizedRecord(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		for _, out := range []string{topic + ".ordered", topic + ".late"} {
			c.create(out, 1, "max.message.bytes=2000")
		}
		base := time.Now().Add(-time.Hour)
		var all []*kgo.Record
		for i := range 20 {
			value := []byte("small")
			if i == 7 {
				value = noise(3000)
			}
			all = append(all, timed(topic, base, i, value))
		}
		c.produce(c.cl, all...)
		s := c.start(topic, noDrain, "TIDEMARK_DELIVERY=at-least-once")
		c.await("the partition to be suspended", func() bool { s.lives(); return len(s.voice.heard("a partition is suspended")) > 0 })
		for _, r := range c.contents(topic + ".ordered")[0] {
			if n, err := strconv.Atoi(header(r, "tidemark-source-offset")); err != nil || n >= 7 {
				t.Errorf("the record at offset %d passed the one at 7", n)
			}
		}
		s.stop()
	})
}

// A repair ends with the setting, too, and does not try for ever.
func TestRepairLimitBelowClientBatch(t *testing.T) {
	for _, fits := range []bool{true, false} {
		onFake(t, func(t *testing.T, c *cluster) {
			topic := c.topic(1)
			c.create(topic+".late", 1)
			limit := 70
			if fits {
				limit = 500
			}
			c.create(topic+".corrections", 1, fmt.Sprintf("max.message.bytes=%d", limit))
			now := time.Now()
			var all []*kgo.Record
			for i := range 6 {
				r := lateRecord(topic, 0, now.Add(-time.Hour).UnixMilli()+int64(i), int64(i), reorder.BehindWatermark, now)
				if i == 3 {
					r.Value = noise(400)
				}
				all = append(all, r)
			}
			c.produce(c.cl, all...)
			m := c.mend(topic, nil)
			<-m.done
			f, ok := errors.AsType[*fault.Fault](m.err)
			if !ok || f.Code != 1 || !hasAll(f.Advice, fmt.Sprintf("more than the %d that %s.corrections accepts", limit, topic), "max.message.bytes=1049612") || strings.Contains(f.Error(), "_bytes=") {
				t.Fatalf("%v", m.err)
			}
			want := 0
			if fits {
				want = 3
			}
			if n := len(c.contents(topic + ".corrections")[0]); n != want {
				t.Errorf("%d corrections, want %d", n, want)
			}
			c.set(topic+".corrections", "max.message.bytes", "1049612")
			c.mended(topic, nil)
			c.correctedAs(topic+".corrections", all)
		})
	}
}

func (c *cluster) limitBelowClientBatch(mode string, limit int, fits, lowered bool) {
	t := c.t
	const needed = "max.message.bytes=1049612" // as the check at the start has it
	topic, other := c.topic(2), c.topic(1)
	out := topic + ".ordered"
	if !lowered {
		c.create(out, 2, fmt.Sprintf("max.message.bytes=%d", limit))
	}
	base := time.Now().Add(-time.Hour)
	seconds := 0
	beside := func(topic string, partition int32, value []byte) {
		r := timed(topic, base, seconds, value)
		r.Partition = partition
		c.produce(c.cl, r)
		seconds++
	}
	s := c.start(topic, noDrain, "TIDEMARK_TOPICS="+topic+","+other, "TIDEMARK_DELIVERY="+mode)
	c.await("the first commit", func() bool { return len(c.commits(s.cfg)) == 2 })
	if lowered {
		c.set(out, "max.message.bytes", fmt.Sprint(limit))
	}
	var all []*kgo.Record
	for i, value := range [][]byte{nil, nil, noise(400), nil, nil} {
		all = append(all, timed(topic, base, i, value))
	}
	c.produce(c.cl, append(all, timed(topic, base, 30, nil))...)
	refused := 0 // the offset
	if fits {
		refused = 2
	}
	c.await("the partition to be suspended", func() bool {
		s.lives()
		beside(other, 0, nil)
		return len(s.voice.heard("a partition is suspended")) > 0
	})
	line := s.voice.heard("a partition is suspended")[0]
	if !hasAll(line, "level=ERROR", "topic="+topic, "partition=0", fmt.Sprintf("offset %d", refused), fmt.Sprintf("more than the %d that", limit), out, needed, "MESSAGE_TOO_LARGE") {
		t.Errorf("the log has %s", line)
	}
	before := len(c.contents(other + ".ordered")[0])
	c.await("the other topic to go on", func() bool {
		s.lives()
		beside(other, 0, nil)
		return len(c.contents(other + ".ordered")[0]) > before+3
	})
	if fits {
		c.await("the other partition to go on", func() bool {
			s.lives()
			beside(topic, 1, nil)
			return len(c.contents(out)[1]) > 3
		})
	}
	came := map[string]int{}
	for _, r := range c.contents(out)[0] {
		came[header(r, "event-time")]++
	}
	if len(came) != refused || mode == "exactly-once" && len(c.contents(out)[0]) != refused {
		t.Errorf("%v came out before the record that is refused, want %d", came, refused)
	}
	c.verify(s.cfg)
	text := s.voice.String()
	if n := strings.Count(text, "max.message.bytes="); n != strings.Count(text, needed) || strings.Contains(text, "_bytes=") {
		t.Errorf("the log has several sizes:\n%s", text)
	}

	c.set(out, "max.message.bytes", "1049612")
	c.await("the partition to go on", func() bool {
		s.lives()
		snaps := c.commits(s.cfg)
		return len(snaps) == 2 && snaps[0].Next == 6
	})
	// The small limit is forgotten: a thousand records do not take a thousand batches.
	var requests atomic.Int64
	if c.fake != nil {
		c.fake.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
			c.fake.KeepControl()
			requests.Add(1)
			return nil, nil, false
		})
	}
	all = all[:0]
	for i := range 1000 {
		all = append(all, timed(topic, base, 31+i, nil))
	}
	c.produce(c.cl, all...)
	c.awaitRead(s)
	if n := requests.Load(); n > 100 {
		t.Errorf("%d requests for a thousand records", n)
	}
	s.stop()
	if r := c.verify(s.cfg); r.Late["behind-watermark"] != 0 || r.Read < 1006 {
		t.Errorf("%d read, %d ordered, late %v", r.Read, r.Ordered, r.Late)
	}
}
