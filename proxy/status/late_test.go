package status

import (
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// TestLateIsReported: late records are reported with numbers that are committed, some behind
// the watermark are not worth a line, and who does not act is told less and less often.
func TestLateIsReported(t *testing.T) {
	var l Ledger
	now := time.Now()
	judge := func(v reorder.Verdict, n int, offset int64, off time.Duration) {
		for i := range n {
			l.Judged(watermark.None, 0, v)
			if v != reorder.OnTime {
				l.Late(v, offset+int64(i), off)
			}
		}
	}
	told := func(v reorder.Verdict, want LateStretch) {
		t.Helper()
		got, ok := l.LateToReport(v, now)
		if ok != (want.Records > 0) || ok && got != want {
			t.Fatalf("%v: %+v, want %+v", v, got, want)
		}
		if ok {
			l.LateReported(v, now)
		}
	}
	judge(reorder.Future, 1, 7, time.Minute)
	told(reorder.Future, LateStretch{}) // not committed
	l.Abort()
	l.Commit()
	told(reorder.Future, LateStretch{})
	judge(reorder.OnTime, 90, 0, 0)
	judge(reorder.Future, 1, 7, time.Minute)
	judge(reorder.Future, 1, 9, time.Hour)
	judge(reorder.BehindWatermark, 9, 20, time.Second)
	l.Commit()
	told(reorder.BehindWatermark, LateStretch{}) // too few
	told(reorder.Future, LateStretch{Records: 2, First: 7, Off: time.Minute, Most: time.Hour, Read: 101, Total: 2})
	told(reorder.Future, LateStretch{})
	judge(reorder.BehindWatermark, 1, 40, time.Minute)
	l.Commit()
	told(reorder.BehindWatermark, LateStretch{Records: 10, First: 20, Off: time.Second, Most: time.Minute, Read: 102, Total: 10})
	judge(reorder.OnTime, 10_000, 0, 0)
	judge(reorder.BehindWatermark, 50, 50, time.Second)
	l.Commit()
	now = now.Add(time.Hour)
	told(reorder.BehindWatermark, LateStretch{}) // half a percent
	lines := 0
	for range 24 * 3600 {
		judge(reorder.Overflow, 1, 5, 0)
		l.Commit()
		if _, ok := l.LateToReport(reorder.Overflow, now); ok {
			l.LateReported(reorder.Overflow, now)
			lines++
		}
		now = now.Add(time.Second)
	}
	if lines < 25 || lines > 32 {
		t.Errorf("%d lines in a day", lines)
	}
}
