package watermark

import "time"

// Clock is the event-time clock of one partition: how far its records have
// come, and what may no longer be expected. The law of the watermark stands
// here and nowhere else: it never goes back.
//
// Two watermarks are kept. W judges. Natural is where W would stand had
// nothing but records and idleness moved it; the two differ only after memory
// forced W ahead, and then Natural tells which records were late anyway and
// which are late because of the sidecar.
type Clock struct {
	W       Time // no further record with an event time <= W is expected
	Natural Time // <= W
	Max     Time // the largest event time seen, None before the first record
}

// NewClock returns the clock of a partition, or of an epoch, that has seen
// nothing.
func NewClock() Clock { return Clock{W: None, Natural: None, Max: None} }

// Late reports whether an event time is behind the watermark. W itself is
// late, W+1 is on time.
func (c *Clock) Late(t Time) bool { return t <= c.W }

// See takes the event time of an on-time record into account. It reports
// whether the maximum moved. The record must have been judged before.
func (c *Clock) See(t Time) (newest bool) {
	newest = t > c.Max
	c.Max = max(c.Max, t)
	return newest
}

// Behind moves both watermarks to where no record later than the bound can be
// expected, seen from t: W = t - bound - 1 ns.
func (c *Clock) Behind(t Time, bound time.Duration) { c.AdvanceTo(t.Sub(bound).Sub(1)) }

// AdvanceTo moves both watermarks forward to w; to a smaller w they stay.
func (c *Clock) AdvanceTo(w Time) {
	c.Natural = max(c.Natural, w)
	c.W = max(c.W, w)
}

// Drain moves both watermarks forward by d, each from where it stands, but not
// beyond the newest event time: there is nothing left to wait for.
func (c *Clock) Drain(d time.Duration, newest Time) {
	c.Natural = max(c.Natural, min(c.Natural.Add(d), newest))
	c.W = max(c.W, min(c.W.Add(d), newest))
}

// ForceTo moves only the judging watermark, because what it covers had to go
// early.
func (c *Clock) ForceTo(w Time) { c.W = max(c.W, w) }
