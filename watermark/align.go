package watermark

import "time"

// Alignment keeps partitions from running away from each other: whoever is
// further than the drift ahead of the slowest has to wait.
//
//	event time ----------------------------------------------------->
//	                 slowest        slowest + drift
//	------------------|---------------------|--------------------
//	     idle         W                W    |         W
//	 holds nobody up           goes on      |       waits
//
// Only partitions that are read from hold others up: one that is idle has
// nothing to catch up with, and one that never had a record has no watermark.
// Neither has anything to wait with. The slowest of those that count never
// waits, whatever the drift, so there is always one that goes on.
//
// It is asked in two rounds: Count every partition, then ask Ahead of each.
// The rules are those of Flink (FLIP-182, FLIP-217) for the splits of a source.
type Alignment struct {
	drift   time.Duration
	slowest Time // Max while nobody counts
}

// NewAlignment returns an alignment that nobody has been counted in.
func NewAlignment(drift time.Duration) Alignment {
	return Alignment{drift: drift, slowest: Max}
}

// Count takes a partition at watermark w into account.
func (a *Alignment) Count(w Time, idle bool) {
	if counts(w, idle) {
		a.slowest = min(a.slowest, w)
	}
}

// Ahead reports whether a partition at watermark w has to wait. At the drift
// exactly it goes on.
func (a *Alignment) Ahead(w Time, idle bool) bool {
	return counts(w, idle) && w > a.slowest.Add(a.drift)
}

// Slowest returns the smallest watermark that counts, None if none does.
func (a *Alignment) Slowest() Time {
	if a.slowest == Max {
		return None
	}
	return a.slowest
}

func counts(w Time, idle bool) bool { return !idle && w != None }
