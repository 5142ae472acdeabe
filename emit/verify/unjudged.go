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
	// GapUnnamed: an output that does not name its source record, and was not found among
	// maxUnnamed; or a source record whose output may be such a one.
	GapUnnamed Gap = "unnamed"
	// GapEpochs: an ordered record where those of several epochs do not name their source
	// records.
	GapEpochs Gap = "epochs"
	// GapOtherTimes: an output of before event times came to be made as they are now, or of
	// an epoch of which nothing says how they were made.
	GapOtherTimes Gap = "other-event-time"
	// GapBeforeFrom: an output of before From.
	GapBeforeFrom Gap = "before-from"
	// GapEventTime: an output whose event time cannot be made again from the record alone.
	// Bytes, partition and headers are judged, order and windows are not.
	GapEventTime Gap = "event-time"
)

// Gaps are all of them, in the order in which they are shown.
var Gaps = []Gap{GapHidden, GapOriginal, GapUnnamed, GapEpochs, GapOtherTimes, GapBeforeFrom, GapEventTime}

// gapWhy says what each of them means.
var gapWhy = map[Gap]string{
	GapHidden:     "records read whose output may stand behind an open transaction",
	GapOriginal:   "late duplicates whose original may stand behind an open transaction",
	GapUnnamed:    "outputs without source offset, and records read, too far apart to be found by their bytes",
	GapEpochs:     "outputs without source offset of more than one epoch: one may stand in for what is missing in another",
	GapOtherTimes: "outputs of before TIDEMARK_EVENT_TIME is known to be as it is now: not judged by event time",
	GapBeforeFrom: "outputs of before --from: not judged by event time, as repeats, or by their headers",
	GapEventTime:  "outputs whose event time cannot be made again from the record: not judged by event time",
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
// known, in the epoch that an output names, or anyEpoch. Where gap is not empty, nobody can
// tell whether it has one.
func (c *Checker) eventTime(r *kgo.Record, source, epoch int64) (t watermark.Time, gap Gap, err error) {
	if gap := c.otherTimes(source, epoch); gap != "" {
		return watermark.None, gap, ErrTimeUnknown
	}
	t, err = c.rules.EventTime(r)
	if errors.Is(err, ErrTimeUnknown) {
		return watermark.None, GapEventTime, err
	}
	return t, "", err
}

// otherTimes says why event times of that source offset and epoch were not made as they
// are now, if so.
func (c *Checker) otherTimes(source, epoch int64) Gap {
	s := &c.scope
	switch {
	case s.TimesFrom == 0 && s.TimesEpoch == 0 && s.From == (From{}):
		return ""
	case source < s.From.Offset, epoch != anyEpoch && epoch < s.From.Epoch, epoch == anyEpoch && s.From.Epoch > c.epochs.last && source < c.epochs.after(s.From.Epoch-1):
		return GapBeforeFrom
	case source < s.TimesFrom, c.otherEpoch(source, epoch):
		return GapOtherTimes
	}
	return ""
}

// otherEpoch reports whether an output may be of an epoch of before TimesEpoch. Which source
// records that was does not depend on epochs: where event times changed within the last
// generation, TimesFrom parts them.
func (c *Checker) otherEpoch(source, epoch int64) bool {
	if epoch == anyEpoch {
		return source < 0 && c.epochs.current() < c.scope.TimesEpoch
	}
	return epoch < c.scope.TimesEpoch
}

// From says from where on event times are judged. Its zero value is the beginning.
type From struct {
	Epoch  int64 // of outputs
	Offset int64 // of the source
	// Told says that Epoch was given, and counts whatever the commit says of epochs.
	Told bool
}

// Times sums up the violations that another configuration of then would explain: other event
// times, another identity of repeats, fewer headers.
type Times struct {
	Wrong  int64 `json:"violations"`
	Source int64 `json:"source_offset"` // the highest of them
	Epoch  int64 `json:"epoch"`         // the highest of them
	Right  int64 `json:"right_offset"`  // the highest source offset of an ordered record that is right,
	Since  int64 `json:"right_epoch"`   // in the highest epoch that has one
}

// right takes note of an ordered record of which everything is right.
func (t *Times) right(p place) {
	if p.epoch > t.Since || p.epoch == t.Since && p.Offset > t.Right {
		t.Since, t.Right = p.epoch, p.Offset
	}
}

// HintFrom returns where the configuration may have changed, if all violations that it would
// explain lie before what is right.
func (t *Times) HintFrom() (from From, ok bool) {
	switch {
	case t.Wrong == 0 || t.Since < t.Epoch:
		return From{}, false
	case t.Since > t.Epoch:
		return From{Epoch: t.Epoch + 1}, true
	}
	return From{Offset: t.Source + 1}, t.Right > t.Source
}

// settingFault reports a violation of c.out that another configuration of then would explain.
func (c *Checker) settingFault(kind Kind, format string, args ...any) {
	t := &c.report.Times
	t.Wrong++
	t.Source, t.Epoch = max(t.Source, c.out.SourceOffset), max(t.Epoch, c.out.Epoch)
	c.faultf(kind, format, args...)
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
	if gap != GapBeforeFrom {
		c.requires(r)
	}
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
