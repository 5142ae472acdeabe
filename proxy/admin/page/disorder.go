package page

import (
	"math"
	"time"

	"github.com/tidemarkhq/tidemark/proxy/status"
)

// The curve of disorder says, for every distance, how many of the records came that
// far or further behind the newest before them. Both axes are logarithmic: what matters
// for the bound is the last thousandth.

// limit is the upper one of a class.
func limit(class int) time.Duration {
	return time.Duration(status.HistogramLimit(class) * float64(time.Second))
}

// beyond returns how many came further behind than the limit of a class; -1: than the
// first millisecond.
func beyond(h *status.Histogram) (left [len(status.Histogram{}.Classes) + 1]uint64) {
	n := h.Over
	for i := len(h.Classes) - 1; i >= 0; i-- {
		left[i+1] = n
		n += h.Classes[i]
	}
	left[0] = n
	return left
}

func withinWords(h *status.Histogram, share float64) string {
	d, ok := h.Within(share)
	if !ok {
		return "over 12 d"
	}
	return span(d)
}

// disorderWords says what the curve shows.
func disorderWords(h *status.Histogram) string {
	n := h.Count()
	if n == 0 {
		return "No record with an event time has been read yet."
	}
	return "Of " + plural(int64(n), "record", "records") + ", half came within " + withinWords(h, 0.5) + " of the newest before them, 99 % within " +
		withinWords(h, 0.99) + ", 99.9 % within " + withinWords(h, 0.999) + "."
}

// ticks are the times at which the curve has a line, and their names.
var ticks = []struct {
	at   time.Duration
	name string
}{
	{10 * time.Millisecond, "10 ms"},
	{100 * time.Millisecond, "100 ms"},
	{time.Second, "1 s"},
	{10 * time.Second, "10 s"},
	{time.Minute, "1 min"},
	{10 * time.Minute, "10 min"},
	{time.Hour, "1 h"},
	{10 * time.Hour, "10 h"},
	{4 * 24 * time.Hour, "4 d"},
}

// shares are those at which the curve has a line.
var shares = []string{"100 %", "10 %", "1 %", "0.1 %", "0.01 %"}

// disorder draws the curve, and the bound into it.
func (d *document) disorder(h *status.Histogram, bound time.Duration) {
	const (
		top, base = 10, 118 // pixels
		decades   = 4
	)
	n := h.Count()
	d.add(`<svg class="curve" role="img" aria-label="Disorder: %s">`, disorderWords(h))
	defer d.add(`</svg>`)
	left := beyond(h)
	end := times(max(time.Second, bound), 2)
	for i, k := range left[:len(left)-1] {
		if k > 0 {
			end = max(end, limit(i))
		}
	}
	least := limit(-1)
	x := func(t time.Duration) float64 {
		return math.Log2(max(float64(t)/float64(least), 1)) / math.Log2(float64(end)/float64(least)) * 100
	}
	if bound > 0 {
		d.add(`<rect class="late" x="%.1f%%" y="%d" width="%.1f%%" height="%d"/>`, x(bound), top, 100-x(bound), base-top)
	}
	y := func(share int) int { return top + share*(base-top)/decades }
	for i := range shares {
		d.add(`<line class="grid" x1="0" x2="100%%" y1="%d" y2="%d"/>`, y(i), y(i))
	}
	before := 12.0 // room for the shares
	for _, t := range ticks {
		if at := x(t.at); at > before && at < 96 {
			d.add(`<line class="grid" x1="%.1f%%" x2="%.1f%%" y1="%d" y2="%d"/><text class="note" x="%.1f%%" y="%d" text-anchor="middle">%s</text>`, at, at, top, base, at, base+14, t.name)
			before = at + 12
		}
	}
	if n > 0 {
		d.add(`<svg y="%d" width="100%%" height="%d" viewBox="0 0 100 100" preserveAspectRatio="none"><path class="measured" vector-effect="non-scaling-stroke" d="`, top, base-top)
		for i, k := range left {
			y := 100.0
			if k > 0 {
				y = min(-math.Log10(float64(k)/float64(n))/decades*100, 100)
			}
			d.add(`%s%.1f %.1f`, either(i == 0, "M", "L"), x(limit(i-1)), y)
			if k == 0 {
				break
			}
		}
		d.add(`"/></svg>`)
	}
	for i, name := range shares {
		d.add(`<text class="note" x="4" y="%d">%s</text>`, y(i)+13, name)
	}
	if bound > 0 {
		d.add(`<line class="bound" x1="%.1f%%" x2="%.1f%%" y1="%d" y2="%d"/>`, x(bound), x(bound), top, base)
		d.label("bound", x(bound)-1, base+28, "end", "bound "+span(bound)+", beyond it late")
	}
}
