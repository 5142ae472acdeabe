package proxy

import (
	"cmp"
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

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
// one that is idle with nothing held is not to hold the others up. Whoever looks at
// the status is told the end of a partition of which nothing has come yet.
func (s *session) needEnds() {
	var topics []string
	for topic, ps := range s.parts {
		for _, p := range ps {
			if s.cfg.MaxDrift > 0 || p.state.Low() < p.state.NextOffset() || p.end < 0 && s.shown != nil {
				topics = append(topics, topic)
				break
			}
		}
	}
	s.watched.Store(&topics)
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
		default:
			return nil
		}
	}
}

func (s *session) takeAnswer(ctx context.Context, p *partition, e ends) error {
	high, ok := e.high.Lookup(p.Topic, p.Partition)
	stable, ok2 := e.stable.Lookup(p.Topic, p.Partition)
	if !ok || !ok2 || high.Err != nil || stable.Err != nil {
		p.state.Observe(e.sent, false)
		return nil
	}
	p.end, p.stable = high.Offset, stable.Offset
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
