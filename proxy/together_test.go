package proxy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// All at once: event times by schemas, of which some are unknown, a registry that is
// away now and then, repeats, markers, windows and alignment, whatever the strategy. A sidecar that crashes at any request
// puts out the bytes of one that never did.
func TestTogether(t *testing.T) {
	besideOthers(t)
	for name, env := range map[string][]string{
		"window-min": {"TIDEMARK_MAX_OUT_OF_ORDERNESS=", "TIDEMARK_WATERMARK=window-min", "TIDEMARK_WATERMARK_WINDOW=15ms", "TIDEMARK_WATERMARK_LATENESS=3ms"},
		"punctuated": {"TIDEMARK_MAX_OUT_OF_ORDERNESS=", "TIDEMARK_WATERMARK=punctuated"},
		"adaptive":   {"TIDEMARK_WATERMARK=adaptive", "TIDEMARK_TARGET_LATE=0.05"},
	} {
		for seed := range seeds(2, 1) {
			t.Run(fmt.Sprint(name, " seed ", seed), func(t *testing.T) {
				withBooks(t, onFake, func(t *testing.T, c *cluster, b *books) {
					topic := c.topic(3)
					written := make(chan struct{})
					c.writers.Go(func() {
						defer close(written)
						c.writeAll(topic, seed, b)
					})
					env := append(slices.Clone(env), needsBooks, forgetful, "TIDEMARK_EVENT_TIME=avro:ts", "TIDEMARK_DEDUP=bytes",
						"TIDEMARK_DUPLICATES="+[]string{"late", "drop"}[seed%2], "TIDEMARK_WINDOWS=tumbling:1s,sliding:50ms",
						"TIDEMARK_IDLE_TIMEOUT=24h", "TIDEMARK_MAX_DRIFT=1ms", "TIDEMARK_COMMIT_INTERVAL=20ms")
					s := c.crashing(topic, seed, written, env...)
					c.awaitRead(s)
					s.stop()
					r := c.verify(s.cfg)
					if r.Late["duplicate"]+r.Dropped == 0 || r.Late["behind-watermark"] == 0 || r.Late["invalid-time"] == 0 || r.Ordered == 0 {
						t.Errorf("%d ordered, late %v, %d dropped", r.Ordered, r.Late, r.Dropped)
					}
					c.sameBeside(s, env...)
				})
			})
		}
	}
}

// writeAll writes to three partitions, bit by bit, while the registry comes and goes.
func (c *cluster) writeAll(topic string, seed uint64, b *books) {
	defer b.away.Store(false)
	rnd := rand.New(rand.NewPCG(seed, 1))
	base := time.Now().Add(-time.Hour).UnixMilli()
	var all [3][]*kgo.Record
	for i := range int64(700) {
		for p := range all {
			if n := len(all[p]); n > 8 && rnd.IntN(4) == 0 {
				again := *all[p][n-1-rnd.IntN(8)]
				all[p] = append(all[p], &again)
				continue
			}
			id := uint32(avroID)
			if rnd.IntN(20) == 0 {
				id = unknownID
			}
			r := valued(topic, int32(p), inAvro(id, base+i/3-rnd.Int64N(20), fmt.Sprint(i)))
			marker := strconv.FormatInt(base+i/3-18, 10)
			if rnd.IntN(3) == 0 {
				marker = "soon"
			}
			if rnd.IntN(10) == 0 {
				r.Headers = append(r.Headers, kgo.RecordHeader{Key: "watermark", Value: []byte(marker)})
			}
			all[p] = append(all[p], r)
		}
	}
	for p := range all {
		end := valued(topic, int32(p), inAvro(avroID, base+1000, "end"))
		end.Headers = append(end.Headers, kgo.RecordHeader{Key: "watermark", Value: strconv.AppendInt(nil, base+500, 10)})
		all[p] = append(all[p], end)
	}
	for slices.ContainsFunc(all[:], func(rs []*kgo.Record) bool { return len(rs) > 0 }) {
		p := rnd.IntN(len(all))
		size := min(1+rnd.IntN(60), len(all[p]))
		c.produce(c.cl, all[p][:size]...)
		all[p] = all[p][size:]
		b.away.Store(rnd.IntN(4) == 0)
		time.Sleep(40 * time.Millisecond)
	}
}
