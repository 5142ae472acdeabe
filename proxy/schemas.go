package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/pipeline"
	"github.com/tidemarkhq/tidemark/proxy/registry"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
)

// askRegistry opens the schema registry, if the configuration needs one.
func (p *process) askRegistry(cfg config.Config) error {
	if !cfg.EventTime.NeedsSchemas() {
		return nil
	}
	o, err := cfg.RegistryOptions(p.reporter.StaleFile)
	if err != nil {
		return fault.Usage(err, "")
	}
	o.Transport = p.transport
	o.Trouble = func(err error) { registryFailed(p.reporter, err) }
	if p.schemas, err = registry.New(o); err != nil {
		return fault.Usage(err, "")
	}
	return nil
}

// closeRegistry ends the questions that are still asked.
func (p *process) closeRegistry() {
	if p.schemas != nil {
		p.schemas.Close()
	}
}

// extractor returns what reads event times.
func (p *process) extractor(cfg config.Config) *timestamp.Extractor {
	if p.schemas == nil {
		return cfg.EventTime
	}
	return cfg.EventTime.With(p.schemas)
}

// registryFailed counts a question to the schema registry that was not answered, and
// tells of it.
func registryFailed(reporter *fault.Reporter, err error) {
	c := fault.Classify(err)
	reporter.Count(c, err)
	msg := "the schema registry does not answer; asking again"
	if refused, ok := errors.AsType[*registry.RefusedError](err); ok && refused.Denied() {
		msg = "the schema registry does not let us in; asking again"
	}
	reporter.Throttle("", slog.LevelWarn, c, msg, "err", err)
}

// suspendForSchema suspends a partition until the registry has said what is wanted of it.
func (s *session) suspendForSchema(ctx context.Context, p *partition, want pipeline.Wanted) error {
	if err := s.checkpoint(ctx); err != nil {
		return err
	}
	s.suspend(p, suspension{state: status.WaitingForSchema, schema: &want, why: fmt.Sprintf("schema %d, of the record at offset %d: %v", want.ID, want.Offset, want.Why), hint: want.Hint})
	reportWanted(s.reporter, p.Source, want)
	return errSuspended
}

// reportWanted tells of a partition that waits.
func reportWanted(reporter *fault.Reporter, src emit.Source, want pipeline.Wanted) {
	c := fault.Classify(want.Why)
	if want.Lost { // a question that was not answered has been counted
		reporter.Count(c, want.Why)
	}
	reporter.Throttle(fmt.Sprint(src.Topic, src.Partition), slog.LevelError, c, "a partition waits for the schema registry",
		"topic", src.Topic, "partition", src.Partition, "offset", want.Offset, "schema", want.ID, "hint", want.Hint, "err", want.Why)
}

// tryWaiting takes up again the partitions whose schemas are known by now.
func (s *session) tryWaiting(ctx context.Context) error {
	again := map[string][]int32{}
	for src, at := range s.suspended {
		if at.schema == nil {
			continue
		}
		there := s.schemas.Known
		if at.schema.Lost {
			there = s.schemas.Has
		}
		switch {
		case there(at.schema.ID):
			again[src.Topic] = append(again[src.Topic], src.Partition)
		case at.schema.Lost && s.now().Sub(at.tried) >= fault.RepeatAfter:
			at.tried = s.now()
			reportWanted(s.reporter, src, *at.schema)
		}
	}
	if len(again) == 0 {
		return nil
	}
	if err := s.checkpoint(ctx); err != nil {
		return err
	}
	return s.takeAgain(again)
}
