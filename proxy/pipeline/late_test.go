package pipeline

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// TestLateHint: the likely cause is one that the numbers speak for.
func TestLateHint(t *testing.T) {
	const zones, machine, producers = "a difference of time zones", "check the clock of this machine first", "TIDEMARK_CLOCK_HEADER names"
	for name, c := range map[string]struct {
		v     reorder.Verdict
		s     status.LateStretch
		env   string
		words string
	}{
		"an hour ahead":            {reorder.Future, status.LateStretch{Records: 5, Read: 5, Off: time.Hour - 3*time.Second}, "", zones},
		"five and a half":          {reorder.Future, status.LateStretch{Records: 5, Read: 500, Off: 5*time.Hour + 30*time.Minute}, "", "5h30m0s, " + zones},
		"a quarter is no zone":     {reorder.Future, status.LateStretch{Records: 5, Read: 500, Off: 15 * time.Minute}, "", producers},
		"a day is no zone":         {reorder.Future, status.LateStretch{Records: 5, Read: 500, Off: 24 * time.Hour}, "", producers},
		"nearly an hour":           {reorder.Future, status.LateStretch{Records: 5, Read: 500, Off: 58 * time.Minute}, "", producers},
		"all of them":              {reorder.Future, status.LateStretch{Records: 9, Read: 10, Off: 4 * time.Second}, "", machine},
		"memory":                   {reorder.Overflow, status.LateStretch{Records: 1, Read: 1}, "", "TIDEMARK_MEMORY"},
		"repeats":                  {reorder.Duplicate, status.LateStretch{Records: 1, Read: 1}, "", "TIDEMARK_DUPLICATES"},
		"behind":                   {reorder.BehindWatermark, status.LateStretch{Records: 10, Read: 100}, "", "raise TIDEMARK_MAX_OUT_OF_ORDERNESS"},
		"nearly all behind":        {reorder.BehindWatermark, status.LateStretch{Records: 90, Read: 100}, "", "TIDEMARK_REANCHOR_AFTER"},
		"behind with window-min":   {reorder.BehindWatermark, status.LateStretch{Records: 10, Read: 100}, "TIDEMARK_WATERMARK=window-min", "TIDEMARK_WATERMARK_WINDOW"},
		"behind with punctuations": {reorder.BehindWatermark, status.LateStretch{Records: 10, Read: 100}, "TIDEMARK_WATERMARK=punctuated", "announce more than they keep"},
	} {
		env := []string{}
		if c.env != "" {
			env = []string{"TIDEMARK_MAX_OUT_OF_ORDERNESS=", c.env}
		}
		x := newPath(t, reorder.Fresh(0, -1, 0), env...)
		if got := x.lateHint(c.v, &c.s); !strings.Contains(got, c.words) {
			t.Errorf("%s: %q, want %q", name, got, c.words)
		}
	}
}

// TestOff: how far a record is off is counted from what it was judged by.
func TestOff(t *testing.T) {
	for v, want := range map[reorder.Verdict]time.Duration{
		reorder.BehindWatermark: 3, reorder.Overflow: 3, reorder.Future: 2, reorder.InvalidTime: 0, reorder.Duplicate: 0,
	} {
		if got := off(v, watermark.Time(7), watermark.Time(10), watermark.Time(5)); got != want {
			t.Errorf("%v: %d, want %d", v, got, want)
		}
		if got := off(v, watermark.None, 10, 5); got != 0 {
			t.Errorf("%v without an event time: %d", v, got)
		}
	}
}

// TestEpochsBeginOften: the third new epoch within a minute is often.
func TestEpochsBeginOften(t *testing.T) {
	var e epochs
	for i, c := range []struct {
		at    time.Duration
		often bool
	}{{1, false}, {20, false}, {40, true}, {90, false}, {95, true}, {200, false}} {
		if got := e.often(watermark.Instant(c.at * time.Second)); got != c.often {
			t.Errorf("epoch %d, at %d s: often is %v", i, c.at, got)
		}
	}
}

// TestEvidenceMakesNoGarbage: what is counted of every record for the log leaves none.
func TestEvidenceMakesNoGarbage(t *testing.T) {
	x := newPath(t, reorder.Fresh(0, -1, 0), "TIDEMARK_EVENT_TIME=timestamp")
	r := &kgo.Record{Topic: "raw", Timestamp: time.Unix(1_700_000_000, 0)}
	at, offset := watermark.Time(1_700_000_000*time.Second), int64(0)
	x.line.wall, x.line.polled = at, at
	if n := testing.AllocsPerRun(5000, func() {
		offset++
		at = at.Add(10 * time.Second) // each one leaps
		x.countSource(r)
		x.watchLeap(at.Add(-10*time.Second), at, offset, reorder.OnTime)
		x.gatherClock(r, at, false)
		x.Ledger.Late(reorder.Future, offset, time.Second)
	}); n > 0 {
		t.Errorf("%v allocations for a record", n)
	}
}

// TestLeapsOfManyPartitions: a fast clock moves the watermark of every partition that it writes
// to. That is told of some, and of each once in a while, however often something is committed.
func TestLeapsOfManyPartitions(t *testing.T) {
	x := newPath(t, reorder.Fresh(0, -1, 0))
	var log bytes.Buffer
	x.line.Reporter = fault.NewReporter(slog.New(slog.NewTextHandler(&log, nil)))
	ledgers := status.Ledgers{}
	var all []*Partition
	for n := range int32(100) {
		src := emit.Source{Topic: "raw", Partition: n}
		all = append(all, x.line.Start(src, x.engine.Assign(reorder.Fresh(0, -1, 0), 1), ledgers.Open(src, 0), 1))
	}
	base := watermark.Time(1_700_000_000 * time.Second)
	for _, p := range all {
		p.watchLeap(base, base.Add(30*time.Second), 100, reorder.OnTime)
	}
	for i := range 100 { // commits
		x.line.now += watermark.Instant(100 * time.Millisecond)
		for _, p := range all {
			p.watchLeap(base, base.Add(time.Duration(i)*time.Millisecond), 101+int64(i), reorder.BehindWatermark)
			p.ReportLate()
		}
	}
	if n := strings.Count(log.String(), "\n"); n != mostReports || strings.Contains(log.String(), "suppressed") {
		t.Errorf("%d lines, want %d:\n%.1500s", n, mostReports, log.String())
	}
}
