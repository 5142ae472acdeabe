package proxy

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Status is what can be seen of a session from outside: a copy that the loop
// makes once a second, at most, and that nobody changes afterwards.
type Status struct {
	At         time.Time      // by the wall clock
	Slowest    watermark.Time // that partitions are aligned by; None without alignment
	Fetches    clocks.Spread  // how long they took, the broker's wait for records included
	Partitions []PartitionStatus
}

// PartitionStatus is what can be seen of a partition.
type PartitionStatus struct {
	Topic     string
	Partition int32
	reorder.Status
	Paused  bool // it waits for slower ones
	Clocks  clocks.Evidence
	Finding clocks.Finding // what the evidence points to
}

// publishEvery is how often the status is published.
const publishEvery = time.Second

// publish makes the present status visible, when it is time.
func (s *session) publish() {
	now := s.now()
	if s.published != 0 && now.Sub(s.published) < publishEvery {
		return
	}
	s.published = now
	st := &Status{At: s.wallClock(), Slowest: s.slowest, Fetches: s.trips.Spread(now)}
	slack := s.cfg.ClockSlack()
	s.each(func(p *partition) {
		evidence := p.clocks.Evidence(now)
		st.Partitions = append(st.Partitions, PartitionStatus{
			Topic: p.Topic, Partition: p.Partition, Status: p.state.Status(),
			Paused: p.paused, Clocks: evidence, Finding: evidence.Finding(slack),
		})
	})
	slices.SortFunc(st.Partitions, func(a, b PartitionStatus) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	s.seen.Store(st)
}
