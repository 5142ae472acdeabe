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
	"github.com/tidemarkhq/tidemark/proxy/registry"
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

// schemaPatience is how long the loop waits for a schema: less than a rebalance or
// an open transaction notices, since that lasts for at least a second.
const schemaPatience = 250 * time.Millisecond

// askRegistry opens the schema registry, if the configuration needs one.
func (p *process) askRegistry(cfg config.Config) error {
	if !cfg.EventTime.NeedsSchemas() {
		return nil
	}
	o, err := cfg.RegistryOptions()
	if err != nil {
		return usage(err, "")
	}
	o.Transport = p.transport
	o.Trouble = func(err error) { p.alarm.registryFailed(err) }
	if p.schemas, err = registry.New(o); err != nil {
		return usage(err, "")
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
func (a *alarm) registryFailed(err error) {
	c := classify(err)
	a.count(c, err)
	msg := "the schema registry does not answer; asking again"
	if refused, ok := errors.AsType[*registry.RefusedError](err); ok && refused.Denied() {
		msg = "the schema registry does not let us in; asking again"
	}
	a.tell("", slog.LevelWarn, c, msg, "err", err)
}

// eventTime returns the event time of a record, once its schema is known. The first
// error is the verdict; errStopped, as the second, says that there is none yet.
func (s *session) eventTime(ctx context.Context, p *partition, r *kgo.Record) (t watermark.Time, invalid, err error) {
	for {
		t, invalid = s.extract.Extract(r)
		if invalid == nil {
			return t, nil, nil
		}
		pending, ok := errors.AsType[*timestamp.Pending](invalid)
		if !ok {
			return t, invalid, nil
		}
		if err := s.awaitSchema(ctx, p, r.Offset, pending.ID); err != nil {
			return t, nil, err
		}
	}
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
	if err := s.commit(ctx); err != nil {
		return err
	}
	s.setAside(p)
	s.waiting[p.Source] = id
	s.alarm.aside(p, offset, why)
	return errStopped
}

// aside tells of a partition that waits. Why it has to has been counted.
func (a *alarm) aside(p *partition, offset int64, why error) {
	a.tell(fmt.Sprint(p.Topic, p.Partition), slog.LevelError, classify(why), "a partition waits for the schema registry",
		"topic", p.Topic, "partition", p.Partition, "offset", offset,
		"hint", "look whether the schema registry is up, and TIDEMARK_SCHEMA_REGISTRY and the login right; no record is lost meanwhile", "err", why)
}

// tryWaiting takes up again the partitions whose schemas are known by now.
func (s *session) tryWaiting(ctx context.Context) error {
	if len(s.waiting) == 0 {
		return nil
	}
	again := map[string][]int32{}
	for src, id := range s.waiting {
		if _, still := s.stopped[src]; !still {
			delete(s.waiting, src) // taken up again, or another's by now
		} else if s.schemas.Known(id) {
			again[src.Topic] = append(again[src.Topic], src.Partition)
		}
	}
	if len(again) == 0 {
		return nil
	}
	if err := s.commit(ctx); err != nil {
		return err
	}
	return s.takeAgain(ctx, again)
}

// waits reports whether a partition that stands still does so for a schema.
func (s *session) waits(src emit.Source) bool {
	_, waits := s.waiting[src]
	return waits
}
