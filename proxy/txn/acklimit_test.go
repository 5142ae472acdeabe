package txn

import (
	"math"
	"testing"
	"time"
)

// TestAckLimit: what is put out follows what was acknowledged in time.
func TestAckLimit(t *testing.T) {
	l := AckLimit{Timeout: 16 * time.Second} // 4 s are the target
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
