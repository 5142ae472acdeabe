package proxy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit/verify"
)

// Whatever of the configuration has changed in the midst of the outputs: verify finds nothing
// wrong, or says from where on to judge, and finds nothing wrong then.
func TestKafkaVerifyTwoLaws(t *testing.T) {
	besideOthers(t)
	for _, tt := range []struct {
		name          string
		before, after []string
		// with is the configuration to verify with where that of now is no measure for what came
		// out before, and --from does not help.
		with []string
	}{
		{"bound", []string{"TIDEMARK_MAX_OUT_OF_ORDERNESS=10s"}, []string{"TIDEMARK_MAX_OUT_OF_ORDERNESS=1s"}, nil},
		{"bound wider", []string{"TIDEMARK_MAX_OUT_OF_ORDERNESS=1s"}, []string{"TIDEMARK_MAX_OUT_OF_ORDERNESS=10s"}, nil},
		{"adaptive", []string{"TIDEMARK_WATERMARK=adaptive", "TIDEMARK_TARGET_LATE=0.01"}, nil, nil},
		{"punctuated", []string{"TIDEMARK_WATERMARK=punctuated", "TIDEMARK_MAX_OUT_OF_ORDERNESS="}, nil, nil},
		{"to punctuated", nil, []string{"TIDEMARK_WATERMARK=punctuated", "TIDEMARK_MAX_OUT_OF_ORDERNESS="}, nil},
		{"dedup", nil, []string{"TIDEMARK_DEDUP=bytes"}, nil},
		{"dedup drop", nil, []string{"TIDEMARK_DEDUP=bytes", "TIDEMARK_DUPLICATES=drop"}, nil},
		{"dedup off", []string{"TIDEMARK_DEDUP=bytes"}, nil, nil},
		{"drop to late", []string{"TIDEMARK_DEDUP=bytes", "TIDEMARK_DUPLICATES=drop"}, []string{"TIDEMARK_DEDUP=bytes"}, []string{"TIDEMARK_DEDUP=bytes", "TIDEMARK_DUPLICATES=drop"}},
		{"late to drop", []string{"TIDEMARK_DEDUP=bytes"}, []string{"TIDEMARK_DEDUP=bytes", "TIDEMARK_DUPLICATES=drop"}, nil},
		{"other identity", []string{"TIDEMARK_DEDUP=bytes"}, []string{"TIDEMARK_DEDUP=key"}, nil},
		{"at least once before", []string{"TIDEMARK_DELIVERY=at-least-once"}, nil, nil},
		{"at least once after", nil, []string{"TIDEMARK_DELIVERY=at-least-once"}, nil},
		{"windows", []string{"TIDEMARK_WINDOWS=tumbling:1s"}, []string{"TIDEMARK_WINDOWS=tumbling:2s"}, nil},
		{"headers none before", []string{"TIDEMARK_HEADERS=none"}, nil, []string{"TIDEMARK_HEADERS=none"}},
		{"headers none after", nil, []string{"TIDEMARK_HEADERS=none"}, nil},
		{"event-time header", nil, []string{"TIDEMARK_HEADERS=watermark,source-offset,event-time"}, nil},
		{"reanchor", []string{"TIDEMARK_REANCHOR_AFTER=2", "TIDEMARK_MAX_OUT_OF_ORDERNESS=15ms"}, nil, nil},
		{"future", []string{"TIDEMARK_MAX_FUTURE=1s"}, []string{"TIDEMARK_MAX_FUTURE=0"}, nil},
	} {
		for _, how := range []string{"restart", "new epoch"} {
			t.Run(tt.name+", "+how, func(t *testing.T) {
				onFake(t, func(t *testing.T, c *cluster) {
					topic := c.topic(1)
					base := time.Now().Add(-time.Hour).Truncate(time.Second)
					rnd := rand.New(rand.NewPCG(1, 1))
					n := 0
					write := func() {
						for range 200 {
							at := base.Add(time.Duration(n)*50*time.Millisecond - time.Duration(rnd.IntN(3000))*time.Millisecond).UnixMilli()
							r := record(topic, 0, at, fmt.Sprint(n))
							r.Key = fmt.Append(nil, n)
							rs := []*kgo.Record{r}
							if rnd.IntN(5) == 0 {
								again := *r
								rs = append(rs, &again)
							}
							c.produce(c.cl, rs...)
							n++
						}
					}
					write()
					s := c.start(topic, tt.before...)
					c.awaitRead(s)
					s.crash()
					s = c.start(topic, tt.before...)
					c.awaitDrained(s)
					s.stop()
					after := tt.after
					now := c.config(topic, after...)
					if how == "new epoch" {
						c.forgotten(now)
						after = append(slices.Clip(after), newEpoch)
					}
					write()
					s = c.start(topic, after...)
					c.awaitRead(s)
					s.crash()
					s = c.start(topic, after...)
					c.awaitDrained(s)
					s.stop()
					r := c.finds(now)
					if from, ok := r.Times.HintFrom(); ok { // what verify says to do
						from.Told = from.Epoch > 0
						if r = c.findings(now, from); r.Unjudged[verify.GapBeforeFrom] == 0 {
							t.Errorf("from %+v everything was judged", from)
						}
					}
					if tt.with != nil {
						r = c.finds(c.config(topic, tt.with...))
					}
					for kind, f := range r.Faults {
						t.Errorf("%d %s: %+v", f.Total, kind, f.First[0])
					}
				})
			})
		}
	}
}
