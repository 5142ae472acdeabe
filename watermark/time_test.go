package watermark

import (
	"math"
	"math/big"
	"testing"
	"testing/quick"
	"time"
)

func TestAdd(t *testing.T) {
	for _, c := range []struct {
		t    Time
		d    time.Duration
		want Time
	}{
		{0, 0, 0},
		{5, -7, -2},
		{Max, 0, Max},
		{Max, 1, Max},
		{Max - 1, 1, Max},
		{Max, math.MaxInt64, Max},
		{1, math.MaxInt64, Max},
		{0, math.MaxInt64, Max},
		{None, 0, None},
		{None, -1, None},
		{None + 1, -1, None},
		{-2, math.MinInt64, None},
		{None, 1, None + 1},
		{Max, math.MinInt64, -1},
	} {
		if got := c.t.Add(c.d); got != c.want {
			t.Errorf("%d.Add(%d) = %d, want %d", c.t, c.d, got, c.want)
		}
	}
	if got := Time(-1).Sub(math.MinInt64); got != Max {
		t.Errorf("subtracting the lowest duration gives %d", got)
	}
	if Max.Next() != Max || None.Next() != None+1 || Time(-1).Next() != 0 {
		t.Error("Next is not one nanosecond later")
	}
}

// TestAddIsExactAndMonotone: saturation never turns order round.
func TestAddIsExactAndMonotone(t *testing.T) {
	exact := func(t Time, d time.Duration) bool {
		want := new(big.Int).Add(big.NewInt(int64(t)), big.NewInt(int64(d)))
		if want.Cmp(big.NewInt(math.MaxInt64)) > 0 {
			want.SetInt64(math.MaxInt64)
		}
		if want.Cmp(big.NewInt(math.MinInt64)) < 0 {
			want.SetInt64(math.MinInt64)
		}
		return int64(t.Add(d)) == want.Int64() && (d == math.MinInt64 || t.Sub(-d) == t.Add(d))
	}
	monotone := func(t, u Time, d time.Duration) bool {
		return min(t, u).Add(d) <= max(t, u).Add(d)
	}
	for _, law := range []any{exact, monotone} {
		if err := quick.Check(law, &quick.Config{MaxCount: 20000}); err != nil {
			t.Error(err)
		}
	}
}

func TestSince(t *testing.T) {
	for _, c := range []struct {
		from, to Time
		want     time.Duration
	}{
		{1, 5, 4},
		{5, 1, -4},
		{0, 0, 0},
		{None, Max, math.MaxInt64},
		{Max, None, math.MinInt64},
		{-1, Max, math.MaxInt64},
		{Max, -2, math.MinInt64},
		{0, None, math.MinInt64},
	} {
		if got := c.to.Since(c.from); got != c.want {
			t.Errorf("from %d to %d: %d, want %d", c.from, c.to, got, c.want)
		}
	}
}

func TestMillis(t *testing.T) {
	for _, c := range []struct {
		t    Time
		want int64
	}{
		{0, 0},
		{999_999, 0},
		{1_000_000, 1},
		{-1, -1},
		{-1_000_000, -1},
		{-1_000_001, -2},
		{Max, 9223372036854},
		{None, -9223372036855},
	} {
		if got := c.t.Millis(); got != c.want {
			t.Errorf("%d.Millis() = %d, want %d", c.t, got, c.want)
		}
	}
	floor := func(t Time) bool {
		ms := big.NewInt(t.Millis())
		low := new(big.Int).Mul(ms, big.NewInt(1e6))
		rest := new(big.Int).Sub(big.NewInt(int64(t)), low)
		return rest.Sign() >= 0 && rest.Cmp(big.NewInt(1e6)) < 0
	}
	if err := quick.Check(floor, nil); err != nil {
		t.Error(err)
	}
}

func TestFromMillis(t *testing.T) {
	for _, c := range []struct {
		ms   int64
		want Time
		ok   bool
	}{
		{0, 0, true},
		{-1, -1_000_000, true},
		{9223372036854, 9223372036854_000_000, true},
		{9223372036855, None, false},
		{-9223372036854, -9223372036854_000_000, true},
		{-9223372036855, None, false},
		{math.MaxInt64, None, false},
		{math.MinInt64, None, false},
	} {
		if got, ok := FromMillis(c.ms); got != c.want || ok != c.ok {
			t.Errorf("FromMillis(%d) = %d %v, want %d %v", c.ms, got, ok, c.want, c.ok)
		}
	}
	inverse := func(ms int64) bool {
		ms %= 9223372036855
		t, ok := FromMillis(ms)
		return ok && t.Millis() == ms
	}
	if err := quick.Check(inverse, nil); err != nil {
		t.Error(err)
	}
}
