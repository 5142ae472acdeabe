package status

import (
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/emit"
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
		got.Behind = Behind{} // another test's
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

// TestBehind: a leap is to blame if most records are late because of it and most of the distance
// is, since the last report and lately.
func TestBehind(t *testing.T) {
	for _, c := range []struct {
		name         string
		leapt, other int
		by, otherBy  time.Duration
		mean         time.Duration
		want         bool
	}{
		{"none is late", 0, 0, 0, 0, 0, false},
		{"all for a leap", 20, 0, time.Second, 0, time.Second, true},
		{"most", 20, 10, time.Second, time.Second, time.Second, true},
		{"half", 10, 10, time.Second, time.Second, time.Second, false},
		{"a few of many", 89, 1132, 1300 * time.Millisecond, 12 * time.Second, 11220 * time.Millisecond, false},
		{"most, and a fraction of the distance", 20, 10, time.Second, time.Hour, 20*time.Minute + 666*time.Millisecond, false},
		{"years", 0, 1000, 0, 290 * 365 * 24 * time.Hour, longest, false},
	} {
		l := Ledgers{}.Open(emit.Source{Topic: "t"}, 0)
		judge := func(n int, by time.Duration, leapt bool) {
			for i := range n {
				l.Judged(0, 1, reorder.BehindWatermark)
				l.Late(reorder.BehindWatermark, int64(i), by)
				if leapt {
					l.Leapt(by)
				}
			}
		}
		judge(1000, time.Hour, !c.want) // reported before
		l.Commit()
		l.LateReported(reorder.BehindWatermark, time.Now())
		judge(50, time.Hour, !c.want)
		l.Abort()
		judge(c.leapt, c.by, true)
		judge(c.other, c.otherBy, false)
		l.Commit()
		s, _ := l.LateToReport(reorder.BehindWatermark, time.Now())
		n := int64(c.leapt + c.other)
		if b := s.Behind; b.Records != n || b.Leapt != c.want || n > 0 && (b.Read != n || (b.Mean-c.mean).Abs() > time.Millisecond) {
			t.Errorf("%s: %+v", c.name, b)
		}
	}
}
