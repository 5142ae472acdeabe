package watermark

import "time"

// Instant is a reading of a monotonic clock: time since some fixed moment in
// the life of the process. It has nothing to do with event time and survives
// no restart.
type Instant time.Duration

// Sub returns the time from u to i.
func (i Instant) Sub(u Instant) time.Duration { return time.Duration(i - u) }

// Gap is the longest pause between two answers of the broker across which
// idle time still counts. A longer one means that the process was suspended
// or the broker away, and then silence proves nothing.
const Gap = 2 * time.Second

// Idle measures for how long a partition has provably had nothing new.
//
// Silence is no proof: a lagging, paused or failing consumer hears nothing
// either. Proof is an answer of the broker that shows nothing beyond the
// position of the reader, and it holds for the moment at which the question
// was sent. Idle time runs from one such moment to the next:
//
//	answers    q       q    q        q        busy     q
//	-----------|-------|----|--------|---------|-------|---->
//	           |<---- proven idle -->|   starts anew   |
//
// and starts anew when the largest event time seen moves (anything less is no
// sign of life: a trickle of late records must not hold the last good ones
// back), when an answer shows something not yet read, and after a Gap.
type Idle struct {
	Timeout time.Duration // 0: a partition is never idle

	from    Instant       // the latest sign of life; questions before it prove nothing
	since   Instant       // start of the proven stretch
	last    Instant       // sending of the latest answered question
	proven  bool          // since and last hold
	drained time.Duration // part of the stretch that has been handed out
}

// Restart ends the proven stretch: at now there was a sign of life.
func (i *Idle) Restart(now Instant) { i.from, i.proven, i.drained = now, false, 0 }

// Observe takes an answer of the broker to a question sent at the given
// instant; quiet means that position, last stable offset and high watermark
// were one. It returns how much further the wall clock may move the
// watermark: the part of the proven idle time beyond the timeout that has not
// been returned before.
func (i *Idle) Observe(sent Instant, quiet bool) time.Duration {
	if sent < i.from {
		return 0
	}
	if !quiet || i.Timeout <= 0 {
		i.Restart(sent)
		return 0
	}
	if !i.proven || sent < i.last || sent.Sub(i.last) > Gap {
		i.Restart(sent)
		i.proven, i.since, i.last = true, sent, sent
		return 0
	}
	i.last = sent
	beyond := i.last.Sub(i.since) - i.Timeout
	if beyond <= i.drained {
		return 0
	}
	step := beyond - i.drained
	i.drained = beyond
	return step
}

// Quiet returns for how long the partition has provably had nothing new.
func (i *Idle) Quiet() time.Duration {
	if !i.proven {
		return 0
	}
	return i.last.Sub(i.since)
}

// Idle reports whether the partition has been idle for the timeout.
func (i *Idle) Idle() bool {
	return i.Timeout > 0 && i.proven && i.last.Sub(i.since) >= i.Timeout
}
