package proxy

import (
	"fmt"
	"testing"
	"time"
)

// TestSlowAcknowledgementsAreLearnt: where a transaction with all that a backlog lets out
// takes longer than it may last, less is put out in each, and the backlog is done.
func TestSlowAcknowledgementsAreLearnt(t *testing.T) {
	besideOthers(t)
	for _, slow := range []time.Duration{1500 * time.Millisecond, 4 * time.Second} {
		t.Run(fmt.Sprint(slow), func(t *testing.T) {
			onFake(t, func(t *testing.T, c *cluster) {
				const records = 60_000
				topic := c.topic(1)
				s := c.start(topic) // a transaction may last 10 s
				c.await("the first commit", func() bool { return len(c.commits(s.cfg)) > 0 })
				c.slowAcks(topic, slow)
				c.backlog(topic, 0, time.Now().Add(-time.Hour).UnixMilli(), records)
				c.awaitFor(10*time.Minute, "the backlog to come out", func() bool { s.lives(); return c.drained(s.cfg) })
				if n := s.proc.reporter.Sessions.Load(); n > 2 {
					t.Errorf("transactions timed out %d times", n-1)
				}
				s.stop()
				if r := c.verify(s.cfg); r.Ordered != records {
					t.Errorf("%d records came out", r.Ordered)
				}
			})
		})
	}
}
