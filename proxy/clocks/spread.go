// Package clocks gathers evidence about the clocks that records come from: how far event
// times are from the records' own timestamps and from the time of reading. It decides
// nothing about a record. It knows nothing of Kafka and reads no clock; times enter as
// arguments.
package clocks

import (
	"math"
	"time"

	"github.com/DataDog/sketches-go/ddsketch"
)

// Spread sums up many differences between two clocks.
type Spread struct {
	Count     int64         // of differences; the rest is 0 when it is 0
	Mean      time.Duration // arithmetic
	Deviation time.Duration // standard deviation of all that were counted
	Least     time.Duration
	Median    time.Duration // to 1 %, and to 1 ms
	P99       time.Duration // the same
}

// spreading gathers a Spread: mean and deviation by Welford's algorithm, which
// does not lose the small differences between large numbers, and the quantiles
// by a histogram.
type spreading struct {
	count int64
	mean  float64 // ns
	sum   float64 // of the squared distances from the mean
	least time.Duration
	all   histogram
}

// histogram is the part of a histogram that a Spread needs.
type histogram interface {
	Add(d time.Duration)
	Quantile(q float64) time.Duration
	Reset()
}

func (s *spreading) add(d time.Duration) {
	if s.all == nil {
		s.all = newSketch()
	}
	if s.count == 0 {
		s.least = d
	}
	s.count++
	s.least = min(s.least, d)
	off := float64(d) - s.mean
	s.mean += off / float64(s.count)
	s.sum += off * (float64(d) - s.mean)
	s.all.Add(d)
}

func (s *spreading) reset() {
	s.count, s.mean, s.sum, s.least = 0, 0, 0, 0
	if s.all != nil {
		s.all.Reset()
	}
}

func (s *spreading) spread() Spread {
	if s.count == 0 {
		return Spread{}
	}
	return Spread{
		Count: s.count, Mean: whole(s.mean), Deviation: whole(math.Sqrt(s.sum / float64(s.count))),
		Least: s.least, Median: s.all.Quantile(0.5), P99: s.all.Quantile(0.99),
	}
}

// whole returns the nearest duration within range.
func whole(ns float64) time.Duration {
	switch {
	case ns >= math.MaxInt64:
		return math.MaxInt64
	case ns <= math.MinInt64:
		return math.MinInt64
	}
	return time.Duration(math.Round(ns))
}

// sketch is a histogram of whole milliseconds with exponential buckets.
type sketch struct{ dd *ddsketch.DDSketch }

const (
	accuracy = 0.01 // of a quantile, relative
	mostBins = 2048 // more than any two times can be apart
)

func newSketch() sketch {
	dd, err := ddsketch.LogCollapsingLowestDenseDDSketch(accuracy, mostBins)
	if err != nil {
		panic(err) // the accuracy is a constant
	}
	return sketch{dd}
}

func (s sketch) Add(d time.Duration) { _ = s.dd.Add(float64(d / time.Millisecond)) } // no duration is too large

func (s sketch) Quantile(q float64) time.Duration {
	ms, err := s.dd.GetValueAtQuantile(q)
	if err != nil {
		return 0 // nothing was added
	}
	return whole(ms * float64(time.Millisecond))
}

func (s sketch) Reset() { s.dd.Clear() }
