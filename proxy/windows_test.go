package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// tagsOf returns the headers of windows, which are the last of a record.
func tagsOf(r *kgo.Record) string {
	var tags []string
	for _, h := range r.Headers {
		if name, ours := strings.CutPrefix(h.Key, "tidemark-window-"); ours {
			tags = append(tags, name+"="+string(h.Value))
		}
	}
	return strings.Join(tags, " | ")
}

// Six records and the windows that they say they are in, late or not: all but
// the one that has no event time.
func TestKafkaWindowHeaders(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		const base = 900_000_000_000 // 1998-07-09T16:00Z, before the fake clock begins
		for i, at := range []int64{0, 1500, 999, 3000} {
			c.produce(c.cl, record(topic, 0, base+at, fmt.Sprint(i)))
		}
		c.produce(c.cl, record(topic, 0, base-1, "late"))
		lost := record(topic, 0, 0, "no time")
		lost.Headers[0].Value = []byte("noon")
		c.produce(c.cl, lost)
		s := c.start(topic, "TIDEMARK_MAX_OUT_OF_ORDERNESS=1s", "TIDEMARK_WINDOWS=tumbling:1s,hopping:2s/1s-100ms,sliding:500ms,tumbling:1d@America/New_York")
		c.awaitDrained(s)
		s.stop()
		const day = "tumbling:1d@America/New_York=899956800000,900043200000" // from 04:00 UTC
		var got []string
		for _, kind := range []string{".ordered", ".late"} {
			for _, r := range c.contents(topic + kind)[0] {
				got = append(got, string(r.Value)+": "+tagsOf(r))
			}
		}
		want := []string{
			"0: tumbling:1s=900000000000,900000001000 | hopping:2s/1s-100ms=899999998900,900000000900 899999999900,900000001900 | sliding:500ms=899999999500,900000000001 | " + day,
			"2: tumbling:1s=900000000000,900000001000 | hopping:2s/1s-100ms=899999999900,900000001900 900000000900,900000002900 | sliding:500ms=900000000499,900000001000 | " + day,
			"1: tumbling:1s=900000001000,900000002000 | hopping:2s/1s-100ms=899999999900,900000001900 900000000900,900000002900 | sliding:500ms=900000001000,900000001501 | " + day,
			"3: tumbling:1s=900000003000,900000004000 | hopping:2s/1s-100ms=900000001900,900000003900 900000002900,900000004900 | sliding:500ms=900000002500,900000003001 | " + day,
			"late: tumbling:1s=899999999000,900000000000 | hopping:2s/1s-100ms=899999998900,900000000900 899999999900,900000001900 | sliding:500ms=899999999499,900000000000 | " + day,
			"no time: ",
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if r := c.verify(s.cfg); r.Read != 6 || r.Bare != 0 {
			t.Errorf("%+v", r)
		}
	})
}

// Windows may be others after any restart, also while records are held: what is
// held has no headers yet, and nothing of them is in the commit.
func TestKafkaWindowsChange(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		w := workload{seed: 11, records: 1200, partitions: 2, drains: true}
		topic := c.topic(w.partitions)
		c.write(topic, &w)
		windows := []string{"", "tumbling:1m,sliding:1s", "hopping:3s/1s", "tumbling:1s", ""}
		for i, text := range windows {
			env := []string{"TIDEMARK_WINDOWS=" + text, "TIDEMARK_IDLE_TIMEOUT=0"}
			s := c.start(topic, env...)
			c.awaitRead(s)
			if i%2 == 0 {
				s.stop()
				if sum := c.verify(s.cfg); sum.Buffered == 0 {
					t.Error("nothing was held while the windows changed")
				}
			} else {
				s.crash()
			}
			for n := range w.partitions { // what moves on, and what is late
				for k := range 5 {
					c.produce(c.cl, record(topic, n, w.base.UnixMilli()+int64(10_000*(i+1)+k*1000), fmt.Sprintf("%d-%d", i, k)))
					w.records++
				}
				c.produce(c.cl, record(topic, n, w.base.UnixMilli()-100_000, "late"))
				w.records++
				w.late++
			}
		}
		s := c.start(topic)
		c.awaitDrained(s)
		s.stop()
		r := c.verify(s.cfg)
		if r.Read != int64(w.records) || r.Buffered != 0 || r.Bare != 0 {
			t.Errorf("%d read of %d, %d buffered, %d bare", r.Read, w.records, r.Buffered, r.Bare)
		}
		kinds := map[string]bool{}
		for _, records := range c.contents(topic + ".ordered") {
			for _, r := range records {
				var names []string
				for tag := range strings.SplitSeq(tagsOf(r), " | ") {
					name, _, _ := strings.Cut(tag, "=")
					names = append(names, name)
				}
				kinds[strings.Join(names, ",")] = true
			}
		}
		for _, text := range windows {
			if !kinds[text] {
				t.Errorf("no record has the windows %q", text)
			}
		}
	})
}

// A record that fills its source's limit keeps its windows where outputs are
// made by Tidemark, and loses them first where there is no room.
func TestKafkaWindowsOfLargeRecord(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		const windows = "TIDEMARK_WINDOWS=hopping:60s/1s"
		base := time.Now().Add(-time.Hour)
		large := timed("", base, 1, noise(100_000))
		limit := size(large)
		for _, narrow := range []bool{false, true} {
			topic := c.topic(1, fmt.Sprintf("max.message.bytes=%d", limit))
			if narrow {
				c.create(topic+".ordered", 1, fmt.Sprintf("max.message.bytes=%d", limit+100))
			}
			large := *large
			large.Topic = topic
			for _, r := range []*kgo.Record{timed(topic, base, 0, nil), &large, timed(topic, base, 9, nil)} {
				c.produce(c.cl, r) // in a batch of its own
			}
			s := c.start(topic, windows)
			c.awaitDrained(s)
			s.stop()
			if r := c.verify(s.cfg); r.Ordered != 3 || r.Bare != 0 {
				t.Errorf("narrow=%v: %+v", narrow, r)
			}
			for i, r := range c.contents(topic + ".ordered")[0] {
				has, want := tagsOf(r) != "", i != 1 || !narrow
				if has != want || header(r, "tidemark-watermark") == "-" || header(r, "tidemark-source-offset") == "-" {
					t.Errorf("narrow=%v: record %d: windows %v, want %v; watermark %s", narrow, i, has, want, header(r, "tidemark-watermark"))
				}
			}
		}
	})
}
