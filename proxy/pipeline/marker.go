package pipeline

import (
	"fmt"

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
