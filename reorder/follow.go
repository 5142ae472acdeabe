package reorder

import (
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
)

// follow lets the watermark go after a record that was held, as the strategy
// says, and reports whether it was the newest so far.
func (p *Partition) follow(t watermark.Time) (newest bool) {
	newest = p.clock.See(t)
	switch p.opts.Strategy {
	case watermark.Bounded:
		p.clock.Behind(p.clock.Max, p.opts.Bound)
	case watermark.Adaptive:
		p.clock.Behind(p.clock.Max, p.bound())
	case watermark.WindowMin:
		if oldest, ok := p.window.oldest(&p.clock, p.opts.Window); ok {
			p.clock.Behind(oldest, p.opts.Lateness)
		}
	case watermark.Punctuated: // only markers move it
	}
	return newest
}

// followLearned lets the watermark follow what a late record has taught. Whether a record is
// late may hang on the clock or on memory, which decide otherwise after a crash; where the
// strategy alone has the watermark may not, for a reader of what is not committed has seen it.
func (p *Partition) followLearned() {
	if p.opts.Strategy == watermark.Adaptive {
		p.clock.Behind(p.clock.Max, p.bound())
	}
}

// learn takes note of how far behind the newest a record has come, whatever
// became of it: the bound has to be enough for the late ones too.
func (p *Partition) learn(t watermark.Time) {
	if p.disorder != nil {
		p.disorder.Add(p.clock.Max.Since(t)) // below 0 for the newest, and for the first
	}
}

// bound is what has been learned, within the limits. Before enough is known it
// is the largest.
func (p *Partition) bound() time.Duration {
	learned, known := p.disorder.Bound()
	if !known {
		return p.opts.Bound
	}
	return min(max(learned, p.opts.Floor), p.opts.Bound)
}

// Mark takes what the record last stepped says of the watermark, if the
// strategy is Punctuated, and reports whether it is believed: a marker that is
// too far in the future is not. It comes after the record's verdict and must not
// change that when the record is read again, so the limit that the guard may set
// for the marker holds from the next record on.
func (p *Partition) Mark(w, wall watermark.Time) (believed bool) {
	if p.opts.Strategy != watermark.Punctuated || p.replay != nil {
		return true
	}
	p.dirty = true
	limit := p.guard.Limit()
	if !p.guard.Believes(p.next, w, wall) {
		return false
	}
	p.doubts.moved = p.doubts.moved || p.guard.Limit() != limit
	p.clock.AdvanceTo(w)
	return true
}

// window knows the times of the records held that are not older than a window
// before the newest. They leave from the front: by becoming older than that, or
// by being released. So a queue of times is enough; what has left never comes
// back.
type window struct{ times calendar }

func newWindow() window { return window{newCalendar()} }

func (w *window) add(t watermark.Time) { w.times.push(entry{Position: Position{Time: t}}) }

// oldest returns the oldest of them.
func (w *window) oldest(c *watermark.Clock, size time.Duration) (watermark.Time, bool) {
	for {
		e, ok := w.times.peek(watermark.Max)
		if !ok || e.Time > c.W && e.Time >= c.Max.Sub(size) {
			return e.Time, ok
		}
		w.times.pop()
	}
}
