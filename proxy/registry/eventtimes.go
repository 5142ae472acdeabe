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

// EventTimes returns a function that extracts event times and blocks until their schemas are
// known. When the registry has not answered for patience it calls giveUp, which has to
// cancel ctx; the error that it returns then is no verdict.
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

// answer waits for the registry's answer about a schema, through failures, for patience.
func (r *Registry) answer(ctx context.Context, id timestamp.SchemaID, patience time.Duration) error {
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
	return fmt.Errorf("ask for schema %s: %w", id, errDown)
}
