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
		quiet  = iota // an answer shows that nothing is unread, and is looked at
		busy          // one shows something not yet read, and is looked at
		alive         // the newest event time moved
		heard         // an answer shows no more than the one before, and nobody looks
		grown         // an answer shows more, and nobody looks
		shrunk        // less
		open          // an answer shows an open transaction
		failed        // a question is not answered
		look          // all is read by now; somebody looks
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
		{"busy starts anew", 1, []happening{{quiet, 0, 0}, {busy, 1, 0}, {quiet, 2, 0}, {quiet, 3, 1}}, true},
		{"busy ends idleness", 1, []happening{{quiet, 0, 0}, {quiet, 2, 1}, {busy, 2.5, 0}}, false},
		{"a sign of life starts anew", 1, []happening{{quiet, 0, 0}, {alive, 1, 0}, {quiet, 2, 0}, {quiet, 3.5, 1.5}}, true},
		{"and is a sign of life once", 1, []happening{{alive, 1, 0}, {quiet, 2, 0}, {quiet, 4, 1}}, true},
		{"asked before the sign of life, answered after", 1, []happening{{alive, 5, 0}, {quiet, 4.9, 0}, {quiet, 6, 0}, {quiet, 7, 1}}, true},
		{"asked at it", 1, []happening{{alive, 5, 0}, {quiet, 5, 0}, {quiet, 6.5, 0.5}}, true},
		{"busy, asked before the sign of life", 1, []happening{{alive, 5, 0}, {quiet, 5, 0}, {busy, 4, 0}, {quiet, 6.5, 0}, {quiet, 8, 0.5}}, true},
		{"out of turn starts anew", 1, []happening{{quiet, 0, 0}, {quiet, 1, 0}, {quiet, 0.5, 0}, {quiet, 2, 0.5}}, true},
		{"the same answer twice", 1, []happening{{quiet, 0, 0}, {quiet, 2, 1}, {quiet, 2, 0}, {quiet, 3, 1}}, true},
		{"no timeout, no idleness", 0, []happening{{quiet, 0, 0}, {quiet, 2, 0}, {quiet, 4, 0}}, false},

		{"what nobody looks at counts later", 1, []happening{{quiet, 0, 0}, {heard, 2, 0}, {heard, 4, 0}, {heard, 6, 0}, {look, 0, 5}}, true},
		{"and from the beginning", 1, []happening{{heard, 0, 0}, {heard, 2, 0}, {heard, 4, 0}, {look, 0, 3}}, true},
		{"a look between changes nothing", 1, []happening{{heard, 0, 0}, {heard, 2, 0}, {look, 0, 1}, {heard, 4, 0}, {look, 0, 2}}, true},
		{"nor does a look at nothing new", 1, []happening{{heard, 0, 0}, {heard, 2, 0}, {look, 0, 1}, {look, 0, 0}, {look, 0, 0}}, true},
		{"what came meanwhile and moved nothing", 1, []happening{{heard, 0, 0}, {grown, 2, 0}, {grown, 4, 0}, {look, 0, 3}}, true},
		{"what came meanwhile and moved the maximum", 1, []happening{{heard, 0, 0}, {grown, 2, 0}, {alive, 3, 0}, {heard, 4, 0}, {heard, 5, 0}, {look, 0, 1}}, true},
		{"a gap that nobody saw", 1, []happening{{quiet, 0, 0}, {quiet, 1, 0}, {heard, 3.5, 0}, {heard, 5, 0}, {look, 0, 0.5}}, true},
		{"a question without an answer that nobody saw", 1, []happening{{quiet, 0, 0}, {quiet, 1, 0}, {failed, 1.5, 0}, {heard, 2, 0}, {heard, 4, 0}, {look, 0, 1}}, true},
		{"a transaction that nobody saw", 1, []happening{{quiet, 0, 0}, {open, 1, 0}, {heard, 2, 0}, {heard, 4, 0}, {look, 0, 1}}, true},
		{"an end that went back", 1, []happening{{heard, 0, 0}, {heard, 2, 0}, {shrunk, 3, 0}, {heard, 4, 0}, {look, 0, 0}}, true},
		{"broken, and looked at", 1, []happening{{quiet, 0, 0}, {quiet, 2, 1}, {failed, 2.2, 0}, {look, 0, 0}}, false},
		{"something is unread at the end of it", 1, []happening{{heard, 0, 0}, {heard, 2, 0}, {busy, 4, 0}, {heard, 5, 0}, {look, 0, 0}}, true},
	} {
		i := Idle{Timeout: seconds(c.timeout)}
		var s Stretch
		end := int64(10)
		for n, h := range c.all {
			var got time.Duration
			now := Instant(seconds(h.at))
			switch h.what {
			case alive:
				i.Restart(now)
			case failed:
				s.Break(now)
			case open:
				s.Answer(now, end, end-1)
			case grown:
				end++
				s.Answer(now, end, end)
			case shrunk:
				end--
				s.Answer(now, end, end)
			case quiet, busy, heard:
				s.Answer(now, end, end+int64(n%2)) // what is stable is asked for later
			}
			if h.what == quiet || h.what == busy || h.what == look {
				got = i.Observe(s, h.what != busy)
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

// TestIdleDrainsWhatIsProven: how often somebody looks does not matter. What has been
// handed out is the time from the first answer of the run, or the last sign of life, to
// the last answer, beyond the timeout: no more, no less, and no time twice.
func TestIdleDrainsWhatIsProven(t *testing.T) {
	type answer struct {
		sent Instant
		end  int64
		good bool
	}
	for seed := range uint64(5000) {
		rng := rand.New(rand.NewPCG(seed, 0))
		i := Idle{Timeout: time.Duration(rng.Int64N(int64(3 * time.Second)))}
		var s Stretch
		var all []answer // that anybody gave
		var now, life, from Instant
		var drained time.Duration
		var trace string
		end, rarely := int64(0), 1+rng.IntN(6)
		for range 60 {
			now += Instant(rng.Int64N(int64(2200*time.Millisecond)) / int64(rarely))
			trace += fmt.Sprintf(" %v", time.Duration(now))
			switch rng.IntN(14) {
			case 0:
				trace += " alive"
				life = now
				i.Restart(now)
				continue
			case 1:
				trace += " failed"
				s.Break(now)
				all = append(all, answer{sent: now})
			case 2:
				trace += " open"
				s.Answer(now, end, end-1)
				all = append(all, answer{sent: now})
			case 3:
				trace += " behind"
				s.Answer(now, end-1, end-1)
				all = append(all, answer{now, end - 1, true})
			case 4:
				trace += " grown"
				end++
				fallthrough
			default:
				s.Answer(now, end, end)
				all = append(all, answer{now, end, true})
			}
			if rng.IntN(rarely) > 0 {
				continue // nobody looks
			}
			read := rng.IntN(8) > 0
			trace += fmt.Sprintf(" looked at, read %v", read)
			got := i.Observe(s, read)
			last := all[len(all)-1]
			if last.sent < life {
				if got != 0 {
					t.Fatalf("seed %d: drained by an answer from before:%s", seed, trace)
				}
				continue
			}
			if !read || !last.good || i.Timeout == 0 {
				life = last.sent
				if got != 0 || i.Idle() {
					t.Fatalf("seed %d: idle without proof:%s", seed, trace)
				}
				continue
			}
			first := len(all) - 1
			for first > 0 && all[first-1].good && all[first].sent.Sub(all[first-1].sent) <= 2*time.Second && all[first-1].end <= all[first].end {
				first--
			}
			if since := max(all[first].sent, life); since != from {
				from, drained = since, 0
			}
			drained += got
			proven := last.sent.Sub(from)
			if drained != max(0, proven-i.Timeout) || i.Idle() != (proven >= i.Timeout) || i.Quiet() != proven {
				t.Fatalf("seed %d: %v proven, timeout %v, drained %v, idle %v:%s", seed, proven, i.Timeout, drained, i.Idle(), trace)
			}
		}
	}
}
