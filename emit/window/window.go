// Package window says which windows of time an event time is in: tumbling and
// hopping ones, aligned as Flink aligns them, and the one that ends at the
// event. It is pure: a window is a function of the event time and of how the
// windows were written down, and of nothing else.
package window

import (
	"strings"

	"github.com/tidemarkhq/tidemark/emit/zone"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Window is the event times from Start up to, and without, End, in ms since
// the Unix epoch.
type Window struct{ Start, End int64 }

// Family is all windows of one kind. A day of a zone's calendar is one window,
// however many hours it has.
//
//	              ├──── size ────┤
//	tumbling      ├──────────────┼──────────────┼──────────────┤
//	              offset
//
//	hopping       ├──────────────┤
//	              ├slide├──────────────┤
//	                    ├slide├──────────────┤
//
//	sliding       ├─────────────x┤ the event ends it, and is in it
type Family struct {
	name   string     // as it was written
	size   int64      // ms
	slide  int64      // ms from one start to the next; 0: sliding
	offset int64      // ms by which starts are shifted; less than slide, either way
	zone   *zone.Zone // on whose wall clock all this is counted; nil: UTC
}

// String returns the family as it was written, which is how Parse reads it.
func (f *Family) String() string { return f.name }

// Most returns the most windows that one event time is in.
func (f *Family) Most() int {
	if f.slide == 0 {
		return 1
	}
	return int((f.size + f.slide - 1) / f.slide)
}

// Append appends the windows that a time is in, the oldest first; there is
// always one. All times of the stretch, and no others, are in the same windows.
func (f *Family) Append(ws []Window, t watermark.Time) (_ []Window, stretch Window) {
	ms := t.Millis()
	if f.slide == 0 {
		return append(ws, Window{ms - f.size, ms + 1}), Window{ms, ms + 1}
	}
	clock := f.zone.Reached(ms)
	into := floorMod(clock-f.offset, f.slide) // how far the time is into the youngest
	youngest := clock - into
	oldest := youngest - (f.size-1-into)/f.slide*f.slide
	for start := oldest; start <= youngest; start += f.slide {
		ws = append(ws, Window{f.zone.First(start), f.zone.First(start + f.size)})
	}
	from := max(youngest, oldest-f.slide+f.size) // where the one before the oldest ended
	until := min(youngest+f.slide, oldest+f.size)
	return ws, Window{f.zone.First(from), f.zone.First(until)}
}

// floorMod is a mod n, not below 0: Flink's getWindowStartWithOffset takes care
// of times below 1970 in the same way.
func floorMod(a, n int64) int64 {
	m := a % n
	if m < 0 {
		m += n
	}
	return m
}

// Set is families in the order in which they were written.
type Set []*Family

// String returns the set as Parse reads it.
func (s Set) String() string {
	names := make([]string, len(s))
	for i, f := range s {
		names[i] = f.name
	}
	return strings.Join(names, ",")
}

// Most returns the most windows that one event time is in.
func (s Set) Most() (n int) {
	for _, f := range s {
		n += f.Most()
	}
	return n
}
