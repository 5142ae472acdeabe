package proxy

import (
	"fmt"
	"math"
	"testing"
	"time"
)

// TestAckLimit: what is put out follows what was acknowledged in time.
func TestAckLimit(t *testing.T) {
	l := ackLimit{timeout: 16 * time.Second} // 4 s are the target
	for _, step := range []struct {
		bytes int
		wait  time.Duration
		less  bool
		most  int
	}{
		{1 << 22, 8 * time.Second, false, math.MaxInt},
		{1 << 22, 16 * time.Second, true, 1 << 20},
		{1 << 20, 16 * time.Second, true, 1 << 18},
		{1 << 20, 9 * time.Second, false, 1 << 18}, // it had been put out before
		{1 << 18, 5 * time.Second, false, 1 << 18},
		{1 << 10, time.Millisecond, false, 1 << 18}, // too little to tell
		{0, time.Minute, false, 1 << 18},
		{1 << 18, 3 * time.Second, false, 1 << 19},
		{1 << 19, 10 * time.Second, true, 1 << 19 * 4 / 10},
		{1 << 19 * 4 / 10, 9 * time.Second, false, 1 << 19 * 4 / 10}, // less did not help
		{1 << 10, time.Hour, true, leastUnacked},
		{leastUnacked, time.Hour, false, leastUnacked},
	} {
		if less := l.took(step.bytes, step.wait); less != step.less || l.bytes() != step.most {
			t.Errorf("%d bytes in %v: less %t, at most %d; want %t, %d", step.bytes, step.wait, less, l.bytes(), step.less, step.most)
		}
	}
	for range 20 {
		l.took(l.bytes(), time.Millisecond)
	}
	if l.bytes() != math.MaxInt {
		t.Errorf("bounded to %d for ever", l.bytes())
	}
}

// TestSlowAcknowledgementsAreLearnt: where a transaction with all that a backlog lets out
// takes longer than it may last, less is put out in each, and the backlog is done.
func TestSlowAcknowledgementsAreLearnt(t *testing.T) {
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
