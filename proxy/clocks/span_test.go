package clocks

import (
	"math"
	"testing"
	"time"
)

func TestSpan(t *testing.T) {
	const day, year = 24 * time.Hour, 365*24*time.Hour + 6*time.Hour
	for d, want := range map[time.Duration]string{
		0: "0s", 90 * time.Millisecond: "90ms", 65 * time.Minute: "1h5m0s", 47 * time.Hour: "47h0m0s", 2 * day: "2d0h", 76*time.Hour + 59*time.Minute: "3d4h",
		400 * day: "400d0h", 2 * year: "2y", 56*year + 100*day: "56y", 3 * 365 * day: "3y", math.MaxInt64: "292y", -3 * time.Hour: "-3h0m0s", -57 * year: "-57y",
	} {
		if got := Span(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
	_ = Span(math.MinInt64)
}
