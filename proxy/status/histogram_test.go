package status

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// TestHistogram: each duration is in the class that its logarithm says, and at a
// limit in the one below.
func TestHistogram(t *testing.T) {
	at := func(d time.Duration) int {
		var h Histogram
		h.observe(d, 3)
		if h.Count() != 3 || math.Abs(h.Seconds-3*max(d, 0).Seconds()) > 1e-9*math.Abs(h.Seconds) {
			t.Fatalf("%v: %d, %g s", d, h.Count(), h.Seconds)
		}
		switch {
		case h.Zero == 3:
			return -1
		case h.Over == 3:
			return len(h.Classes)
		}
		for i, n := range h.Classes {
			if n == 3 {
				return i
			}
		}
		t.Fatalf("%v is in several classes", d)
		return 0
	}
	for d, want := range map[time.Duration]int{
		math.MinInt64: -1, -1: -1, 0: -1, 976_562: -1, 976_563: 0, time.Millisecond: 0, time.Second: 39, time.Second + 1: 40,
		1<<20*time.Second - 1: 119, 1 << 20 * time.Second: 119, 1<<20*time.Second + time.Microsecond: 120, math.MaxInt64: 120,
	} {
		if got := at(d); got != want {
			t.Errorf("%v is in class %d, want %d", d, got, want)
		}
	}
	r := rand.New(rand.NewPCG(7, 0))
	for range 100_000 {
		d := time.Duration(math.Exp(r.Float64()*35 + 5))
		exact := math.Log2(d.Seconds()/math.Exp2(HistogramLeast)) * HistogramPerOctave
		want := min(max(int(math.Ceil(exact))-1, -1), 120)
		if got := at(d); got != want && math.Abs(exact-math.Round(exact)) > 1e-9 {
			t.Fatalf("%v is in class %d, want %d (%g)", d, got, want, exact)
		}
	}
	if HistogramLimit(-1) != 1./1024 || HistogramLimit(39) != 1 || HistogramLimit(119) != 1<<20 {
		t.Errorf("limits: %v, %v, %v", HistogramLimit(-1), HistogramLimit(39), HistogramLimit(119))
	}
	var a, b Histogram
	a.observe(time.Second, 2)
	b.observe(0, 1)
	b.observe(math.MaxInt64, 1)
	if a.Add(&b); a.Count() != 4 || a.Zero != 1 || a.Over != 1 || a.Classes[39] != 2 {
		t.Errorf("added: %+v", a)
	}
}

func BenchmarkHistogram(b *testing.B) {
	var h Histogram
	d := time.Duration(12345)
	for b.Loop() {
		h.observe(d, 1)
		d = d*3 + 7
	}
}

// Within returns the limit that a share came within.
func TestWithin(t *testing.T) {
	var h Histogram
	if d, ok := h.Within(0.999); !ok || d != limit(-1) {
		t.Errorf("of none: %v, %v", d, ok)
	}
	h.observe(0, 990)
	h.observe(time.Second, 9)
	h.observe(29*time.Second, 1)
	for share, want := range map[float64]time.Duration{0.5: limit(-1), 0.99: limit(-1), 0.995: time.Second, 0.9991: 32 * time.Second, 1: 32 * time.Second} {
		if d, ok := h.Within(share); !ok || d != want {
			t.Errorf("%v came within %v, %v, want %v", share, d, ok, want)
		}
	}
	h.observe(300*24*time.Hour, 500)
	if d, ok := h.Within(0.9); ok {
		t.Errorf("a third is beyond, and all came within %v", d)
	}
}
