package proxy

import (
	"bytes"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// More than the budget allows comes out before its time. What then comes
// behind it is late as overflow, and the contract holds.
func TestKafkaMemoryOverflow(t *testing.T) {
	besideOthers(t)
	for _, delivery := range []string{"exactly-once", "at-least-once"} {
		t.Run(delivery, func(t *testing.T) {
			onKafka(t, func(t *testing.T, c *cluster) {
				topic := c.topic(2)
				base := time.Now().Add(-5 * time.Hour).UnixMilli()
				var rs []*kgo.Record
				for i := range 4000 {
					r := record(topic, int32(i%2), base+int64(i), fmt.Sprint(i))
					if i%10 == 9 {
						r = record(topic, int32(i%2), base+int64(i)-3000, fmt.Sprint(i)) // within the bound
					}
					r.Value = bytes.Repeat([]byte{byte(i)}, 1000)
					rs = append(rs, r)
				}
				c.produce(c.cl, rs...)
				s := c.start(topic, noDrain, "TIDEMARK_MAX_OUT_OF_ORDERNESS=20m", "TIDEMARK_MEMORY=1MiB", "TIDEMARK_DELIVERY="+delivery)
				c.awaitRead(s)
				s.stop()
				if lines := s.voice.heard("went to the late topic because memory is short"); len(lines) == 0 || !strings.Contains(lines[0], "TIDEMARK_MEMORY") {
					t.Errorf("the log has %q", lines)
				}
				r := c.verify(s.cfg)
				if r.Late["overflow"] == 0 || len(r.Late) > 1 || r.Read != 4000 || r.Buffered == 0 || r.Buffered > 1000 {
					t.Errorf("%d read, %d ordered, %d buffered, late %v", r.Read, r.Ordered, r.Buffered, r.Late)
				}
				again := c.start(topic)
				c.awaitDrained(again)
				again.stop()
				if r := c.verify(again.cfg); r.Buffered != 0 || r.Read != 4000 {
					t.Errorf("%d read, %d buffered", r.Read, r.Buffered)
				}
			})
		})
	}
}

// At least once, what memory forces out is committed first. While the group
// rebalances no commit is taken, and what cannot be committed is not tried
// again and again until the client hears of the rebalance.
func TestCommitsRefusedUnderPressure(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		s := c.start(topic, noDrain, "TIDEMARK_MAX_OUT_OF_ORDERNESS=20m", "TIDEMARK_MEMORY=1MiB", "TIDEMARK_DELIVERY=at-least-once")
		c.awaitRead(s)
		until := time.Now().Add(2 * time.Second)
		h := c.fake.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: s.cfg.Group, Err: kerr.RebalanceInProgress, Count: 1000,
			When: func(kmsg.Request) bool { return time.Now().Before(until) },
		})
		base := time.Now().Add(-time.Hour).UnixMilli()
		var rs []*kgo.Record
		for i := range int64(2000) {
			r := record(topic, 0, base+i, "")
			r.Value = make([]byte, 1000)
			rs = append(rs, r)
		}
		c.produce(c.cl, rs...)
		c.awaitRead(s)
		if n := h.Hits(); n < 2 || n > 20 {
			t.Errorf("tried %d times in 2 s", n)
		}
		s.stop()
		if r := c.verify(s.cfg); r.Read != 2000 {
			t.Errorf("%d read", r.Read)
		}
	})
}

// One record from tomorrow does not make those of today late.
func TestKafkaRecordFromTheFuture(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		now := time.Now()
		rs := []*kgo.Record{record(topic, 0, now.Add(24*time.Hour).UnixMilli(), "tomorrow")}
		for i := range 500 {
			rs = append(rs, record(topic, 0, now.Add(time.Duration(i)*time.Millisecond).UnixMilli(), fmt.Sprint(i)))
		}
		c.produce(c.cl, rs...)
		s := c.start(topic)
		c.awaitDrained(s)
		s.stop()
		if r := c.verify(s.cfg); r.Ordered != 500 || r.Late["future"] != 1 {
			t.Errorf("%d ordered, late %v", r.Ordered, r.Late)
		}
	})
}

// Whether a record was too far in the future is asked of the wall clock once.
// Read again, after a crash and much later, it is judged as it was.
func TestFutureGuardStepsSurviveCrash(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		now := time.Now()
		at := func(d time.Duration) { c.produce(c.cl, record(topic, 0, now.Add(d).UnixMilli(), d.String())) }
		at(0)
		at(4 * time.Minute) // within the skew of five minutes
		at(7 * time.Minute) // future now, and not when it is read again
		at(time.Minute)
		env := []string{noDrain, "TIDEMARK_MAX_OUT_OF_ORDERNESS=20m", "TIDEMARK_MAX_FUTURE=5m"}
		s := c.start(topic, env...)
		c.awaitRead(s)
		s.crash()
		time.Sleep(10 * time.Minute)
		s = c.start(topic, env...)
		at(20 * time.Minute) // future still: ten minutes ahead
		at(12 * time.Minute)
		c.awaitRead(s)
		s.stop()
		if r := c.verify(s.cfg); r.Buffered != 4 || r.Late["future"] != 2 {
			t.Errorf("%d buffered, late %v", r.Buffered, r.Late)
		}
	})
}

// TestOneFastClock: by default the clock of one device cannot make on-time records of others
// late, whatever it is off by. What is too far ahead goes to the late topic by itself.
func TestOneFastClock(t *testing.T) {
	for ahead, late := range map[time.Duration]string{4*time.Minute + 59*time.Second: "future", 2*time.Minute + 20*time.Second: ""} {
		onFake(t, func(t *testing.T, c *cluster) {
			topic := c.topic(1)
			s := c.start(topic, "TIDEMARK_MAX_OUT_OF_ORDERNESS=5m")
			for i := range 300 {
				off := -time.Duration(i%120) * time.Second // delays of up to 2 min
				if i == 100 {
					off = ahead
				}
				c.produce(c.cl, sent(topic, "", off, i))
				time.Sleep(time.Second)
			}
			c.awaitRead(s)
			s.stop()
			r := c.verify(s.cfg)
			want := map[string]int{}
			if late != "" {
				want[late] = 1
			}
			got := map[string]int{}
			for reason, n := range r.Late {
				if n > 0 {
					got[reason] = int(n)
				}
			}
			if !maps.Equal(got, want) {
				t.Errorf("%v ahead: late %v, want %v", ahead, got, want)
			}
		})
	}
}

// TestMaxFutureIsLowered: a commit of a process that believed in more of the future is gone
// on from. Its limit judges what it has judged; what is new is soon judged by the new one.
func TestMaxFutureIsLowered(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		now := time.Now()
		at := func(d time.Duration) {
			c.produce(c.cl, record(topic, 0, now.Add(d).UnixMilli(), d.String()))
		}
		at(0)
		at(4*time.Minute + 59*time.Second)
		at(time.Second) // behind the one that is ahead
		const bound = "TIDEMARK_MAX_OUT_OF_ORDERNESS=5s"
		s := c.start(topic, noDrain, bound, "TIDEMARK_MAX_FUTURE=5m")
		c.awaitRead(s)
		s.crash()
		s = c.start(topic, noDrain, bound) // 2.5 s
		c.awaitRead(s)
		time.Sleep(7 * time.Minute)
		at(7*time.Minute + 2*time.Second)
		at(7*time.Minute + 4*time.Second) // 4 s ahead
		at(7*time.Minute + 1*time.Second)
		c.awaitRead(s)
		s.stop()
		if r := c.verify(s.cfg); r.Late["future"] != 1 || r.Late["behind-watermark"] != 1 || r.Ordered+r.Buffered != 4 {
			t.Errorf("%+v", r)
		}
	})
}
