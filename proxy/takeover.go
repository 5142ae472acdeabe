package proxy

import (
	"log/slog"

	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// Partitions that are taken over together are read again at once, as long as there is
// memory for what they held; else one after another: see reorder/takeover.go. One that
// has to wait is paused in the client, at its commit, and keeps nothing. Whatever takes
// a partition up anew (an abort, a rebalance) finds it in that state too: load resumes
// it, and if memory is short it gives way again.

// giveWay has a partition wait that was being read again.
func (s *session) giveWay(p *partition) {
	s.cl.PauseFetchPartitions(map[string][]int32{p.Topic: {p.Partition}})
	s.seek(p)
	s.reporter.Throttle("takeover", slog.LevelInfo, fault.None, "a partition waits for memory before it is read again", "topic", p.Topic, "partition", p.Partition,
		"committed_offset", p.committed, "next_offset", p.state.NextOffset())
}

// nextReplay lets the next of those go on, when no other is being read again.
func (s *session) nextReplay() {
	state := s.engine.Resume()
	if state == nil {
		return
	}
	p := s.owner(state)
	s.seek(p)
	s.cl.ResumeFetchPartitions(map[string][]int32{p.Topic: {p.Partition}})
}
