package status

import (
	"fmt"
	"time"

	"github.com/tidemarkhq/tidemark/reorder"
)

// Invalid says what is wrong with a record that has no usable event time: of what kind it is
// and never what it holds. Without an error there is no such record.
type Invalid struct {
	Offset int64
	Err    error
	Hint   string // what to do, if it is known
}

// String says it in words; empty: there is none.
func (i Invalid) String() string {
	if i.Err == nil {
		return ""
	}
	words := fmt.Sprintf("offset %d: %v", i.Offset, i.Err)
	if i.Hint != "" {
		words += "; " + i.Hint
	}
	return words
}

// same says what makes two of them the same: what is wrong, wherever it is.
func (i Invalid) same() string {
	if i.Err == nil {
		return ""
	}
	return i.Err.Error() + "\x00" + i.Hint
}

// LateStretch is what is known of late records of one reason since they were last reported.
type LateStretch struct {
	Records int64         // how many
	First   int64         // offset of the first
	Off     time.Duration // how far the first was off: behind the watermark, or ahead of the wall clock
	Most    time.Duration // the same, of the one that was farthest
	Read    int64         // records of the partition that were read meanwhile, these included
	Total   int64         // late for this reason since the process began
	Invalid Invalid       // what was wrong with the first, if it had no usable event time
	Behind  Behind        // how they came, if they are behind the watermark
}

// Behind says how records came behind the watermark.
type Behind struct {
	Records, Read int64         // how many, of how many
	Mean          time.Duration // how far on average
	Leapt         bool          // most of them, and of their distances, because a record leapt
}

// behind returns how they came between two totals of a partition.
func behind(is, was *Totals) Behind {
	b := Behind{Records: is.Late[reorder.BehindWatermark] - was.Late[reorder.BehindWatermark], Read: is.Read - was.Read}
	by := is.BehindBy - was.BehindBy
	b.Mean = time.Duration(min(by/float64(max(b.Records, 1)), longest.Seconds()) * float64(time.Second))
	b.Leapt = b.Records > 0 && 2*(is.Leapt-was.Leapt) > b.Records && 2*(is.LeaptBy-was.LeaptBy) > by
	return b
}

const longest = 100 * 365 * 24 * time.Hour // more says nothing

func (s *LateStretch) add(offset int64, off time.Duration) (first bool) {
	if first = s.Records == 0; first {
		s.First, s.Off = offset, off
	}
	s.Records++
	s.Most = max(s.Most, off)
	return first
}

// stretches are those of every reason.
type stretches [reorder.Duplicate + 1]LateStretch

// lateReport is what is remembered of the reports about one reason.
type lateReport struct {
	then  Totals        // what was committed by then
	at    time.Time     // of the last one
	pause time.Duration // until the next one
}

// Reports about late records of one reason and partition are so far apart: at first the
// least, each time twice as much, for who has not acted on the first will not on the tenth.
const (
	leastPause = 30 * time.Second
	mostPause  = time.Hour
)

// Late counts a record that goes to the late topic, and how far it was off.
func (l *Ledger) Late(v reorder.Verdict, offset int64, off time.Duration) {
	l.Pending.Late[v]++
	if v == reorder.BehindWatermark {
		l.Pending.BehindBy += off.Seconds()
		l.Farthest = max(l.Farthest, off)
	}
	if s := &l.pendingStretches[v]; s.add(offset, off) && v == reorder.InvalidTime {
		s.Invalid = l.Invalid
	}
}

// Leapt counts a record that is late because another one leapt, and how far it is behind.
func (l *Ledger) Leapt(off time.Duration) {
	l.Pending.Leapt++
	l.Pending.LeaptBy += off.Seconds()
}

// Reports reports whether late records of a reason are still to be reported, the next one not
// being the first of them.
func (l *Ledger) Reports(v reorder.Verdict) bool { return l.pendingStretches[v].Records > 0 }

// LateToReport returns what to report about late records of one reason, if they are many
// enough and it is time. It is called after a commit.
func (l *Ledger) LateToReport(v reorder.Verdict, now time.Time) (LateStretch, bool) {
	if l.stretches[v].Records == 0 {
		return LateStretch{}, false
	}
	s, told := &l.stretches[v], &l.reports[v]
	s.Read, s.Total = l.Committed.Read-told.then.Read, l.Committed.Late[v]
	if v == reorder.BehindWatermark {
		s.Behind = behind(&l.Committed, &told.then)
	}
	return *s, now.Sub(told.at) >= told.pause && matter(v, s)
}

// LateReported begins a new stretch, after the last one was reported.
func (l *Ledger) LateReported(v reorder.Verdict, now time.Time) {
	l.stretches[v], l.pendingStretches[v] = LateStretch{}, LateStretch{}
	told := &l.reports[v]
	if told.pause == 0 || now.Sub(told.at) >= 2*told.pause {
		told.pause = leastPause // it is new, or has ceased and begins again
	} else {
		told.pause = min(2*told.pause, mostPause)
	}
	told.at, told.then = now, l.Committed
}

// matter reports whether late records are worth a line. Records behind the watermark are part
// of normal operation, to a degree; no others are.
func matter(v reorder.Verdict, s *LateStretch) bool {
	const least, share = 10, 100
	return v != reorder.BehindWatermark || s.Records >= least && s.Records*share >= s.Read
}
