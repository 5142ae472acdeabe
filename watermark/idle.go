package watermark

import "time"

// Instant is a reading of a monotonic clock: time since some fixed moment in
// the life of the process. It has nothing to do with event time and survives
// no restart.
type Instant time.Duration

// Sub returns the time from u to i.
func (i Instant) Sub(u Instant) time.Duration { return time.Duration(i - u) }

// Idle measures for how long a partition has provably had nothing new.
//
// Silence is no proof: a lagging, paused or failing consumer hears nothing
// either. Proof is a Stretch of answers of the broker, below whose End all has
// been read by now. Then the log held nothing else at any moment of the
// stretch, and if one of its records had moved the largest event time seen,
// idleness would have started anew when that was read:
//
//	stretch       |-------------------------------|
//	              First                           Last, at which the log ended
//	read          r    r  R     r                      where reading has come to
//	                      |<------ idle --------->|
//	                      R moved the maximum
//
// It does not matter when somebody looks: while records wait to be put out, the
// answers go on, and what they prove counts as soon as all is read. A record
// that does not move the maximum is no sign of life: a trickle of late
// records must not hold the last good ones back. Where something is unread, or
// the stretch is broken, idleness starts anew.
type Idle struct {
	Timeout time.Duration // 0: a partition is never idle

	from    Instant       // the latest sign of life; what was asked before it proves nothing
	since   Instant       // start of the proven time
	last    Instant       // its end
	proven  bool          // since and last hold
	drained time.Duration // part of the proven time that has been handed out
}

// Restart ends the proven time: at now there was a sign of life.
func (i *Idle) Restart(now Instant) { i.from, i.proven, i.drained = max(i.from, now), false, 0 }

// Observe takes what brokers have told of the end of the log; read means that
// all below it has been read. It returns how much further the wall clock may
// move the watermark: the part of the proven idle time beyond the timeout that
// has not been returned before.
func (i *Idle) Observe(heard Stretch, read bool) time.Duration {
	if heard.Last < i.from {
		return 0
	}
	if !heard.whole || !read || i.Timeout <= 0 {
		i.Restart(heard.Last)
		return 0
	}
	if since := max(heard.First, i.from); !i.proven || since != i.since {
		i.proven, i.since, i.drained = true, since, 0
	}
	i.last = heard.Last
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
