package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// cast is everybody who is busy during the demo. When one fails, all are
// stopped.
type cast struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	once   sync.Once
	err    error // the first failure
}

func newCast(ctx context.Context) *cast {
	c := &cast{}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	return c
}

// add starts somebody who works until the context is done.
func (c *cast) add(who string, work func(context.Context) error) {
	c.wg.Go(func() {
		err := work(c.ctx)
		switch {
		case err == nil && c.ctx.Err() == nil:
			err = errors.New("ended before it was told to")
		case err == nil || c.ctx.Err() != nil && errors.Is(err, context.Canceled):
			return
		}
		c.once.Do(func() { c.err = &exitError{exitFailed, fmt.Errorf("%s: %w", who, err), ""} })
		c.cancel(c.err)
	})
}

// stop stops everybody, waits for them, and returns the first failure.
func (c *cast) stop() error {
	c.cancel(context.Canceled)
	c.wg.Wait()
	return c.err
}

// stopped returns why ctx is done.
func stopped(ctx context.Context) error {
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return &exitError{exitFailed, errors.New("stopped before the end"), ""}
}
