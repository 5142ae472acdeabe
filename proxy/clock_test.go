package proxy

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/clocks"
)

const byDevice = "TIDEMARK_CLOCK_HEADER=device"

// sent is a record as a device with a clock that is off would send it now.
func sent(topic, device string, off time.Duration, i int) *kgo.Record {
	at := time.Now().Add(off)
	r := record(topic, 0, at.UnixMilli(), fmt.Sprint(device, i))
	r.Timestamp = at
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: "device", Value: []byte(device)})
	return r
}

// byBroker has kfake give the timestamps, as brokers do with LogAppendTime. It does
// so for batches that ask for it, and not for topics that are set to it.
func (c *cluster) byBroker() {
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	c.fake.ControlKey(kmsg.Produce.Int16(), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.fake.KeepControl()
		for _, t := range r.(*kmsg.ProduceRequest).Topics {
			for _, p := range t.Partitions {
				const crc, attributes, first, last = 17, 21, 27, 35
				p.Records[attributes+1] |= 8
				for _, at := range []int{first, last} { // kfake does the same, but not the sum
					binary.BigEndian.PutUint64(p.Records[at:], uint64(time.Now().UnixMilli()))
				}
				binary.BigEndian.PutUint32(p.Records[crc:], crc32.Checksum(p.Records[attributes:], castagnoli))
			}
		}
		return nil, nil, false
	})
}

// A device whose clock is an hour ahead, and one that is a minute behind, are
// named, and again while they are off; those that are right are not; nor is anything
// else of what they write.
func TestProducerClocksAreTold(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		s := c.start(topic, byDevice, "TIDEMARK_MAX_OUT_OF_ORDERNESS=5s")
		ahead := "fast\x1b[31m" + strings.Repeat("x", 100)
		for i := range 600 {
			c.produce(c.cl, sent(topic, ahead, time.Hour, i), sent(topic, "slow", -time.Minute, i),
				sent(topic, "right", 0, i), sent(topic, "nearly", -time.Second, i))
			time.Sleep(200 * time.Millisecond)
		}
		lines := s.voice.heard("a producer's clock")
		t.Logf("%q", lines)
		if len(lines) != 4 { // of each, after a minute and half a minute later
			t.Fatalf("%d lines: %q", len(lines), lines)
		}
		named := func(words ...string) {
			t.Helper()
			for _, line := range lines {
				all := true
				for _, word := range words {
					all = all && strings.Contains(line, word)
				}
				if all {
					return
				}
			}
			t.Errorf("no line has %q", words)
		}
		named("level=WARN", "topic="+topic, "partition=0", "header=device", `fast\\x1b[31mxxx`, "clock-ahead", "off_by=1h0m0s", "hint=", "TIDEMARK_MAX_FUTURE")
		named("level=WARN", "topic="+topic, "partition=0", "header=device", "slow", "clock-behind", "off_by=1m0", "NTP")
		for _, line := range lines {
			if len(line) > 600 || strings.ContainsRune(line, '\x1b') {
				t.Errorf("%d bytes: %q", len(line), line)
			}
		}
		s.stop()
	})
}

// Brokers are away; then everything comes at once, and seems to be old.
func TestOutageIsNoClock(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		s := c.start(topic, byDevice, "TIDEMARK_MAX_OUT_OF_ORDERNESS=5s")
		for i := range 1500 {
			switch i {
			case 300:
				s.link.leave()
			case 900:
				s.link.comeBack()
			}
			c.produce(c.cl, sent(topic, "right", 0, i))
			time.Sleep(100 * time.Millisecond)
		}
		s.lives()
		if lines := s.voice.heard("a producer's clock"); len(lines) > 0 {
			t.Errorf("%q", lines)
		}
		s.stop()
	})
}

// By the broker's clock a backlog shows whose clock is off; by the sender's it
// does not.
func TestClockInABacklog(t *testing.T) {
	besideOthers(t)
	for stamp, want := range map[string]int{"LogAppendTime": 1, "CreateTime": 0} {
		t.Run(stamp, func(t *testing.T) {
			onFake(t, func(t *testing.T, c *cluster) {
				if want > 0 {
					c.byBroker()
				}
				topic := c.topic(1)
				var all []*kgo.Record
				for i := range 6000 {
					r := sent(topic, "slow", -time.Hour, i)
					r.Timestamp = time.Now()
					all = append(all, r)
				}
				c.produce(c.cl, all...)
				time.Sleep(time.Minute)
				s := c.start(topic, byDevice, "TIDEMARK_EVENT_TIME=header:event-time")
				c.awaitDrained(s)
				if lines := s.voice.heard("clock-behind"); len(lines) != want {
					t.Errorf("%d lines: %q", len(lines), lines)
				}
				s.stop()
			})
		})
	}
}

// Devices whose clocks are right, read an hour later and not all at once, by the
// senders' clocks.
func TestBacklogIsNoClock(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		var all []*kgo.Record
		for i, r := range span(topic, 0, time.Now(), 0, 1, 6000, 2000) {
			r.Timestamp = time.Now()
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: "device", Value: fmt.Append(nil, i%2)})
			all = append(all, r)
		}
		c.fill(all)
		time.Sleep(time.Hour)
		s := c.start(topic, byDevice, "TIDEMARK_MEMORY=8MiB", "TIDEMARK_TRANSACTION_TIMEOUT=1m")
		s.link.delay.Store(int64(900 * time.Millisecond))
		if took := since(func() { c.awaitRead(s) }); took < 15*time.Second {
			t.Errorf("read in %v", took)
		}
		s.link.delay.Store(0)
		if lines := s.voice.heard("a producer's clock"); len(lines) > 0 {
			t.Errorf("%q", lines)
		}
		// The loop may be waiting for a broker yet, and what is shown is from before it had partitions.
		c.await("a status", func() bool { return s.of(topic, 0) != nil })
		if p := s.of(topic, 0); p.Finding != clocks.ReadLate {
			t.Errorf("%+v", p)
		}
		s.stop()
	})
}

// The status has the evidence, and the clock of this machine among it.
func TestStatusHasTheClocks(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		c.byBroker()
		topic := c.topic(1)
		s := c.start(topic, "TIDEMARK_EVENT_TIME=header:event-time", "TIDEMARK_MAX_FUTURE=0")
		send := func(off time.Duration) {
			for i := range 700 {
				c.produce(c.cl, sent(topic, "", off, i))
				time.Sleep(200 * time.Millisecond)
			}
		}
		send(-2 * time.Second)
		st := s.status()
		p := s.of(topic, 0)
		near := func(got, want time.Duration) bool { return (got - want).Abs() <= want.Abs()/50+50*time.Millisecond }
		if e := p.Clocks; e.Records < 200 || !e.Appended || !e.Fresh || !near(e.Written.Mean, 2*time.Second) || !near(e.Written.P99, 2*time.Second) ||
			!near(e.Age.Median, 2*time.Second) || !near(e.Transit.Mean, 0) || e.Age.Deviation > 50*time.Millisecond || p.Finding != clocks.Behind {
			t.Errorf("%+v", p)
		}
		if time.Since(st.At) > 2*time.Second || p.Watermark >= p.Newest || p.Next < 690 || st.Fetches.Count < 200 || st.Fetches.P99 > time.Second {
			t.Errorf("%+v", st)
		}
		s.jump.Store(int64(time.Hour))
		send(0)
		if p := s.of(topic, 0); p.Finding != clocks.OwnAhead || !near(p.Clocks.Transit.Median, time.Hour) {
			t.Errorf("a clock that jumped: %+v", p)
		}
		s.stop()
		if st := s.status(); len(st.Partitions) > 0 || st.Ready {
			t.Errorf("after the end: %+v", st)
		}
	})
}
