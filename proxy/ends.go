package proxy

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/watermark"
)

// askInterval is how often the broker is asked for the ends of the log, and
// so the step in which an idle partition drains. It stays well below
// watermark.Gap.
const askInterval = 200 * time.Millisecond

// ends is an answer of the brokers, for the moment the question was sent.
type ends struct {
	sent   watermark.Instant
	stable kadm.ListedOffsets // last stable offsets
	high   kadm.ListedOffsets // high watermarks
}

// of returns what the answer says of a partition, if it does.
func (e ends) of(src emit.Source) (high, stable kadm.ListedOffset, ok bool) {
	high, ok = e.high.Lookup(src.Topic, src.Partition)
	stable, ok2 := e.stable.Lookup(src.Topic, src.Partition)
	return high, stable, ok && ok2 && high.Err == nil && stable.Err == nil
}

// extent is how far the log of a partition goes, as far as it is known.
type extent struct {
	end    int64             // -1: not yet
	stable int64             // the same, without open transactions
	told   watermark.Instant // when brokers were asked for both, last
}

// watch asks for the ends of the log until ctx is done. An answer that fails
// or comes late is no answer: idle time then starts anew.
func (s *session) watch(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(askInterval):
		}
		if topics := s.watched.Load(); topics != nil && len(*topics) > 0 {
			s.ask(ctx, *topics)
		}
	}
}

// needEnds tells the watcher which topics' ends matter: those of which records
// are held or are being read again; and all where partitions are aligned, for
// one that is idle with nothing held is not to hold the others up. And each time
// somebody has looked at the status the ends are asked for once: of a partition that
// stands still, or that waits for a producer's transaction, nothing else tells how
// much has come.
func (s *session) needEnds() {
	topics := map[string]bool{}
	shown := func(x extent) bool { return s.shown != nil && (x.end < 0 || x.told < s.shownAt) }
	s.each(func(p *partition) {
		if s.cfg.MaxDrift > 0 || p.state.Low() < p.state.NextOffset() || shown(p.extent) {
			topics[p.Topic] = true
		}
	})
	for src := range s.stopped {
		if why := s.reasons[src]; shown(why.extent) {
			topics[src.Topic] = true
		}
	}
	all := slices.Collect(maps.Keys(topics))
	s.watched.Store(&all)
}

func (s *session) ask(ctx context.Context, topics []string) {
	asking, cancel := context.WithTimeout(ctx, watermark.Gap)
	defer cancel()
	e := ends{sent: s.now()}
	// High watermarks first: what lies between the two questions then only
	// makes them differ, never agree.
	var err error
	if e.high, err = s.adm.ListEndOffsets(asking, topics...); err == nil {
		e.stable, err = s.adm.ListCommittedOffsets(asking, topics...)
	}
	if ctx.Err() != nil {
		return
	}
	if failed := cmp.Or(err, e.high.Error(), e.stable.Error()); failed != nil {
		s.alarm.raise("the ends of the log are not told; nothing counts as idle", failed, "topics", topics)
	}
	if err != nil {
		return
	}
	select {
	case s.answers <- e:
		s.poke()
	case <-ctx.Done():
	}
}

// takeAnswers lets the answers about the ends drain idle partitions.
func (s *session) takeAnswers(ctx context.Context) error {
	for {
		select {
		case e := <-s.answers:
			var err error
			s.each(func(p *partition) {
				if err == nil {
					err = goneOn(s.takeAnswer(ctx, p, e))
				}
			})
			if err != nil {
				return err
			}
			for src := range s.stopped {
				why := s.reasons[src]
				if high, stable, ok := e.of(src); ok {
					why.extent = extent{high.Offset, stable.Offset, e.sent}
					s.reasons[src] = why
				}
			}
		default:
			return nil
		}
	}
}

func (s *session) takeAnswer(ctx context.Context, p *partition, e ends) error {
	high, stable, ok := e.of(p.Source)
	if !ok {
		p.state.Observe(e.sent, false)
		return nil
	}
	p.extent = extent{high.Offset, stable.Offset, e.sent}
	if end, replaying := p.state.Replaying(); replaying {
		// Only what the leader says of now counts: not an answer from before,
		// and not one of a broker that does not know yet that it no longer
		// leads. That reading makes no progress says nothing about what there
		// is to read, and all of it has to have been read.
		if high.Offset >= end || p.state.Position() < high.Offset || e.sent < p.since || high.LeaderEpoch < p.state.Snapshot().NextEpoch {
			return nil
		}
		return s.endReplayAt(ctx, p, high.Offset)
	}
	p.state.Observe(e.sent, p.state.Position() == high.Offset && stable.Offset == high.Offset)
	return s.releaseByClock(ctx, p)
}
