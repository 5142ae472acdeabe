package pipeline

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// mark lets a watermark that a record carries move the partition's. One that
// cannot be used, or not be believed, moves nothing; the record is what it is.
func (p *Partition) mark(r *kgo.Record) {
	l := p.line
	if _, replaying := p.State.Replaying(); replaying {
		return // it has moved what it could, and has been counted
	}
	w, present, err := l.Config.WatermarkHeader.Time(r)
	if !present {
		return
	}
	if err == nil && !p.State.Mark(w, l.wall) {
		err = fmt.Errorf("header %q holds %s, which is further ahead of the wall clock than TIDEMARK_MAX_FUTURE=%v allows",
			l.Config.WatermarkHeader, time.Unix(0, int64(w)).UTC().Format(time.RFC3339Nano), l.Config.MaxFuture)
	}
	if err != nil {
		l.Invalid.Markers.add(r, fmt.Errorf("%w: %w", fault.ErrNoWatermark, err))
	}
}
