package proxy

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// mark lets a watermark that a record carries move the partition's. One that
// cannot be used, or not be believed, moves nothing; the record is what it is.
func (s *session) mark(p *partition, r *kgo.Record) {
	if _, replaying := p.state.Replaying(); replaying {
		return // it has moved what it could, and has been counted
	}
	w, present, err := s.cfg.WatermarkHeader.Time(r)
	if !present {
		return
	}
	if err == nil && !p.state.Mark(w, s.wall) {
		err = fmt.Errorf("header %q holds %s, which is further ahead of the wall clock than TIDEMARK_MAX_FUTURE=%v allows",
			s.cfg.WatermarkHeader, time.Unix(0, int64(w)).UTC().Format(time.RFC3339Nano), s.cfg.MaxFuture)
	}
	if err != nil {
		s.invalid.markers.add(r, fmt.Errorf("%w: %w", fault.ErrNoWatermark, err))
	}
}
