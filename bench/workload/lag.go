package workload

import (
	"math/rand/v2"
	"time"
)

// A lag is how far behind its place in the stream a record's event time is.
// Records of one partition ask for theirs one after the other.
type lag func() time.Duration

// shapes make the lags of one partition, from its own source of randomness.
// step is the event time from one record to the next.
var shapes = map[string]func(rng *rand.Rand, step time.Duration) lag{
	"sorted":  sorted,
	"mixed":   mixed,
	"bursts":  bursts,
	"slow":    slow,
	"mobile":  mobile,
	"uniform": uniform,
}

// near is the jitter of a healthy network.
func near(rng *rand.Rand) time.Duration {
	return min(time.Duration(rng.ExpFloat64()*float64(5*time.Millisecond)), 20*time.Millisecond)
}

func between(rng *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(rng.Int64N(int64(high-low)))
}

func sorted(rng *rand.Rand, _ time.Duration) lag {
	return func() time.Duration { return near(rng) }
}

// mixed is 5 % of stragglers, up to two seconds, and one record in a thousand
// that is too late.
func mixed(rng *rand.Rand, _ time.Duration) lag {
	return func() time.Duration {
		switch pick := rng.IntN(1000); {
		case pick == 0:
			return between(rng, Bound, time.Minute)
		case pick <= 50:
			return between(rng, 0, 2*time.Second)
		}
		return near(rng)
	}
}

// bursts has, every two seconds on average, a tenth of a second's records at
// once that are up to four seconds old.
func bursts(rng *rand.Rand, step time.Duration) lag {
	left, old := 0, time.Duration(0)
	length, period := int(100*time.Millisecond/step), int(2*time.Second/step)
	return func() time.Duration {
		if left == 0 && rng.IntN(period) == 0 {
			left, old = length, between(rng, time.Second, 4*time.Second)
		}
		if left > 0 {
			left--
			return old
		}
		return near(rng)
	}
}

// slow has sixteen producers that take turns; one is four seconds behind.
func slow(rng *rand.Rand, _ time.Duration) lag {
	turn := 0
	return func() time.Duration {
		if turn++; turn%16 == 0 {
			return between(rng, 3900*time.Millisecond, 4100*time.Millisecond)
		}
		return near(rng)
	}
}

// mobile has phones that come back online and send what they have kept, oldest
// first, between the records of the others.
func mobile(rng *rand.Rand, _ time.Duration) lag {
	const kept = 50
	left, away := 0, time.Duration(0)
	return func() time.Duration {
		if left == 0 && rng.IntN(2000) == 0 {
			left = kept
			away = min(time.Duration(rng.ExpFloat64()*float64(10*time.Second)), 10*time.Minute)
		}
		if left > 0 && rng.IntN(2) == 0 {
			left--
			return away * time.Duration(left) / kept
		}
		return near(rng)
	}
}

func uniform(rng *rand.Rand, _ time.Duration) lag {
	return func() time.Duration { return between(rng, 0, Bound) }
}
