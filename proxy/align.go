package proxy

import (
	"log/slog"
	"time"

	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Alignment decides, between two polls, which partitions are read on. What it
// knows it asks anew each time, so nothing has to be kept in step with commits,
// aborts and rebalances: a partition that is taken up is read, and one that is
// not ours any more is not asked.
//
// A partition that stands still (see halt.go) is not asked either. It waits
// for somebody to mend it, and the others are not to wait as well.
//
// Pausing loses nothing. What the client has fetched of a paused partition and
// not handed out is dropped at the next poll, and its position stays where the
// last record was handed out; so the rest is fetched again, in order.

// alignment is what is remembered of it.
type alignment struct {
	slowest  watermark.Time    // watermark by which the others are aligned
	reported watermark.Instant // when partitions that wait were reported, last
}

// align pauses the partitions that are further than the allowed drift ahead
// of the slowest, and reads those again that no longer are.
func (s *session) align() {
	if s.cfg.MaxDrift == 0 {
		return
	}
	others := watermark.NewAlignment(s.cfg.MaxDrift)
	s.each(func(p *partition) {
		now := p.state.Status()
		others.Count(now.Watermark, now.Idle)
	})
	s.alignment.slowest = others.Slowest()
	var pause, resume map[string][]int32
	s.each(func(p *partition) {
		now := p.state.Status()
		switch ahead := mayPause(now) && others.Ahead(now.Watermark, now.Idle); {
		case ahead && !p.paused:
			p.paused, p.pausedAt, p.path.AtEnd = true, s.now(), false
			addTo(&pause, p)
			s.reporter.Pauses.Add(1)
		case !ahead && p.paused:
			p.paused = false
			addTo(&resume, p)
			if !now.Idle {
				p.state.Stir() // idle time counts from here
			}
		}
	})
	if pause != nil {
		s.cl.PauseFetchPartitions(pause)
	}
	if resume != nil {
		s.cl.ResumeFetchPartitions(resume)
	}
	s.reportPaused()
}

// mayPause leaves alone what is being read again: it has to be held, whatever it
// takes, and it has been aligned before.
func mayPause(now reorder.Status) bool { return !now.Replaying }

func addTo(into *map[string][]int32, p *partition) {
	if *into == nil {
		*into = map[string][]int32{}
	}
	(*into)[p.Topic] = append((*into)[p.Topic], p.Partition)
}

// heldLong is for how long partitions wait before it is told, and how often it
// is told then.
const heldLong = 30 * time.Second

// reportPaused names the partition that others have been waiting for. A source that
// catches up is no news; one that does not get on may be.
func (s *session) reportPaused() {
	if s.now().Sub(s.alignment.reported) < heldLong {
		return
	}
	var held map[string][]int32
	var slowest *partition
	s.each(func(p *partition) {
		if p.paused && s.now().Sub(p.pausedAt) >= heldLong {
			addTo(&held, p)
		}
		if p.state.Watermark() == s.alignment.slowest && !p.paused && !p.state.Status().Idle {
			slowest = p
		}
	})
	if held == nil || slowest == nil {
		return
	}
	s.alignment.reported = s.now()
	s.reporter.Logger.Warn("partitions are paused until a slower one has caught up", "paused", group.ListPartitions(held), "slowest_topic", slowest.Topic, "slowest_partition", slowest.Partition,
		"slowest_watermark_ms", s.alignment.slowest.Millis(),
		"hint", "if it does not get on, see whether a transaction is open on it; TIDEMARK_MAX_DRIFT says how far the others may go ahead")
}

// Partitions that are taken over together are read again at once, as long as there is
// memory for what they held; else one after another: see reorder/takeover.go. One that
// has to wait is paused in the client, at its commit, and keeps nothing. Whatever takes
// a partition up anew (an abort, a rebalance) finds it in that state too: load resumes
// it, and if memory is short it gives way again.

// pauseReplay has a partition wait that was being read again.
func (s *session) pauseReplay(p *partition) {
	s.cl.PauseFetchPartitions(map[string][]int32{p.Topic: {p.Partition}})
	s.seek(p)
	s.reporter.Throttle("takeover", slog.LevelInfo, fault.None, "a partition waits for memory before its replay", "topic", p.Topic, "partition", p.Partition,
		"committed_offset", p.committed, "next_offset", p.state.NextOffset())
}

// resumeReplay lets the next of those go on, when no other is being read again.
func (s *session) resumeReplay() {
	state := s.engine.Resume()
	if state == nil {
		return
	}
	p := s.partitionOf(state)
	s.seek(p)
	s.cl.ResumeFetchPartitions(map[string][]int32{p.Topic: {p.Partition}})
}
