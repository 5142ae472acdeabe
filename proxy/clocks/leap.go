package clocks

import (
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
)

// Leap watches for a record that moves the watermark by far more than the records around it,
// and counts the records that are late because of it. It knows two fronts: the lead, which
// moves the watermark, and the crowd that the others go with.
//
//	                   crowd                    lead
//	──────────┬──────────●──────────┬─────────────●──── event time
//	    crowd - bound           lead - bound = W
//	          |<── late for the leap ──>|
//
// What comes nearer to the lead than to the crowd belongs to the lead. It is over when the
// crowd has caught up, and when the lead is the crowd: after a silence everything is with it,
// and nothing is late. The zero value is ready; a Leap decides nothing about a record.
type Leap struct {
	Offset int64         // of the record that leapt first
	By     time.Duration // how far it was ahead of the newest before it
	Late   int64         // records that are late because of it
	Led    int64         // records behind it that are as far ahead,
	Last   int64         // and the last of them; Offset if there is none

	open        bool
	crowd, lead watermark.Time
	before      watermark.Time // the watermark before it: what is below is late in any case
	led         int            // records of the lead, less those of the crowd; within leapOver
}

// leastLeap is less than can matter.
const leastLeap = 100 * time.Millisecond

// leapOver is by how many records the lead has to outnumber the crowd to be the crowd.
const leapOver = 16

// Leaps reports whether a record is far enough ahead of the newest one: by a quarter of the
// bound.
func Leaps(newest, t watermark.Time, bound time.Duration) bool {
	return newest != watermark.None && t.Since(newest) > max(bound/4, leastLeap)
}

// Open reports whether there is a leap that the crowd has not caught up with.
func (l *Leap) Open() bool { return l.open }

// Begin begins with a record that was on time. newest and w are the newest event time and the
// watermark before it.
func (l *Leap) Begin(offset int64, t, newest, w watermark.Time) {
	*l = Leap{Offset: offset, Last: offset, By: t.Since(newest), open: true, crowd: newest, lead: t, before: w}
}

// Add adds a record behind it, while it is open, and reports whether it is over. late says that
// the record was behind the watermark, which is bound behind the lead.
func (l *Leap) Add(offset int64, t watermark.Time, late bool, bound time.Duration) (over bool) {
	if late && t > l.before && t > l.crowd.Add(-bound) {
		l.Late++
	}
	if middle := l.crowd.Add(l.lead.Since(l.crowd) / 2); t > middle {
		l.lead, l.led = max(l.lead, t), l.led+1
		l.Led, l.Last = l.Led+1, offset
	} else {
		l.crowd, l.led = max(l.crowd, t), max(l.led-1, -leapOver)
	}
	l.open = l.led < leapOver && l.lead.Since(l.crowd) > max(bound/8, leastLeap/2)
	return !l.open
}
