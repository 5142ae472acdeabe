package verify

import (
	"errors"
	"fmt"
	"math"

	"github.com/twmb/franz-go/pkg/kgo"
)

// topics are the three topics of a partition.
type topics interface {
	Raw(from int64) cursor // the source from an offset on
	Ordered() cursor
	Late() cursor
}

// cursor reads one topic.
type cursor interface {
	Peek() (*kgo.Record, error) // nil at the end
	Pop()
}

// maxBare bounds the records without identity, which are kept to the end.
const maxBare = 1_000_000

// examine feeds the checker of one partition, generation by generation: of the two
// outputs the one that lags in (epoch, source offset), and before it the source up to
// that offset.
//
//	raw      5 6 7 8 ──┐  5 is below the lagging output's 6: feed 5, then 6,
//	.ordered 6 9 8   ──┼─ then the 6 of .ordered, then 7 and 8, then ...
//	.late    7 20    ──┘
//
// Outputs of more than one epoch are read once before, to find the generations. A
// source that a generation reads again is read again for it.
func examine(c *Checker, t topics) error {
	if c.scope.Epochs {
		if err := foresee(c, t); err != nil {
			return err
		}
	}
	c.first()
	ordered, late := outputHead{cursor: t.Ordered()}, outputHead{cursor: t.Late(), late: true}
	if c.scope.OrderedStart > 0 && !c.scope.Epochs {
		if err := ordered.peek(c); err != nil {
			return err
		}
		if ordered.rec != nil {
			c.Begin(ordered.rec)
		}
	}
	for more := true; more; more = c.next() {
		from, to := c.reading()
		if from >= to && !c.final() {
			continue
		}
		raw := t.Raw(from)
		if err := feedGeneration(c, raw, &ordered, &late); err != nil {
			return err
		}
		if !c.final() {
			continue
		}
		c.OutputsEnd()
		if c.seeksNewer() {
			to = math.MaxInt64
		}
		if err := feedRaw(c, raw, to); err != nil {
			return err
		}
	}
	if c.Claims() {
		return eachRecord(t.Ordered(), c.Original)
	}
	return nil
}

func foresee(c *Checker, t topics) error {
	ordered := func(r *kgo.Record) {
		if c.scope.OrderedStart > 0 {
			c.Begin(r)
		}
		c.Foresee(r, false)
	}
	late := func(r *kgo.Record) { c.Foresee(r, true) }
	return errors.Join(eachRecord(t.Ordered(), ordered), eachRecord(t.Late(), late))
}

func eachRecord(from cursor, take func(*kgo.Record)) error {
	for {
		r, err := from.Peek()
		if r == nil || err != nil {
			return err
		}
		take(r)
		from.Pop()
	}
}

// feedGeneration feeds the outputs of a generation.
func feedGeneration(c *Checker, raw cursor, ordered, late *outputHead) error {
	for {
		if err := errors.Join(ordered.peek(c), late.peek(c)); err != nil {
			return err
		}
		next := lagging(ordered, late)
		if next == ordered && ordered.source < 0 && late.rec != nil && late.source >= 0 && late.source < c.rawNext && late.epoch <= ordered.epoch {
			next = late // an ordered record that does not name its source record says nothing of where it stands
		}
		if next == nil || next.epoch >= c.epochs.end() {
			return nil
		}
		if err := feedRaw(c, raw, next.source+1); err != nil {
			return err
		}
		if !next.late {
			if err := feedSought(c, raw, next.rec); err != nil {
				return err
			}
		}
		next.feed(c)
		if c.report.Bare > maxBare {
			return fmt.Errorf("more than %d %w", maxBare, ErrNoIdentity)
		}
	}
}

// feedRaw feeds the source records below an offset.
func feedRaw(c *Checker, raw cursor, below int64) error {
	for {
		r, err := raw.Peek()
		if err != nil || r == nil {
			return err
		}
		if r.Offset >= below {
			c.passed(r.Offset)
			return nil
		}
		raw.Pop()
		c.Raw(r)
	}
}

// feedSought feeds source records until there is one with the bytes of an ordered record that
// does not name it.
func feedSought(c *Checker, raw cursor, ordered *kgo.Record) error {
	for c.seeks(ordered) {
		r, err := raw.Peek()
		if err != nil || r == nil {
			return err
		}
		raw.Pop()
		c.Raw(r)
	}
	return nil
}

// outputHead is the next record of an output and what it says of itself.
type outputHead struct {
	cursor
	late          bool
	rec           *kgo.Record
	epoch, source int64
}

func (h *outputHead) peek(c *Checker) (err error) {
	if h.rec != nil {
		return nil
	}
	h.rec, err = h.cursor.Peek()
	if h.rec != nil {
		h.epoch, h.source = c.Place(h.rec, h.late)
	}
	return err
}

func (h *outputHead) feed(c *Checker) {
	switch {
	case h.rec == nil:
		return
	case h.late:
		c.Late(h.rec)
	default:
		c.Ordered(h.rec)
	}
	h.rec = nil
	h.Pop()
}

// lagging returns the output whose next record is the earlier in (epoch,
// source offset), or nil if both have ended.
func lagging(a, b *outputHead) *outputHead {
	switch {
	case a.rec == nil && b.rec == nil:
		return nil
	case b.rec == nil:
		return a
	case a.rec == nil:
		return b
	case a.epoch < b.epoch || a.epoch == b.epoch && a.source <= b.source:
		return a
	}
	return b
}
