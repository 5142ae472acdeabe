package proxy

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/status"
)

// One instance takes over what others held with more memory. It reads the partitions
// again one after another, never holds much more than it may, says which of them wait,
// and loses nothing; also when it is killed in the midst of it.
func TestTakeoverKeepsToTheMemory(t *testing.T) {
	besideOthers(t)
	for _, crash := range []bool{false, true} {
		t.Run(fmt.Sprint("crash=", crash), func(t *testing.T) {
			onFake(t, func(t *testing.T, c *cluster) {
				const partitions, each, size = 4, 800, 1000
				topic := c.topic(partitions)
				base := time.Now().Add(-5 * time.Hour).UnixMilli()
				var rs []*kgo.Record
				for i := range partitions * each {
					r := record(topic, int32(i%partitions), base+int64(i), fmt.Sprint(i))
					r.Value = bytes.Repeat([]byte{byte(i)}, size)
					rs = append(rs, r)
				}
				c.produce(c.cl, rs...)
				env := []string{noDrain, "TIDEMARK_MAX_OUT_OF_ORDERNESS=20m"}
				s := c.start(topic, append(env, "TIDEMARK_MEMORY=8MiB")...)
				c.awaitRead(s)
				s.stop()
				const budget = 1 << 20
				s = c.start(topic, append(env, fmt.Sprint("TIDEMARK_MEMORY=", budget, "B"))...)
				var most int64
				told := func() bool { return strings.Contains(s.voice.String(), "a partition waits for memory") }
				watch := func() bool {
					st := s.status()
					most = max(most, st.Bytes)
					for _, p := range st.Partitions {
						if p.Waiting && (p.State != status.Recovering || !strings.Contains(p.Hold.Words, "waits for memory") || st.Ready) {
							t.Errorf("one that waits is %s: %s; ready: %v", p.State, p.Hold.Words, st.Ready)
						}
					}
					return st.Ready
				}
				c.await("partitions that wait", func() bool { watch(); return told() })
				if crash {
					s.crash()
					s = c.start(topic, append(env, fmt.Sprint("TIDEMARK_MEMORY=", budget, "B"))...)
				}
				c.await("all read again", watch)
				if largest := int64(each * (size + 200)); most > budget+largest {
					t.Errorf("%d bytes were held of %d", most, budget)
				}
				s.stop()
				if r := c.verify(s.cfg); r.Read != partitions*each || r.Ordered+r.Buffered != r.Read {
					t.Errorf("%d read, %d ordered, %d buffered, late %v", r.Read, r.Ordered, r.Buffered, r.Late)
				}
			})
		})
	}
}
