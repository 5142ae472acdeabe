package clocks

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestSpreadTwin: against sums of squares and a sorted list.
func TestSpreadTwin(t *testing.T) {
	var s spreading
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 0))
		s.reset()
		offset := (rng.Float64() - 0.5) * float64(pick(rng, time.Second, time.Hour, 1000*time.Hour))
		width := rng.Float64() * float64(pick(rng, time.Millisecond, time.Minute, 100*time.Hour))
		all := make([]time.Duration, 1+rng.IntN(500))
		mean := 0.0
		for i := range all {
			all[i] = time.Duration(offset + width*rng.NormFloat64())
			mean += float64(all[i]) / float64(len(all))
			s.add(all[i])
		}
		squares := 0.0
		for _, d := range all {
			squares += (float64(d) - mean) * (float64(d) - mean) / float64(len(all))
		}
		slices.Sort(all)
		got := s.spread()
		if got.Count != int64(len(all)) || got.Least != all[0] {
			t.Fatalf("seed %d: %+v, want %d from %v", seed, got, len(all), all[0])
		}
		near := func(got time.Duration, want, off float64) bool { return math.Abs(float64(got)-want) <= off }
		if !near(got.Mean, mean, 1e3) || !near(got.Deviation, math.Sqrt(squares), 1e3) {
			t.Fatalf("seed %d: mean %v, deviation %v; want %v, %v", seed, got.Mean, got.Deviation, time.Duration(mean), time.Duration(math.Sqrt(squares)))
		}
		for q, got := range map[float64]time.Duration{0.5: got.Median, 0.99: got.P99} {
			rank := q * float64(len(all)-1)
			low, high := float64(all[int(rank)]), float64(all[int(math.Ceil(rank))])
			off := accuracy*max(math.Abs(low), math.Abs(high))*1.01 + float64(2*time.Millisecond)
			if float64(got) < low-off || float64(got) > high+off {
				t.Fatalf("seed %d: quantile %v of %d is %v, want %v", seed, q, len(all), got, time.Duration(low))
			}
		}
	}
}

func pick[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

func TestSpreadAtTheEnds(t *testing.T) {
	var s spreading
	if s.spread() != (Spread{}) {
		t.Errorf("of nothing: %+v", s.spread())
	}
	for range 3 {
		s.add(math.MaxInt64)
		s.add(math.MinInt64)
	}
	got := s.spread()
	if got.Count != 6 || got.Least != math.MinInt64 || got.P99 < math.MaxInt64/100*98 || got.Deviation < math.MaxInt64/100*99 {
		t.Errorf("%+v", got)
	}
	s.reset()
	s.add(time.Second)
	if got := s.spread(); got.Count != 1 || got.Least != time.Second || got.Mean != time.Second || got.Deviation != 0 {
		t.Errorf("after a reset: %+v", got)
	}
}
