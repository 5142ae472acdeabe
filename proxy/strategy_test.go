package proxy

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Whatever the strategy, a sidecar that crashes at any request puts out the bytes
// of one that never did.
func TestKafkaStrategiesCrashAnywhere(t *testing.T) {
	besideOthers(t)
	for name, env := range map[string][]string{
		"window-min": {"TIDEMARK_MAX_OUT_OF_ORDERNESS=", "TIDEMARK_WATERMARK=window-min", "TIDEMARK_WATERMARK_WINDOW=400ms", "TIDEMARK_WATERMARK_LATENESS=100ms"},
		"punctuated": {"TIDEMARK_MAX_OUT_OF_ORDERNESS=", "TIDEMARK_WATERMARK=punctuated"},
		"adaptive":   {"TIDEMARK_WATERMARK=adaptive", "TIDEMARK_TARGET_LATE=0.02", "TIDEMARK_MIN_OUT_OF_ORDERNESS=10ms"},
	} {
		for seed := range seeds(2, 1) {
			t.Run(fmt.Sprint(name, " seed ", seed), func(t *testing.T) {
				onKafka(t, func(t *testing.T, c *cluster) {
					w := workload{seed: seed, records: 2000, partitions: 3, transactions: true, pause: 60 * time.Millisecond, markers: true}
					topic := c.topic(w.partitions)
					env := append(env, noDrain, "TIDEMARK_COMMIT_INTERVAL=20ms")
					s := c.crashing(topic, seed, c.writing(topic, &w), env...)
					c.awaitRead(s)
					s.stop()
					r := c.verify(s.cfg)
					if r.Read != int64(w.records) || r.Ordered == 0 || r.Late["behind-watermark"] == 0 || r.Late["future"] != w.future || r.Late["invalid-time"] != w.invalid {
						t.Errorf("%d read, %d ordered, late %v", r.Read, r.Ordered, r.Late)
					}

					c.sameBeside(s, env...)
				})
			})
		}
	}
}

// Markers, by hand: each is heeded after its own record, one that cannot be read
// and one from the future are told of and move nothing.
func TestKafkaPunctuated(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		base := time.Now().Add(-time.Hour).UnixMilli()
		marked := func(at int64, value, marker string) *kgo.Record {
			r := record(topic, 0, base+at, value)
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: "Upstream:Mark", Value: []byte(marker)})
			return r
		}
		for _, r := range []*kgo.Record{
			record(topic, 0, base+300, "300"), record(topic, 0, base+100, "100"),
			marked(200, "200", strconv.FormatInt(base+250, 10)), // 100 and 200 come out
			record(topic, 0, base+220, "late"),
			marked(260, "260", "soon"),
			marked(270, "270", strconv.FormatInt(base+int64(24*time.Hour/time.Millisecond), 10)),
		} {
			c.produce(c.cl, r)
		}
		s := c.start(topic, "TIDEMARK_MAX_OUT_OF_ORDERNESS=", "TIDEMARK_WATERMARK=punctuated", "TIDEMARK_WATERMARK_HEADER=Upstream:Mark", noDrain)
		c.awaitRead(s)
		s.stop()
		var got []string
		for _, r := range c.contents(topic + ".ordered")[0] {
			at, _ := strconv.ParseInt(header(r, "tidemark-watermark"), 10, 64)
			got = append(got, fmt.Sprintf("%s@%d", r.Value, at-base))
		}
		if want := "[100@199 200@249]"; fmt.Sprint(got) != want {
			t.Errorf("put out %v, want %s", got, want)
		}
		if r := c.verify(s.cfg); r.Buffered != 3 || r.Late["behind-watermark"] != 1 {
			t.Errorf("%d buffered, late %v", r.Buffered, r.Late)
		}
		if n := s.proc.reporter.Snapshot().Record; n != 2 {
			t.Errorf("%d errors of class record, want 2", n)
		}

		// Those of records that are read again have been counted.
		s = c.start(topic, "TIDEMARK_MAX_OUT_OF_ORDERNESS=", "TIDEMARK_WATERMARK=punctuated", "TIDEMARK_WATERMARK_HEADER=Upstream:Mark", noDrain)
		c.produce(c.cl, record(topic, 0, base+400, "400"))
		c.awaitRead(s)
		s.stop()
		if n := s.proc.reporter.Snapshot().Record; n != 0 {
			t.Errorf("%d errors of class record after a restart, want none", n)
		}
	})
}
