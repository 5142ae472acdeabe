package page

import (
	"math"
	"slices"
	"time"

	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// A time line is a picture of event time, from left to right:
//
//	                                        newest event     wall clock
//	  put out    ▏  ▁▃▂▅█▆▇▃ held ▂▂▁▃▁▂▁▁ ▕               ┊
//	─────────────┼──────────────────────────┤               ┊
//	         watermark  └────── bound ──────┘
//
// Across it is measured in percent, so that a picture is as wide as there is room.

// scale says where times lie: the width is all that there is room for.
type scale struct {
	from  watermark.Time
	width time.Duration
}

// at returns where a time lies, in percent; below 0 and above 100 there is no room.
func (s scale) at(t watermark.Time) float64 {
	// As floats, for they may be centuries apart.
	return (float64(t) - float64(s.from)) / float64(s.width) * 100
}

// oldest returns the oldest time that a time line has to show.
func oldest(p *status.Partition) watermark.Time {
	least := p.Newest
	for _, t := range []watermark.Time{p.Watermark, p.Density.From} {
		if t != watermark.None {
			least = min(least, t)
		}
	}
	return least
}

// stretch is how long it is from there to the newest event.
func stretch(p *status.Partition) time.Duration { return p.Newest.Since(oldest(p)) }

// rowWidth is how much of event time the rows have room for up to the newest event,
// all of them the same, so that they can be compared: enough for nine of ten partitions.
func rowWidth(ps []status.Partition) time.Duration {
	all := []time.Duration{time.Second}
	for i := range ps {
		if ps[i].Newest != watermark.None {
			all = append(all, stretch(&ps[i]))
		}
	}
	slices.Sort(all)
	return max(all[(len(all)-1)*9/10], time.Second)
}

// rowScale has the newest event of each partition at the same place.
func rowScale(newest watermark.Time, width time.Duration) scale {
	const room, after = 1.1, 0.5 // of the width: up to the newest event, and behind it
	return scale{newest.Sub(times(width, room)), times(width, room+after)}
}

// ownScale shows all there is of a partition, and the wall clock if that is near.
func ownScale(p *status.Partition, now watermark.Time, bound time.Duration) scale {
	from, to := oldest(p), p.Newest
	if bound > 0 {
		from = min(from, p.Newest.Sub(bound))
	}
	long := max(to.Since(from), time.Second)
	if from.Since(now) < long && now.Since(to) < times(long, 3) {
		from, to = min(from, now), max(to, now)
	} else {
		from, to = from.Sub(times(long, 0.3)), to.Add(times(long, 0.3))
	}
	long = max(to.Since(from), time.Second)
	return scale{from.Sub(times(long, 0.04)), times(long, 1.08)}
}

// times multiplies, up to what a duration can be.
func times(d time.Duration, f float64) time.Duration {
	return time.Duration(min(float64(d)*f, math.MaxInt64/2))
}

// form is how a time line is drawn: heights in pixels from the top.
type form struct {
	class           markup
	top, base, foot int // of what is held, and of the lines through it
	bracket         int // the bound
	words           bool
}

var (
	small = form{"line", 3, 19, 25, 23, false}
	large = form{"line large", 38, 88, 98, 95, true}
)

// timeline draws the time line of a partition.
func (d *document) timeline(p *status.Partition, bound time.Duration, at time.Time, s scale, f form) {
	d.add(`<svg class="%s" role="img" aria-label="Time line: %s">`, f.class, timelineWords(p, at))
	defer d.add(`</svg>`)
	d.add(`<line class="axis" x1="0" x2="100%%" y1="%d" y2="%d"/>`, f.base, f.base)
	if p.Newest == watermark.None {
		d.add(`<text class="note" x="50%%" y="%d" text-anchor="middle">no event time yet</text>`, f.base-4)
		return
	}
	now, newest := watermark.Time(at.UnixNano()), s.at(p.Newest)
	if p.Watermark != watermark.None {
		w := s.at(p.Watermark)
		d.add(`<rect class="out" x="0" y="%d" width="%.1f%%" height="%d"/>`, f.top, min(max(w, 0), 100), f.base-f.top)
	}
	d.density(&p.Density, s, f)
	if bound > 0 {
		d.add(`<line class="bound" x1="%.1f%%" x2="%.1f%%" y1="%d" y2="%d"/>`, max(s.at(p.Newest.Sub(bound)), -1), newest, f.bracket, f.bracket)
	}
	d.upright("newest", newest, f, 30, "newest", p.Newest, at)
	if p.Watermark != watermark.None {
		d.upright("watermark", s.at(p.Watermark), f, 126, "watermark", p.Watermark, at)
	}
	if c := s.at(now); c >= 0 && c <= 100 {
		d.upright("clock", c, f, 14, "", now, at)
	} else {
		d.clockAway(c < 0, f, now.Since(p.Newest))
	}
	if f.words && bound > 0 {
		d.label("bound", newest, 110, "end", "bound "+span(bound))
	}
}

// upright draws a line through a time line at a place, with words if there is room.
func (d *document) upright(class markup, x float64, f form, y int, name string, t watermark.Time, now time.Time) {
	if x < 0 {
		if class == "watermark" {
			d.add(`<path class="away" d="M7 %dL1 %dL7 %dZ"/>`, f.base-12, f.base-8, f.base-4)
		}
		return
	}
	d.add(`<line class="%s" x1="%.1f%%" x2="%.1f%%" y1="%d" y2="%d"/>`, class, x, x, f.top-2, f.foot)
	if f.words {
		words := name + " " + distance(ago(t, now), "ago", "ahead")
		if name == "" {
			words = "wall clock " + now.UTC().Format("15:04:05 UTC")
		}
		d.label(class, x, y, either(x < 50, "start", "end"), words)
	}
}

func (d *document) label(class markup, x float64, y int, anchor markup, words string) {
	d.add(`<text class="%s" x="%.1f%%" y="%d" text-anchor="%s">%s</text>`, class, x, y, anchor, words)
}

// density draws how what is held lies between the watermark and the newest event.
func (d *document) density(h *reorder.Held, s scale, f form) {
	most := slices.Max(h.Cells[:])
	if h.From == watermark.None || most == 0 {
		return
	}
	const least = 0.5 // percent: to be seen
	x := s.at(h.From)
	d.add(`<svg x="%.1f%%" y="%d" width="%.1f%%" height="%d" viewBox="0 0 %d 100" preserveAspectRatio="none"><path class="held" d="M0 100`,
		x, f.top, max(s.at(h.To)-x, least), f.base-f.top, len(h.Cells))
	for i, n := range h.Cells {
		high := 0.0
		if n > 0 {
			high = max(float64(n)/float64(most)*100, 6)
		}
		d.add(`V%.0fH%d`, 100-high, i+1)
	}
	d.add(`V100Z"/></svg>`)
}

// timelineWords says what a time line shows.
func timelineWords(p *status.Partition, now time.Time) string {
	if p.Newest == watermark.None {
		return "no event time yet"
	}
	words := "newest event " + distance(ago(p.Newest, now), "ago", "ahead")
	if p.Watermark != watermark.None {
		words += ", watermark " + distance(ago(p.Watermark, now), "ago", "ahead")
	} else {
		words += ", no watermark yet"
	}
	if p.Held > 0 { // by the last commit, as everywhere on the page
		words += ", " + plural(p.Held, "record", "records") + " held"
	}
	return words
}

// clockAway says where the wall clock is that there is no room for: above the picture. In a row
// there is no room for words, and how far away it is stands in the column beside it.
func (d *document) clockAway(before bool, f form, by time.Duration) {
	x, anchor := either(before, "0", "100%"), either(before, "start", "end")
	if !f.words {
		d.add(`<text class="note" x="%s" y="%d" text-anchor="%s">%s</text>`, x, f.top+8, anchor, either(before, "◂", "▸"))
		return
	}
	words := "clock +" + span(by) + " ▸"
	if before {
		words = "◂ clock −" + span(-max(by, -math.MaxInt64))
	}
	d.add(`<text class="clock" x="%s" y="14" text-anchor="%s">%s</text>`, x, anchor, words)
}
