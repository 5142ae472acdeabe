package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/registry"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
	"github.com/tidemarkhq/tidemark/watermark"
)

// A record whose schema is not known yet cannot be judged, and nothing behind it
// can. Most often the registry answers within some milliseconds, and the loop waits
// that long. If not, the partition is set aside as one is that stands still: what
// came before is committed, nothing of it stays in memory, it is not read, and the
// others go on. When the answer is there, it is taken up again from its commit.
//
// Options weighed: to have the loop wait for as long as it takes would stop all
// partitions, and rebalances with them; to keep what the partition holds and only
// stop reading it would need a second way to hold and to go on, for an outage that
// is over in seconds or needs a hand anyway.
//
// That the registry has no such schema is a verdict, and its word alone: it may have
// the schema when the record is read again. So the offset of such a record travels in
// the commit (reorder.Partition.Settles), and what stands there is not asked for
// again. The other way round nothing can be remembered: where a record was judged by a
// schema that the registry has lost since, its partition waits for it to come back.

// schemaPatience is how long the loop waits for a schema: less than a rebalance or
// an open transaction notices, since that lasts for at least a second.
const schemaPatience = 250 * time.Millisecond

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

// wanted is what a partition waits for, before the record at an offset: to hear what
// the registry says of a schema or, if that was lost, that it is there again.
type wanted struct {
	id     uint32
	lost   bool
	offset int64
	why    error
	hint   string
}

// eventTime returns the event time of a record, once its schema is known. The first
// error is the verdict; errSuspended, as the second, says that there is none yet.
func (s *session) eventTime(ctx context.Context, p *partition, r *kgo.Record) (t watermark.Time, invalid, err error) {
	if s.schemas == nil {
		t, invalid = s.extract.Extract(r)
		return t, invalid, nil
	}
	if p.state.Recalls(r.Offset, r.LeaderEpoch) {
		return watermark.None, errRecalled, nil
	}
	for {
		t, invalid = s.extract.Extract(r)
		if invalid == nil {
			return t, nil, nil
		}
		if pending, ok := errors.AsType[*timestamp.Pending](invalid); ok {
			if err := s.awaitSchema(ctx, p, r.Offset, pending.ID); err != nil {
				return t, nil, err
			}
			continue
		}
		if schema, ok := errors.AsType[*timestamp.SchemaError](invalid); ok && schema.Unknown() {
			err = s.takeWord(ctx, p, r.Offset, schema.ID)
		}
		return t, invalid, err
	}
}

// errRecalled stands for the event time of a record that needs none, for what became
// of it is known.
var errRecalled = errors.New("settled before")

// takeWord sees to it that the registry's word that it does not have a schema is
// remembered for as long as it has to be.
func (s *session) takeWord(ctx context.Context, p *partition, offset int64, id uint32) error {
	if _, replaying := p.state.Replaying(); replaying {
		return s.waitFor(ctx, p, wanted{
			id: id, lost: true, offset: offset, why: fmt.Errorf("%w %d any more", errLostSchema, id),
			hint: "register it again under its id (mode IMPORT), or point TIDEMARK_SCHEMA_REGISTRY at a registry that has it; no record is lost meanwhile",
		})
	}
	for !p.state.Settles(offset) {
		s.reporter.Throttle(fmt.Sprint(p.Topic, p.Partition), slog.LevelWarn, fault.None,
			"too many records with schemas that the registry does not have among those held; some are released early",
			"topic", p.Topic, "partition", p.Partition, "offset", offset, "schema", id, "hint", "register the schema, or stop who writes with it")
		p.state.MakeRoom()
		if err := s.release(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// errLostSchema says that the registry does not have a schema that it had.
var errLostSchema = fault.NewError(fault.Broker, "the record was judged by its schema, and the schema registry does not have schema")

// schemaOf returns what a late record says of its schema.
func schemaOf(invalid error) (emit.Schema, uint32) {
	schema, ok := errors.AsType[*timestamp.SchemaError](invalid)
	switch {
	case !ok:
		return emit.NoSchema, 0
	case schema.Unknown():
		return emit.UnknownSchema, schema.ID
	}
	return emit.KnownSchema, schema.ID
}

// awaitSchema waits for a schema, and sets the partition aside if that takes long.
func (s *session) awaitSchema(ctx context.Context, p *partition, offset int64, id uint32) error {
	wait, cancel := context.WithTimeout(ctx, schemaPatience)
	why := s.schemas.Wait(wait, id)
	cancel()
	s.sinceClock = clockEvery // it took a while
	if why == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return s.waitFor(ctx, p, wanted{
		id: id, offset: offset, why: why,
		hint: "look whether the schema registry is up, and TIDEMARK_SCHEMA_REGISTRY and the login right; no record is lost meanwhile",
	})
}

// waitFor sets a partition aside until the registry has said what is wanted of it.
func (s *session) waitFor(ctx context.Context, p *partition, want wanted) error {
	if err := s.checkpoint(ctx); err != nil {
		return err
	}
	s.suspend(p, suspension{state: status.WaitingForSchema, schema: &want, why: fmt.Sprintf("schema %d, of the record at offset %d: %v", want.id, want.offset, want.why), hint: want.hint})
	reportWanted(s.reporter, p.Source, want)
	return errSuspended
}

// reportWanted tells of a partition that waits.
func reportWanted(reporter *fault.Reporter, src emit.Source, want wanted) {
	c := fault.Classify(want.why)
	if want.lost { // a question that was not answered has been counted
		reporter.Count(c, want.why)
	}
	reporter.Throttle(fmt.Sprint(src.Topic, src.Partition), slog.LevelError, c, "a partition waits for the schema registry",
		"topic", src.Topic, "partition", src.Partition, "offset", want.offset, "schema", want.id, "hint", want.hint, "err", want.why)
}

// tryWaiting takes up again the partitions whose schemas are known by now.
func (s *session) tryWaiting(ctx context.Context) error {
	again := map[string][]int32{}
	for src, at := range s.suspended {
		if at.schema == nil {
			continue
		}
		there := s.schemas.Known
		if at.schema.lost {
			there = s.schemas.Has
		}
		switch {
		case there(at.schema.id):
			again[src.Topic] = append(again[src.Topic], src.Partition)
		case at.schema.lost && s.now().Sub(at.tried) >= fault.RepeatAfter:
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
