package proxy

import (
	"fmt"
	"testing"
)

func TestKafkaStraightThrough(t *testing.T) {
	besideOthers(t)
	for _, delivery := range []string{"exactly-once", "at-least-once"} {
		t.Run(delivery, func(t *testing.T) {
			onKafka(t, func(t *testing.T, c *cluster) {
				w := workload{seed: 1, records: 3000, partitions: 3, transactions: true}
				topic := c.topic(w.partitions)
				c.write(topic, &w)
				s := c.start(topic, "TIDEMARK_DELIVERY="+delivery)
				c.awaitDrained(s)
				s.stop()
				r := c.holds(s.cfg, &w)
				if r.Buffered != 0 || r.Repeated != 0 || w.late == 0 {
					t.Errorf("%d buffered, %d repeated, %d late", r.Buffered, r.Repeated, w.late)
				}
			})
		})
	}
}

// Six records, bound 10 ms. The watermark in a header looks ahead: it is just
// below the next record of the same release, and on the last one just below
// the first time that the release did not cover.
func TestKafkaHeadersByHand(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		const base = 900_000_000_000 // before the fake clock begins
		for i, at := range []int64{100, 103, 101, 120, 99, 140} {
			c.produce(c.cl, record(topic, 0, base+at, fmt.Sprint(i)))
		}
		s := c.start(topic, "TIDEMARK_MAX_OUT_OF_ORDERNESS=10ms", "TIDEMARK_IDLE_TIMEOUT=0",
			"TIDEMARK_HEADERS=watermark,source-offset,event-time")
		c.awaitRead(s)
		s.stop()
		var got []string
		for _, kind := range []string{".ordered", ".late"} {
			for _, r := range c.contents(topic + kind)[0] {
				line := kind + " " + string(r.Value)
				for _, h := range r.Headers {
					if h.Key != "tidemark-late-at" {
						line += fmt.Sprintf(" %s=%s", h.Key, h.Value)
					}
				}
				got = append(got, line)
			}
		}
		// Offset 3, at 120, moves the watermark to 110 - 1 ns; offset 4, at
		// 99, is behind it by 10 whole ms; offset 5 moves it to 130 - 1 ns.
		// The records at 100, 101 and 103 are one release, the one at 120 the
		// next, and the one at 140 stays: nothing has passed it.
		want := []string{
			".ordered 0 event-time=900000000100 tidemark-watermark=900000000100 tidemark-source-offset=0 tidemark-event-time=900000000100",
			".ordered 2 event-time=900000000101 tidemark-watermark=900000000102 tidemark-source-offset=2 tidemark-event-time=900000000101",
			".ordered 1 event-time=900000000103 tidemark-watermark=900000000109 tidemark-source-offset=1 tidemark-event-time=900000000103",
			".ordered 3 event-time=900000000120 tidemark-watermark=900000000129 tidemark-source-offset=3 tidemark-event-time=900000000120",
			".late 4 event-time=900000000099 tidemark-late-reason=behind-watermark tidemark-late-by-ms=10" +
				" tidemark-watermark=900000000109 tidemark-source-topic=" + topic +
				" tidemark-source-partition=0 tidemark-source-offset=4",
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got\n%q\nwant\n%q", got, want)
		}
		if r := c.verify(s.cfg); r.Buffered != 1 || r.Read != 6 {
			t.Errorf("%d buffered of %d", r.Buffered, r.Read)
		}
	})
}
