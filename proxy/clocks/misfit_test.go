package clocks

import (
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
)

// today is when records are read: the issue of the tests is a clock of 2026.
const today = watermark.Time(1_796_042_377 * time.Second)

// TestMisfit: a unit that is too small is known by its factor; what is old is not wrong, and
// neither is anything that its own timestamp confirms.
func TestMisfit(t *testing.T) {
	const (
		day  = 24 * time.Hour
		year = 365 * day
	)
	written := today.Add(-3 * time.Second)
	for _, c := range []struct {
		name         string
		event, stamp watermark.Time
		want         Misfit
	}{
		{"right", today, written, Misfit{}},
		{"seconds read as milliseconds", today / 1000, written, Misfit{Factor: 1000}},
		{"seconds read as milliseconds, no timestamp", today / 1000, watermark.None, Misfit{Factor: 1000}},
		{"the timestamp is in seconds too", today / 1000, today / 1000, Misfit{Factor: 1000}},
		{"milliseconds read as microseconds", today / 1000, written, Misfit{Factor: 1000}},
		{"seconds read as microseconds", today / 1e6, written, Misfit{Factor: 1e6}},
		{"seconds read as nanoseconds", today / 1e9, written, Misfit{Factor: 1e9}},
		{"seconds of some years ago", today.Add(-8*year) / 1000, written, Misfit{Factor: 1000}},
		{"seconds of next month", today.Add(30*day) / 1000, written, Misfit{Factor: 1000}},
		{"a replay of old data", today.Add(-year), today.Add(-year), Misfit{}},
		{"a replay of very old data", today.Add(-40 * year), today.Add(-40 * year), Misfit{}},
		{"old data written now", today.Add(-2 * year), written, Misfit{}},
		{"birthdays", today.Add(-30 * year), written, Misfit{Apart: 30 * year}},
		{"nothing, as 1970", 0, written, Misfit{Apart: today.Since(0)}},
		{"before 1970", watermark.Time(-1), watermark.None, Misfit{Apart: today.Since(-1)}},
		{"in the future", today.Add(50 * year), written, Misfit{}},
		{"a test's seconds", watermark.Time(950 * time.Second), watermark.Time(950 * time.Second), Misfit{}},
		{"at the end", watermark.Max, written, Misfit{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Reading{Event: c.event, Timestamp: c.stamp, Read: today}
			if got := r.misfit(); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// TestFitting: four records that agree are enough at first, then most of sixteen; a few that
// are wrong among many are no finding, and what was found goes when it is mended.
func TestFitting(t *testing.T) {
	wrong := Reading{Event: today / 1000, Timestamp: today, Read: today}
	right := Reading{Event: today, Timestamp: today, Read: today}
	old := Reading{Event: 0, Timestamp: today, Read: today}
	var f Fitting
	add := func(n int, r Reading) (changes int) {
		for range n {
			if f.Add(r) {
				changes++
			}
		}
		return changes
	}
	if add(3, wrong) != 0 || !f.Found().Fits() || add(1, wrong) != 1 || f.Found().Factor != 1000 {
		t.Fatalf("after four: %+v", f.Found())
	}
	if add(100, wrong) != 0 || f.Early() {
		t.Errorf("told again, or still early: %v", f.Early())
	}
	if add(40, right) != 1 || !f.Found().Fits() {
		t.Errorf("mended: %+v", f.Found())
	}
	f = Fitting{}
	for i := range 320 {
		r := right
		if i%5 == 0 {
			r = wrong
		}
		if f.Add(r) {
			t.Fatalf("one in five: %+v", f.Found())
		}
	}
	f = Fitting{}
	for i := range 320 {
		r := wrong
		if i%5 == 0 {
			r = right
		}
		f.Add(r)
	}
	if f.Found().Factor != 1000 {
		t.Errorf("four in five: %+v", f.Found())
	}
	f = Fitting{}
	if add(15, old) != 0 || add(1, old) != 1 || f.Found().Apart != today.Since(0) {
		t.Errorf("far apart: %+v", f.Found())
	}
	if n := testing.AllocsPerRun(100, func() { f.Add(wrong) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
