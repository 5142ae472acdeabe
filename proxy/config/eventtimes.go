package config

import (
	"context"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/registry"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Patience is for how long those who have nothing else to do go on without an answer.
const Patience = 30 * time.Second

// EventTimes returns the reading of event times, which may have to ask a schema
// registry. One that does not answer for long is like brokers that do not: giveUp is
// told, and is to end ctx. done is to be called in the end.
func EventTimes(ctx context.Context, cfg Config, giveUp func(error)) (read func(*kgo.Record) (watermark.Time, error), done func(), err error) {
	if !cfg.EventTime.NeedsSchemas() {
		return cfg.EventTime.Extract, func() {}, nil
	}
	o, err := cfg.RegistryOptions(func(error) {})
	if err != nil {
		return nil, nil, err
	}
	o.Trouble = func(error) {} // it is told when it lasts
	r, err := registry.New(o)
	if err != nil {
		return nil, nil, err
	}
	return r.EventTimes(ctx, cfg.EventTime, Patience, giveUp), r.Close, nil
}

// EventTimeIsDefault reports whether nobody has said where event times are.
func (c Config) EventTimeIsDefault() bool {
	return strings.HasPrefix(c.origins[keyEventTime], "default")
}
