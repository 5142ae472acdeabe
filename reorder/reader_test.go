package reorder

import (
	"github.com/tidemarkhq/tidemark/watermark"
)

// reader reads the outputs of a partition as they are written, whether or not they
// have been committed. Of the ordered ones it drops those that are not above the last
// (epoch, event time, offset) it has seen, for these are repeats. What is left has to
// be in order, with watermarks that are true, and nothing may be missing.
type reader struct {
	last *output        // in order
	top  watermark.Time // ms: the largest watermark seen in its epoch
	seen map[int64]bool // offsets, in order or late
	saw  coverage
}

// show lets the reader see the first of what is pending: so many of the ordered topic,
// and so many of the late one, for the two are written side by side. What a commit
// waits for is shown whole.
func (w *world) show(ordered, late int) {
	if w.reader == nil || w.shown {
		return
	}
	w.shown = true
	for i := range w.pending {
		o := &w.pending[i]
		left := &late
		if o.verdict == OnTime {
			left = &ordered
		}
		if *left--; *left >= 0 {
			w.reader.read(w, o)
		}
	}
}

func (r *reader) read(w *world, o *output) {
	if r.seen == nil {
		r.seen = map[int64]bool{}
	}
	if o.verdict != OnTime {
		r.seen[o.Offset] = true
		return
	}
	if l := r.last; l != nil && (o.epoch < l.epoch || o.epoch == l.epoch && !l.Before(o.Position)) {
		r.saw["a repeat is dropped"]++
		return
	}
	if r.last == nil || o.epoch > r.last.epoch {
		r.top = watermark.None
	}
	if watermark.Time(o.Time.Millis()) <= r.top {
		w.failf("a reader of what is not committed has seen the watermark %d, and then #%d t=%s", int64(r.top), o.Offset, ms(o.Time))
	}
	r.top = max(r.top, watermark.Time(o.watermark))
	r.last, r.seen[o.Offset] = o, true
}

// all checks that nothing is missing of what is committed as put out.
func (r *reader) all(w *world) {
	for _, o := range w.out {
		if !r.seen[o.Offset] {
			w.failf("a reader of what is not committed has never seen #%d t=%s, which is %v", o.Offset, ms(o.Time), o.verdict)
		}
	}
}
