package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/timestamp"
	"github.com/tidemarkhq/tidemark/watermark"
)

// EventTimes returns a reading of event times that waits for schemas, for those who
// have nothing else to do meanwhile. When there has been no answer for as long as
// patience it tells giveUp, which is to end ctx; what it returns then is no verdict.
func (r *Registry) EventTimes(ctx context.Context, e *timestamp.Extractor, patience time.Duration, giveUp func(error)) func(*kgo.Record) (watermark.Time, error) {
	e = e.With(r)
	return func(rec *kgo.Record) (watermark.Time, error) {
		for {
			t, err := e.Extract(rec)
			pending, ok := errors.AsType[*timestamp.Pending](err)
			if !ok {
				return t, err
			}
			if err := r.answer(ctx, pending.ID, patience); err != nil {
				giveUp(err)
				return watermark.None, err
			}
		}
	}
}

// answer waits for the answer to a question, whatever may go wrong meanwhile.
func (r *Registry) answer(ctx context.Context, id uint32, patience time.Duration) error {
	q := r.ask(id)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-q.done:
		return r.life.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
	}
	if told := q.fault.Load(); told != nil {
		return *told
	}
	return fmt.Errorf("ask for schema %d: %w", id, errDown)
}
