package status

import (
	"math"
	"time"
)

// Histogram counts durations in exponential classes: four per octave, from a millisecond to
// twelve days. That is schema 2 of Prometheus' native histograms; every fourth limit, a
// power of two of a second, is also a bucket of the classic histogram. It is a plain value:
// one goroutine counts, and others get copies.
//
//	class      Zero            Classes[0]             ...  [119]         Over
//	seconds    up to 2^-10     up to 2^(-10+1/4)      ...  up to 2^20    above
type Histogram struct {
	Zero, Over uint64
	Classes    [histogramOctaves * HistogramPerOctave]uint64
	Seconds    float64 // sum of all, those below zero counted as zero
}

const (
	// HistogramPerOctave is the number of classes per factor of two.
	HistogramPerOctave = 4
	// HistogramLeast is the power of two at which classes begin, in seconds.
	HistogramLeast   = -10
	histogramOctaves = 30
)

// observe counts n durations.
func (h *Histogram) observe(d time.Duration, n uint64) {
	if d <= time.Second>>-HistogramLeast {
		h.Zero += n
		h.Seconds += max(d, 0).Seconds() * float64(n)
		return
	}
	seconds := d.Seconds()
	h.Seconds += seconds * float64(n)
	// seconds = frac * 2^exp, and frac is from 0.5 to below 1.
	frac, exp := math.Frexp(seconds)
	class := (exp - 1 - HistogramLeast) * HistogramPerOctave
	switch { // a duration at a limit belongs to the class below
	case frac == 0.5:
		class--
	case frac <= halfUpOne:
	case frac <= halfUpTwo:
		class++
	case frac <= halfUpThree:
		class += 2
	default:
		class += 3
	}
	if class = max(class, 0); class >= len(h.Classes) {
		h.Over += n
		return
	}
	h.Classes[class] += n
}

// One half times the fourth root of two, to the first, second and third power.
const (
	halfUpOne   = 0.5946035575013605
	halfUpTwo   = 0.7071067811865476
	halfUpThree = 0.8408964152537144
)

// Count returns how many durations were counted.
func (h *Histogram) Count() uint64 {
	n := h.Zero + h.Over
	for _, k := range h.Classes {
		n += k
	}
	return n
}

// Add adds what another one has counted.
func (h *Histogram) Add(o *Histogram) {
	h.Zero, h.Over, h.Seconds = h.Zero+o.Zero, h.Over+o.Over, h.Seconds+o.Seconds
	for i, k := range o.Classes {
		h.Classes[i] += k
	}
}

// HistogramLimit returns the upper limit of a class, in seconds. Class -1 is Zero.
func HistogramLimit(class int) float64 {
	return math.Exp2(float64(class+1)/HistogramPerOctave + HistogramLeast)
}

// Within returns the least limit that so great a share of all came within; false: there is
// none.
func (h *Histogram) Within(share float64) (time.Duration, bool) {
	beyond, most := h.Over, float64(h.Count())*(1-share)
	if float64(beyond) > most {
		return 0, false
	}
	for i := len(h.Classes) - 1; i >= 0; i-- {
		if beyond += h.Classes[i]; float64(beyond) > most {
			return limit(i), true
		}
	}
	return limit(-1), true
}

func limit(class int) time.Duration {
	return time.Duration(HistogramLimit(class) * float64(time.Second))
}
