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

// Event times change with a new epoch, or while nothing is held, whatever else there is:
// outputs without headers, repeats, punctuation, deleted beginnings, a new partition.
func TestKafkaEventTimeChangesAmid(t *testing.T) {
	besideOthers(t)
	const header, stamp = "TIDEMARK_EVENT_TIME=header:event-time", "TIDEMARK_EVENT_TIME=timestamp"
	delete := func(which ...string) func(*cluster, string) {
		return func(c *cluster, topic string) {
			for _, suffix := range which {
				n := int64(len(c.contents(topic + suffix)[0]))
				if _, err := c.adm.DeleteRecords(c.ctx, deletedUpTo(topic+suffix, n/3, c)); err != nil {
					c.t.Fatal(err)
				}
			}
		}
	}
	ways := []string{"at rest", "new epoch", "back by a new epoch"}
	for i, tt := range []struct {
		name  string
		env   []string
		after func(c *cluster, topic string) // before verify
	}{
		{"plain", nil, nil},
		{"no headers", []string{"TIDEMARK_HEADERS=none"}, nil},
		{"watermark alone", []string{"TIDEMARK_HEADERS=watermark"}, nil},
		{"all headers", []string{"TIDEMARK_HEADERS=watermark,source-offset,event-time"}, nil},
		{"windows", []string{"TIDEMARK_WINDOWS=tumbling:1s"}, nil},
		{"repeats late", []string{"TIDEMARK_DEDUP=key"}, nil},
		{"repeats dropped", []string{"TIDEMARK_DEDUP=key", "TIDEMARK_DUPLICATES=drop"}, nil},
		{"repeats dropped, no headers", []string{"TIDEMARK_DEDUP=key", "TIDEMARK_DUPLICATES=drop", "TIDEMARK_HEADERS=none"}, nil},
		{"punctuated", []string{"TIDEMARK_WATERMARK=punctuated", "TIDEMARK_MAX_OUT_OF_ORDERNESS="}, nil},
		{"adaptive", []string{"TIDEMARK_WATERMARK=adaptive", "TIDEMARK_TARGET_LATE=0.01"}, nil},
		{"re-anchored", []string{"TIDEMARK_REANCHOR_AFTER=3"}, nil},
		{"at least once", []string{"TIDEMARK_DELIVERY=at-least-once"}, nil},
		{"source's beginning deleted", nil, delete("")},
		{"outputs' beginnings deleted", nil, delete(".ordered", ".late")},
		{"all beginnings deleted", nil, delete("", ".ordered", ".late")},
		{"repeats dropped, all beginnings deleted", []string{"TIDEMARK_DEDUP=key", "TIDEMARK_DUPLICATES=drop"}, delete("", ".ordered", ".late")},
		{"no headers, source's beginning deleted", []string{"TIDEMARK_HEADERS=none"}, delete("")},
	} {
		hows := ways
		if testing.Short() {
			hows = ways[i%3 : i%3+1]
		}
		for _, how := range hows {
			t.Run(tt.name+", "+how, func(t *testing.T) {
				onFake(t, func(t *testing.T, c *cluster) {
					topic := c.topic(1)
					base := time.Now().Add(-time.Hour).Truncate(time.Second)
					rnd := rand.New(rand.NewPCG(2, 2))
					n := 0
					write := func() {
						for range 150 {
							r := record(topic, 0, base.Add(time.Duration(n)*50*time.Millisecond-time.Duration(rnd.IntN(3000))*time.Millisecond).UnixMilli(), fmt.Sprint(n))
							r.Timestamp = base.Add(-time.Duration(n)*20*time.Millisecond + time.Duration(rnd.IntN(9000))*time.Millisecond)
							r.Key = fmt.Append(nil, n)
							if rnd.IntN(20) == 0 {
								r.Headers = append(r.Headers, kgo.RecordHeader{Key: "watermark", Value: fmt.Append(nil, base.Add(time.Duration(n-40)*20*time.Millisecond).UnixMilli())})
							}
							rs := []*kgo.Record{r}
							if rnd.IntN(6) == 0 {
								again := *r
								rs = append(rs, &again)
							}
							c.produce(c.cl, rs...)
							n++
						}
					}
					write()
					env := append(slices.Clone(tt.env), stamp)
					s := c.start(topic, env...)
					c.awaitDrained(s)
					s.stop()
					env = append(slices.Clone(tt.env), header)
					now := c.config(topic, env...)
					switch how {
					case "new epoch":
						c.commit(now, int64(n), "")
						env = append(env, newEpoch)
					case "back by a new epoch":
						c.commit(now, 60, "")
						env = append(env, newEpoch)
					}
					write()
					s = c.start(topic, env...)
					c.awaitRead(s)
					s.crash()
					s = c.start(topic, env...)
					c.awaitDrained(s)
					s.stop()
					if tt.after != nil {
						tt.after(c, topic)
					}
					r := c.finds(now)
					for kind, f := range r.Faults {
						t.Errorf("%d %s: %+v", f.Total, kind, f.First[0])
					}
					if r.Unjudged[verify.GapOtherTimes] == 0 {
						t.Errorf("everything was judged: %+v", r)
					}
				})
			})
		}
	}
}
