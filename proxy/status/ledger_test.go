package status

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Rates are of what was committed since somebody looked last, reason by reason, and
// stay what they are when somebody looks again at once.
func TestRates(t *testing.T) {
	start := time.Unix(7, 0)
	as := Ledgers{}
	a := as.Open(emit.Source{Topic: "raw"}, 0)
	a.marked = start
	put := func(ordered, future, repeats int64) {
		a.Pending.Ordered += ordered
		a.Pending.Late[reorder.Future] += future
		a.Pending.Late[reorder.Duplicate] += repeats
	}
	rates := func(after time.Duration) Partition {
		var p Partition
		p.SetRates(a, start.Add(after))
		return p
	}
	put(10, 4, 1)
	as.keep()
	put(100, 100, 100) // not committed
	for _, after := range []time.Duration{2 * time.Second, 2*time.Second + PublishEvery - 1} {
		p := rates(after)
		if p.OrderedRate != 5 || p.LateRate != 2.5 || p.LateRates[reorder.Future] != 2 || p.LateRates[reorder.Duplicate] != 0.5 {
			t.Errorf("after %v: %v ordered, %v late, by reason %v", after, p.OrderedRate, p.LateRate, p.LateRates)
		}
	}
	as.Abort()
	if p := rates(4 * time.Second); p.OrderedRate != 0 || p.LateRate != 0 || p.LateRates != [len(p.LateRates)]float64{} {
		t.Errorf("nothing was committed since, and the rates are %v and %v", p.OrderedRate, p.LateRates)
	}
}

// What is undone does not count in the disorder either, and a partition that is given
// up takes none away.
func TestDisorderOfAccounts(t *testing.T) {
	as := Ledgers{}
	a, b := as.Open(emit.Source{Topic: "x"}, 0), as.Open(emit.Source{Topic: "x", Partition: 1}, 0)
	a.Judged(watermark.Time(5*time.Second), watermark.Time(2*time.Second), reorder.OnTime)
	b.Judged(watermark.Time(5*time.Second), watermark.Time(4*time.Second), reorder.OnTime)
	as.keep()
	b.Judged(watermark.Time(5*time.Second), watermark.Time(4*time.Second), reorder.OnTime)
	as.Abort()
	b.Judged(watermark.Time(5*time.Second), watermark.Time(4*time.Second), reorder.OnTime)
	b.JudgedUntimed(reorder.OnTime)
	b.JudgedUntimed(reorder.InvalidTime)
	if h := as.Disorder()["x"]; h.Count() != 2 || h.Seconds != 4 {
		t.Errorf("%d records, %g s", h.Count(), h.Seconds)
	}
	as.keep()
	if h := as.Disorder()["x"]; h.Count() != 3 || h.Seconds != 5 {
		t.Errorf("%d records, %g s", h.Count(), h.Seconds)
	}
	if b.Committed.Read != 4 || b.Committed.Untimed != 1 {
		t.Errorf("%d read, %d of them without a time", b.Committed.Read, b.Committed.Untimed)
	}
}

func (as Ledgers) keep() {
	for _, a := range as {
		a.Commit()
	}
}

// The recent share of late records is that of the last minute in which there were any; what
// was before is forgotten, and an abort counts for nothing.
func TestRecent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Ledgers{}.Open(emit.Source{}, 0)
		read := func(ordered, late int64) {
			l.Pending.Read += ordered + late
			l.Pending.Ordered += ordered
			l.Pending.Late[reorder.BehindWatermark] += late
		}
		for range 120 { // two minutes in which all is late
			time.Sleep(time.Second)
			read(0, 10)
			l.Commit()
		}
		r := l.Recent()
		if late := r.Late[reorder.BehindWatermark]; late != r.Read || late < 300 || late > 610 {
			t.Errorf("all was late: %+v", r)
		}
		if moved := time.Since(r.Moved); moved > time.Second {
			t.Errorf("nothing is held, and it has moved %v ago", moved)
		}
		read(0, 1000)
		l.Abort()
		time.Sleep(time.Hour)
		if again := l.Recent(); again != r {
			t.Errorf("nothing has come, and %+v is %+v now", r, again)
		}
		for range 120 {
			time.Sleep(time.Second)
			read(10, 0)
			l.Pending.Held = 5
			l.Commit()
		}
		if r := l.Recent(); r.Late[reorder.BehindWatermark] != 0 || r.Read < 300 || time.Since(r.Judged) > time.Second {
			t.Errorf("all was in order: %+v", r)
		}
		for range 60 { // nothing comes out
			time.Sleep(time.Second)
			l.Pending.Read, l.Pending.Held = l.Pending.Read+1, l.Pending.Held+1
			l.Commit()
		}
		if r := l.Recent(); time.Since(r.Moved) != time.Minute {
			t.Errorf("nothing has come out for a minute: %v", time.Since(r.Moved))
		}
	})
}

// Where few records come, the share is that of more than a minute, but not of hours.
func TestRecentOfFew(t *testing.T) {
	for _, x := range []struct {
		every       time.Duration
		least, most int64
	}{{10 * time.Second, 20, 45}, {2 * time.Minute, 2, 6}, {time.Hour, 1, 2}} {
		synctest.Test(t, func(t *testing.T) {
			l := Ledgers{}.Open(emit.Source{}, 0)
			for i := range 200 {
				time.Sleep(x.every)
				l.Pending.Read++
				l.Pending.Ordered++
				l.Commit()
				if n := l.Recent().Read; i >= 50 && (n < x.least || n > x.most) {
					t.Fatalf("one record every %v: recent are %d", x.every, n)
				}
			}
		})
	}
}

// TestDecidedByIsCommitted: which sources decided is counted with the commits, and an abort
// takes back what it undoes.
func TestDecidedByIsCommitted(t *testing.T) {
	var l Ledger
	judge := func(source int) {
		l.Judged(watermark.None, 0, reorder.OnTime)
		l.Decided(source, 3)
	}
	want := func(when string, counts ...int64) {
		t.Helper()
		if !slices.Equal(l.DecidedBy, counts) {
			t.Errorf("%s: %d, want %d", when, l.DecidedBy, counts)
		}
	}
	judge(1)
	l.Abort()
	want("aborted before the first commit")
	l.Commit()
	want("nothing to commit")
	judge(1)
	l.Commit()
	want("committed", 0, 1, 0)
	judge(0)
	judge(1)
	want("not committed yet", 0, 1, 0)
	l.Abort()
	judge(2)
	l.Commit()
	want("committed after an abort", 0, 1, 1)
}
