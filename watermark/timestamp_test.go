package watermark

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// clientTime is what the client does.
func clientTime(ms int64) time.Time { return time.Unix(0, ms*1e6) }

func TestKafkaMillis(t *testing.T) {
	const limit = 9_223_372_036_854
	for _, tt := range []struct {
		name   string
		ms     int64
		inside bool
		want   int64
	}{
		{"none", -1, true, -1},
		{"1970", 0, true, 0},
		{"today", 1_796_043_758_084, true, 1_796_043_758_084},
		{"before 1970", -1_796_043_758_084, true, -1_796_043_758_084},
		{"the last inside", limit, true, limit},
		{"the first inside", -limit, true, -limit},
		{"one more", limit + 1, false, limit + 1},
		{"one less", -limit - 1, false, -limit - 1},
		{"microseconds", 1_796_043_758_084_000, false, 1_796_043_758_084_000},
		{"the year 9999", 253_402_300_799_000, false, 253_402_300_799_000},
		{"nanoseconds", 1_796_043_758_084_000_000, false, 1_796_043_758_084_000_000 - 6<<58},
		{"the largest", 1<<63 - 1, true, -1},
		{"today and nine million years", 1_796_043_758_084 + 1<<58, true, 1_796_043_758_084},
	} {
		ms, inside := KafkaMillis(clientTime(tt.ms))
		if ms != tt.want || inside != tt.inside {
			t.Errorf("%s: %d, inside %v", tt.name, ms, inside)
		}
		if got, inside := KafkaMillis(time.UnixMilli(tt.ms)); got != tt.ms || inside != (tt.ms <= limit && tt.ms >= -limit) {
			t.Errorf("%s, as it is: %d, inside %v", tt.name, got, inside)
		}
	}
}

// What the client has turned is told, but for values that are a multiple of 2^58 ms away
// from one inside.
func TestKafkaMillisOfAny(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ms := rapid.Int64().Draw(t, "ms")
		near := NearestMillis(ms)
		_, want := FromMillis(near)
		got, inside := KafkaMillis(clientTime(ms))
		if got != near || inside != want || clientTime(near) != clientTime(ms) || (ms-near)%(1<<58) != 0 {
			t.Fatalf("%d: %d, inside %v, want %d, %v", ms, got, inside, near, want)
		}
	})
}
