package clocks

import "time"

// Finding is what evidence points to.
type Finding uint8

const (
	// Right: no clock is off by more than the slack, or there is no way to know.
	Right Finding = iota
	// Ahead: event times are in the future of the clock they are compared with.
	Ahead
	// Behind: event times lag by an offset that hardly varies, as that of a
	// clock does.
	Behind
	// WrittenLate: events are written after a long and varying delay: batching, devices
	// that were offline, a backfill.
	WrittenLate
	// ReadLate: records are read long after they were written: a backlog.
	ReadLate
	// OwnAhead: the clock of this machine is ahead of the brokers'.
	OwnAhead
	// OwnBehind: the clock of this machine is behind the brokers'.
	OwnBehind
)

var findings = [...]string{"", "clock-ahead", "clock-behind", "written-late", "read-late", "own-clock-ahead", "own-clock-behind"}

// String returns the finding in one word, nothing for Right.
func (f Finding) String() string { return findings[f] }

// Finding returns what the evidence points to; slack is how far clocks may be apart.
//
// Two clocks can be compared only if it is known how much time passed between their
// readings. The broker's clock (LogAppendTime) was read when the record was written,
// whatever happened before and after. Without it there is only the time of reading, and only
// if the record was read at once. A record from the future of the reader shows in any case.
func (e Evidence) Finding(slack time.Duration) Finding {
	if e.Records == 0 {
		return Right
	}
	if e.Appended {
		return e.byBroker(slack)
	}
	switch {
	case e.Age.Median < -slack:
		return Ahead
	case e.Age.Median <= slack:
		return Right
	case e.Written.Count > 0 && e.Written.Median > slack && !steady(e.Written):
		return WrittenLate
	case !e.Fresh && e.Transit.Median > slack:
		return ReadLate
	case e.Fresh && steady(e.Age):
		return Behind
	case e.Fresh:
		return WrittenLate
	}
	return Right
}

func (e Evidence) byBroker(slack time.Duration) Finding {
	switch {
	case e.Transit.Median < -slack:
		return OwnBehind
	case e.Fresh && e.Transit.Median > slack:
		return OwnAhead
	case e.Written.Median < -slack:
		return Ahead
	case e.Written.Median > slack && steady(e.Written):
		return Behind
	case e.Written.Median > slack:
		return WrittenLate
	case e.Transit.Median > slack:
		return ReadLate
	}
	return Right
}

// steady tells the offset of a clock from a delay, which varies by much of its own length.
func steady(s Spread) bool { return s.Deviation <= s.Median.Abs()/4 }
