package pipeline

import (
	"fmt"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// mark lets a watermark in a record's header move the partition's watermark. One that is
// unusable, or too far in the future, moves nothing; the record itself is not affected.
func (p *Partition) mark(r *kgo.Record) {
	l := p.line
	if _, replaying := p.State.Replaying(); replaying {
		return // it was applied and counted before
	}
	w, present, err := l.Config.WatermarkHeader.Time(r)
	p.countMarker(present, r.Offset)
	if !present {
		return
	}
	if err == nil && p.Ledger.MarkerFitting.Add(p.reading(r, w)) {
		p.reportMarkerMisfit(r)
	}
	if err == nil && !p.State.Mark(w, l.wall) {
		err = fmt.Errorf("header %q is further ahead of the wall clock than TIDEMARK_MAX_FUTURE=%v allows",
			l.Config.WatermarkHeader, l.Config.MaxFuture)
	}
	if err != nil {
		if bad := &l.Invalid.Markers; bad.add(r, fmt.Errorf("%w: %w", fault.ErrNoWatermark, err)) {
			bad.Hint = l.Config.WatermarkHeader.Cure(err)
		}
	}
}

// reportMarkerMisfit reports that what is known of how the watermarks of records fit other
// clocks has changed. One of 1970 releases nothing, whatever is held.
func (p *Partition) reportMarkerMisfit(r *kgo.Record) {
	l, found, about := p.line, p.Ledger.MarkerFitting.Found(), "watermarks of "+p.Topic
	if found.Factor == 0 {
		l.Reporter.Changed(about, "", slog.LevelInfo, "watermarks that records carry are plausible again", "topic", p.Topic, "partition", p.Partition, "offset", r.Offset)
		p.Ledger.MarkerMisfit = "" // those that are only old are for who waits for what they release
		return
	}
	what, cure := l.Config.WatermarkHeader.TooSmall(found.Factor)
	p.Ledger.MarkerMisfit = what + "; " + cure
	l.Reporter.Changed(about, what, slog.LevelWarn, "watermarks that records carry have the wrong unit; what is held is not released by them",
		"topic", p.Topic, "partition", p.Partition, "offset", r.Offset, "header", l.Config.WatermarkHeader.String(), "finding", what, "hint", cure)
}
