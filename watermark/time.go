// Package watermark holds the laws of event time: what a time is, how far a
// partition's clock has come, which records may move it, and when silence
// counts as progress. It is pure: it reads no clock, starts no goroutine and
// knows nothing of Kafka. Time enters as an argument.
package watermark

import (
	"math"
	"time"
)

// Time is an event time or a watermark: nanoseconds since the Unix epoch.
// Arithmetic on it saturates, so that the ends of the range (the years 1677
// and 2262) are ordinary values rather than places where order turns round.
type Time int64

const (
	// None is the watermark of a partition that has none yet, and the
	// maximum of one that has seen nothing. No event time equals it.
	None Time = math.MinInt64
	// Max is the last event time there is.
	Max Time = math.MaxInt64
)

// Add returns t+d, or the nearest end of the range.
func (t Time) Add(d time.Duration) Time {
	s := t + Time(d)
	switch {
	case d >= 0 && s < t:
		return Max
	case d < 0 && s > t:
		return None
	}
	return s
}

// Sub returns t-d, or the nearest end of the range.
func (t Time) Sub(d time.Duration) Time {
	if d == math.MinInt64 {
		return t.Add(math.MaxInt64).Add(1)
	}
	return t.Add(-d)
}

// Since returns t-u, or the nearest end of the range of durations.
func (t Time) Since(u Time) time.Duration {
	d := time.Duration(t - u)
	switch {
	case t >= u && d < 0:
		return math.MaxInt64
	case t < u && d >= 0:
		return math.MinInt64
	}
	return d
}

// Next returns the time one nanosecond later, the first that a watermark at t
// does not cover.
func (t Time) Next() Time { return t.Add(1) }

// Millis returns floor(t / 1 ms), below 1970 too: the unit of Kafka's
// timestamps and of every header Tidemark writes.
func (t Time) Millis() int64 {
	ms := int64(t) / int64(time.Millisecond)
	if int64(t)%int64(time.Millisecond) < 0 {
		ms--
	}
	return ms
}

// FromMillis returns the time of a Kafka timestamp (ms since the Unix epoch)
// and whether it lies inside the range.
func FromMillis(ms int64) (Time, bool) {
	const limit = math.MaxInt64 / int64(time.Millisecond)
	if ms > limit || ms < -limit {
		return None, false
	}
	return Time(ms * int64(time.Millisecond)), true
}
