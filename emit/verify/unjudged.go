package verify

import (
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Gap names a reason for which a verdict is not given. What is not judged is counted under
// its reason, and is neither a violation nor taken for correct.
type Gap string

const (
	// GapHidden: a source record whose output may stand behind an open transaction.
	GapHidden Gap = "hidden"
	// GapOriginal: a late duplicate whose original may stand there.
	GapOriginal Gap = "original"
	// GapEventTime: an output whose event time cannot be made again from the record alone.
	// Bytes, partition and headers are judged, order and windows are not.
	GapEventTime Gap = "event-time"
)

// Gaps are all of them, in the order in which they are shown.
var Gaps = []Gap{GapHidden, GapOriginal, GapEventTime}

// gapWhy says what each of them means.
var gapWhy = map[Gap]string{
	GapHidden:    "records read whose output may stand behind an open transaction",
	GapOriginal:  "late duplicates whose original may stand behind an open transaction",
	GapEventTime: "outputs whose event time cannot be made again from the record: order, watermark and windows of these are not judged",
}

// Why says what a gap means.
func (g Gap) Why() string { return gapWhy[g] }

// ErrTimeUnknown is what Rules.EventTime wraps where a record had an event time that
// cannot be made again from the record alone.
var ErrTimeUnknown = errors.New("the event time cannot be made again from the record alone")

// UnknownWhere returns a reading of event times that wraps ErrTimeUnknown where read returns
// an error that wraps unknown.
func UnknownWhere(read func(*kgo.Record) (watermark.Time, error), unknown error) func(*kgo.Record) (watermark.Time, error) {
	found := fmt.Errorf("%w: %w", ErrTimeUnknown, unknown)
	return func(r *kgo.Record) (watermark.Time, error) {
		t, err := read(r)
		if errors.Is(err, unknown) {
			err = found
		}
		return t, err
	}
}

// skip counts an output that is not judged in full.
func (c *Checker) skip(g Gap) { c.report.Unjudged[g]++ }

// eventTime returns the event time of the source record with an offset, -1 if that is not
// known. Where gap is not empty, nobody can tell whether it has one.
func (c *Checker) eventTime(r *kgo.Record, source int64) (t watermark.Time, gap Gap, err error) {
	t, err = c.rules.EventTime(r)
	if errors.Is(err, ErrTimeUnknown) {
		return watermark.None, GapEventTime, err
	}
	return t, "", err
}

// untimed judges what can be judged of an ordered record whose event time is not known.
func (c *Checker) untimed(r *kgo.Record, seen appearance, gap Gap) {
	o, s := &c.out, &c.ordered
	if !c.counts(seen) {
		return
	}
	c.skip(gap)
	if len(c.rules.Identity.OfRecord(&o.Source)) > 0 {
		c.repeats.untold = gap
	}
	c.requires(r)
	switch {
	case c.rules.AtLeastOnce:
		return // it may be one that comes again
	case o.Epoch < s.last.epoch:
		c.faultf(KindOutOfOrder, "epoch %d follows epoch %d", o.Epoch, s.last.epoch)
		return
	case o.Epoch > s.last.epoch:
		s.last = place{o.Epoch, reorder.Position{Time: watermark.None, Offset: -1}}
		s.lines = 0
	}
	c.bareTruth(o.Epoch)
	c.settleRun(o.Epoch)
	c.watermark()
}
