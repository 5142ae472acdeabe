package core

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
)

// delays is a stream of records by how far behind the newest they come.
type delays func(n int) time.Duration

// regimes are streams that change, or do not, in the middle.
func regimes(rng *rand.Rand) map[string]delays {
	usual := func() time.Duration {
		if rng.IntN(20) == 0 {
			return upTo(rng, 2*time.Second)
		}
		return upTo(rng, 20*time.Millisecond)
	}
	return map[string]delays{
		"steady":    func(int) time.Duration { return usual() },
		"heavy":     func(int) time.Duration { return time.Duration(rng.ExpFloat64() * float64(300*time.Millisecond)) },
		"worse":     func(n int) time.Duration { return usual() * time.Duration(1+3*(n/regime%2)) },
		"calm, bad": func(n int) time.Duration { return max(1, usual()*time.Duration(n/regime%2)) },
	}
}

const (
	regime = 1_000_000
	stream = 4 * regime
	share  = 1000 // late in a million
)

// BenchmarkAdaptive holds the learned bound to the best fixed one, chosen in
// hindsight: the smallest that leaves as few records late. hold is the mean of
// the learned bound, fixed that best one, both in ms, late the share that was late.
func BenchmarkAdaptive(b *testing.B) {
	for _, name := range []string{"steady", "heavy", "worse", "calm, bad"} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				late, hold, fixed := adapt(regimes(rand.New(rand.NewPCG(1, 1)))[name])
				b.ReportMetric(float64(late)/stream*1e6, "late/M")
				b.ReportMetric(hold.Seconds()*1000, "hold-ms")
				b.ReportMetric(fixed.Seconds()*1000, "fixed-ms")
				b.ReportMetric(hold.Seconds()/fixed.Seconds(), "hold/fixed")
			}
		})
	}
}

func adapt(next delays) (late int, hold, fixed time.Duration) {
	const ceiling = time.Minute
	h := watermark.NewDisorder(share)
	all := make([]time.Duration, stream)
	var sum float64
	for n := range all {
		d := next(n)
		all[n] = d
		bound, known := h.Bound()
		if !known {
			bound = ceiling
		}
		sum += bound.Seconds()
		if d > bound {
			late++
		}
		h.Add(d)
	}
	slices.Sort(all)
	return late, time.Duration(sum / stream * float64(time.Second)), all[stream-1-late]
}

func TestAdaptKeepsTheShare(t *testing.T) {
	for name, next := range regimes(rand.New(rand.NewPCG(2, 2))) {
		late, hold, fixed := adapt(next)
		t.Logf("%s: %d of %d late, hold %v, best fixed %v", name, late, stream, hold, fixed)
		if late > 3*share*stream/2/1_000_000 {
			t.Errorf("%s: %d of %d late", name, late, stream)
		}
	}
}

func upTo(rng *rand.Rand, d time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(d))) }
