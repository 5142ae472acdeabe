package proxy

import (
	"context"
	"log/slog"
	"time"

	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/watermark"
)

// endsWanted is what is remembered of asking for the ends of logs.
type endsWanted struct {
	asked   watermark.Instant // when the watcher was told what to ask for, last
	looking bool              // at what it has heard
}

// needEnds tells the watcher which partitions' ends matter: those of which records
// are held or are being read again, or that may stand before a hole; and all where partitions are aligned, for
// one that is idle with nothing held is not to hold the others up. And each time
// somebody has looked at the status the ends are asked for once: of a partition that
// stands still, or that waits for a producer's transaction, nothing else tells how
// much has come. Of one that waits for leaders the answers say that they are there.
func (s *session) needEnds() {
	s.ends.asked = s.now()
	shown := func(x group.Extent) bool { return s.seen.at > 0 && (x.High < 0 || x.Told < s.seen.at) }
	n, changed := 0, false
	s.each(func(p *partition) {
		hole := s.holeAt(p)
		want := needed{
			end:   s.cfg.MaxDrift > 0 || p.High < 0 || p.state.Low() < p.state.NextOffset() || hole >= 0 || shown(p.Extent),
			epoch: p.state.LeaderEpoch(), at: hole,
		}
		if want.end {
			n++
		}
		changed = changed || want != p.needed
		p.needed = want
	})
	var still []group.TopicPartition
	for src, why := range s.suspended {
		if why.away {
			still = append(still, leadersOf(src)...)
		} else if s.seen.at > 0 && (why.High < 0 || s.now().Sub(why.Told) >= suspendedEvery) {
			still = append(still, group.TopicPartition{Topic: src.Topic, N: src.Partition})
		}
	}
	if !changed && len(still) == 0 && s.watcher.Wants() == n {
		return
	}
	all := make([]group.WantedEnd, 0, n+len(still))
	s.each(func(p *partition) {
		if p.needed.end {
			all = append(all, group.WantedEnd{TopicPartition: group.TopicPartition{Topic: p.Topic, N: p.Partition}, Epoch: p.needed.epoch, At: p.needed.at})
		}
	})
	for _, part := range still {
		all = append(all, group.WantedEnd{TopicPartition: part, Epoch: -1, At: -1})
	}
	s.watcher.Want(all)
}

// suspendedEvery is how often the end of a suspended partition is asked for, once somebody has
// looked: nothing else tells how much has come. If it were asked for at each look, like that of
// others, each would show the end as of the look before.
const suspendedEvery = time.Second

// needed is what the watcher has been told of a partition.
type needed struct {
	end   bool // it matters
	epoch int32
	at    int64 // see group.WantedEnd
}

// takeAnswers lets what has been heard of the ends drain idle partitions. It may be
// called while a release is under way; that partition is left alone.
func (s *session) takeAnswers(ctx context.Context) error {
	if s.ends.looking || !s.watcher.TakeFresh() {
		return nil
	}
	s.ends.looking = true
	defer func() { s.ends.looking = false }()
	s.engine.Tick(s.now())
	s.copyEnds()
	var err error
	s.each(func(p *partition) {
		if err == nil && p.ends.Last > 0 { // else nothing has been heard yet
			err = ignoreHandled(s.takeAnswer(ctx, p))
		}
	})
	return err
}

// copyEnds copies what the watcher has heard.
func (s *session) copyEnds() {
	s.each(func(p *partition) { p.ends, _ = s.watcher.EndsOf(group.TopicPartition{Topic: p.Topic, N: p.Partition}) })
	for src, why := range s.suspended {
		if of, ok := s.watcher.EndsOf(group.TopicPartition{Topic: src.Topic, N: src.Partition}); ok && of.Told > 0 {
			why.Extent = of.Extent
		}
	}
}

func (s *session) takeAnswer(ctx context.Context, p *partition) error {
	e := &p.ends
	if e.Told > p.Extent.Told {
		p.Extent = e.Extent
	}
	if err := s.passHole(ctx, p); err != nil {
		return err
	}
	if end, replaying := p.state.Replaying(); replaying {
		// Only what the leader says of now counts: not an answer from before,
		// and not one of a broker that does not know yet that it no longer
		// leads. That reading makes no progress says nothing about what there
		// is to read, and all of it has to have been read.
		if p.state.Waits() || e.Told == 0 || e.High >= end || p.state.Position() < e.High || e.Told < p.since || e.Epoch < p.state.LeaderEpoch() {
			return nil
		}
		return s.endReplayAt(ctx, p, e.High)
	}
	if p.state.Due() {
		return nil // its release is under way
	}
	p.state.Observe(e.Stretch)
	if s.cfg.IdleTimeout == 0 {
		s.reportHeld(p)
	}
	return s.release(ctx, p)
}

// heldFor is how long nothing has to come before what is held without an idle timeout is
// reported.
const heldFor = time.Minute

// reportHeld reports, less and less often, records that do not come out because nothing newer
// comes and there is no idle timeout.
func (s *session) reportHeld(p *partition) {
	held, since := p.state.Owed(), max(p.heard, p.since)
	if held == 0 || s.now().Sub(since) < heldFor || p.ends.Told < since || p.state.Position() < p.ends.High {
		return
	}
	s.reporter.Remind(p.Topic, slog.LevelWarn, "nothing new comes, and what is held stays until something does: there is no idle timeout", "topic", p.Topic, "partition", p.Partition,
		"buffered", held, "first_offset", p.state.Low(), "hint", status.NoIdleTimeoutHint)
}

// passHole goes on behind a hole that has been proven, if the question was asked after
// the last records had come, and after the partition was last read from elsewhere: after
// a truncation there may be records where there were none.
func (s *session) passHole(ctx context.Context, p *partition) error {
	at, hole := p.state.Position(), p.ends.Hole
	if at < hole.From || at >= hole.To || hole.Asked < max(p.heard, p.since, p.sought) || p.state.Due() || p.state.Waits() {
		return nil
	}
	s.reporter.Logger.Info("the log has no records at these offsets; continuing after them", "topic", p.Topic, "partition", p.Partition, "offset", at, "next_offset", hole.To)
	p.state.Skip(hole.To, -1)
	return s.endReplay(ctx, p, hole.To)
}

// holeAt returns the position at which a partition may be before a hole, -1 if it is not.
func (s *session) holeAt(p *partition) int64 {
	at := p.state.Position()
	if p.Stable <= at || p.paused || p.state.Waits() || s.now().Sub(max(p.heard, p.since)) < group.HolePatience {
		return -1
	}
	return at
}
