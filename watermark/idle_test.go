package watermark

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestIdle is the truth table of idleness, in seconds.
func TestIdle(t *testing.T) {
	type at = float64
	const (
		quiet = iota
		busy  // the answer shows something not yet read
		alive // the newest event time moved
	)
	type happening struct {
		what  int
		at    at
		drain at // what is handed out
	}
	for _, c := range []struct {
		why     string
		timeout at
		all     []happening
		idle    bool
	}{
		{"nothing is proven by one answer", 1, []happening{{quiet, 9, 0}}, false},
		{"up to the timeout nothing drains", 2, []happening{{quiet, 9, 0}, {quiet, 11, 0}}, true},
		{"beyond it the clock runs", 2, []happening{{quiet, 9, 0}, {quiet, 10, 0}, {quiet, 12, 1}, {quiet, 12.5, 0.5}}, true},
		{"what an answer jumps over", 1, []happening{{quiet, 9, 0}, {quiet, 11, 1}}, true},
		{"a gap of two seconds still counts", 1, []happening{{quiet, 0, 0}, {quiet, 2, 1}, {quiet, 4, 2}}, true},
		{"a longer one starts anew", 1, []happening{{quiet, 0, 0}, {quiet, 2.001, 0}, {quiet, 4, 0.999}}, true},
		{"busy starts anew", 1, []happening{{quiet, 0, 0}, {busy, 1, 0}, {quiet, 2, 0}, {quiet, 3, 0}}, true},
		{"busy ends idleness", 1, []happening{{quiet, 0, 0}, {quiet, 2, 1}, {busy, 2.5, 0}}, false},
		{"a sign of life starts anew", 1, []happening{{quiet, 0, 0}, {alive, 1, 0}, {quiet, 2, 0}, {quiet, 3.5, 0.5}}, true},
		{"and is a sign of life once", 1, []happening{{alive, 1, 0}, {quiet, 2, 0}, {quiet, 4, 1}}, true},
		{"asked before the sign of life, answered after", 1, []happening{{alive, 5, 0}, {quiet, 4.9, 0}, {quiet, 6, 0}, {quiet, 7, 0}}, true},
		{"asked at it", 1, []happening{{alive, 5, 0}, {quiet, 5, 0}, {quiet, 6.5, 0.5}}, true},
		{"busy, asked before the sign of life", 1, []happening{{alive, 5, 0}, {quiet, 5, 0}, {busy, 4, 0}, {quiet, 6.5, 0.5}}, true},
		{"out of turn starts anew", 1, []happening{{quiet, 0, 0}, {quiet, 1, 0}, {quiet, 0.5, 0}, {quiet, 2, 0.5}}, true},
		{"the same answer twice", 1, []happening{{quiet, 0, 0}, {quiet, 2, 1}, {quiet, 2, 0}, {quiet, 3, 1}}, true},
		{"no timeout, no idleness", 0, []happening{{quiet, 0, 0}, {quiet, 2, 0}, {quiet, 4, 0}}, false},
	} {
		i := Idle{Timeout: seconds(c.timeout)}
		for n, h := range c.all {
			var got time.Duration
			if h.what == alive {
				i.Restart(Instant(seconds(h.at)))
			} else {
				got = i.Observe(Instant(seconds(h.at)), h.what == quiet)
			}
			if got != seconds(h.drain) {
				t.Errorf("%s: %d at %gs drains %v, want %gs", c.why, n, h.at, got, h.drain)
			}
		}
		if i.Idle() != c.idle {
			t.Errorf("%s: idle is %v", c.why, i.Idle())
		}
	}
	var never Idle
	if never.Idle() {
		t.Error("idle without a timeout")
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// TestIdleDrainsWhatIsProven: over each proven stretch, what was handed out is
// its length beyond the timeout: no more, no less, and no time twice.
func TestIdleDrainsWhatIsProven(t *testing.T) {
	for seed := range uint64(5000) {
		rng := rand.New(rand.NewPCG(seed, 0))
		i := Idle{Timeout: time.Duration(rng.Int64N(int64(3 * time.Second)))}
		var stretch []Instant // the questions of the stretch under way
		var drained time.Duration
		var now Instant
		var trace string
		for range 40 {
			now += Instant(rng.Int64N(int64(2200 * time.Millisecond)))
			trace += fmt.Sprintf(" %v", time.Duration(now))
			switch quiet := rng.IntN(8) > 0; {
			case rng.IntN(12) == 0:
				trace += " alive"
				i.Restart(now)
				stretch, drained = nil, 0
			case i.Timeout == 0:
				if i.Observe(now, quiet) != 0 {
					t.Fatalf("seed %d: drained without a timeout", seed)
				}
			case quiet:
				if n := len(stretch); n > 0 && now.Sub(stretch[n-1]) > 2*time.Second {
					stretch, drained = nil, 0
				}
				stretch = append(stretch, now)
				drained += i.Observe(now, true)
				proven := now.Sub(stretch[0])
				if drained != max(0, proven-i.Timeout) || i.Idle() != (proven >= i.Timeout) {
					t.Fatalf("seed %d: %v proven, timeout %v, drained %v, idle %v:%s", seed, proven, i.Timeout, drained, i.Idle(), trace)
				}
			default:
				trace += " busy"
				if i.Observe(now, false) != 0 || i.Idle() {
					t.Fatalf("seed %d: idle while busy:%s", seed, trace)
				}
				stretch, drained = nil, 0
			}
		}
	}
}
