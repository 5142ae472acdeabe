package proxy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// answer gives a status to those who have asked for one.
func (s *session) answer() {
	s.publisher.Answer(func() *status.Status {
		s.seen.at = s.now()
		return s.status()
	})
}

// lookAtMost is about how many of the records held are looked at for a status.
const (
	lookAtMost  = 1 << 15
	lookAtLeast = 64 // of each partition
)

// status returns the present status. The publisher adds what it knows itself.
func (s *session) status() *status.Status {
	now := s.now()
	st := &status.Status{
		At: s.wallClock(), Blocked: slices.Clone(s.open.Seen()), Restamped: s.open.AppendTimes(), Latency: s.latency, Slowest: s.alignment.slowest, Fetches: s.trips.Spread(now),
		Disorder: s.ledgers.Disorder(), Bytes: s.engine.Bytes(), ShortOfMemory: s.seen.relieved != 0 && now.Sub(s.seen.relieved) < time.Minute,
	}
	st.NotReady, st.OutputsMissing = s.notReady()
	if r := s.rivals.Seen.Load(); r != nil {
		st.Rival = r.String()
	}
	st.Throttled = s.quotas.Describe()
	st.Producers, st.ProducersOff = s.producers.Off("", status.MostProducers)
	n := len(s.suspended)
	for _, ps := range s.parts {
		n += len(ps)
	}
	st.Partitions = make([]status.Partition, 0, n)
	others := status.Others{Slowest: s.alignment.slowest, Throttled: st.Throttled, ShortOfMemory: st.ShortOfMemory}
	slack, look := s.cfg.ClockSlack(), max(lookAtMost/max(n, 1), lookAtLeast)
	s.each(func(p *partition) {
		evidence := p.path.Clocks.Evidence(now)
		a := p.ledger
		shown := status.Partition{
			Topic: p.Topic, Partition: p.Partition, Status: p.state.Status(),
			Committed: p.committed, End: p.High, Stable: p.Stable,
			Totals: a.Committed, Uncommitted: a.Pending.Ordered - a.Committed.Ordered, Disorder: a.Disorder,
			LateCause: p.path.LateCause(),
			Density:   p.state.Held(look), Paused: p.paused, Clocks: evidence, Finding: evidence.Finding(slack),
			Recent: a.Recent(), Blocked: blockerOf(st.Blocked, p.Partition, p.Topic), Hidden: blockerOf(st.Blocked, p.Partition, p.Ordered), LateHidden: blockerOf(st.Blocked, p.Partition, p.Source.Late), Age: now.Sub(p.since), Silent: now.Sub(max(p.heard, p.since)),
		}
		if p.ends.Unanswered > 0 {
			shown.Unanswered, shown.NoAnswer = now.Sub(p.ends.Unanswered), p.ends.Failure
		}
		if o := shown.Blocked; o != nil && shown.End < o.Offset+o.Behind {
			shown.Stable, shown.End = o.Offset, o.Offset+o.Behind // nobody else has asked since
		}
		if o := shown.Blocked; o != nil && shown.Stable == o.Offset {
			o.Behind = max(o.Behind, shown.End-o.Offset) // the same number wherever it is shown
		}
		shown.Absent, shown.Similar = p.path.Sources()
		shown.SetEventTimes(a)
		shown.SetRates(a, time.Now())
		shown.State = s.stateOf(p, &shown)
		shown.Hold = status.HoldOf(s.cfg, &shown, others, st.At)
		st.Partitions = append(st.Partitions, shown)
	})
	for src, why := range s.suspended {
		a := s.ledgers[src]
		shown := status.Partition{
			Topic: src.Topic, Partition: src.Partition, State: why.state, Status: why.last,
			Committed: why.committed, End: why.High, Stable: why.Stable, Totals: a.Committed, Disorder: a.Disorder, Recent: a.Recent(),
			Hold:    status.Hold{Words: why.why + "; " + why.hint, Event: watermark.None},
			Density: reorder.Held{From: watermark.None, To: watermark.None},
		}
		shown.Records, shown.Bytes, shown.Owed = 0, 0, int(a.Committed.Held)
		shown.SetEventTimes(a)
		shown.SetRates(a, time.Now())
		st.Partitions = append(st.Partitions, shown)
	}
	st.Partitions = append(st.Partitions, s.notTakenUp(st.Partitions)...)
	slices.SortFunc(st.Partitions, func(a, b status.Partition) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	s.shown = st.Partitions
	return st
}

// blockerOf returns the transaction that holds a partition of one of these topics open, nil if
// there is none.
func blockerOf(all []fault.OpenTransaction, partition int32, topics ...string) *fault.OpenTransaction {
	for i := range all {
		if o := &all[i]; o.Partition == partition && slices.Contains(topics, o.Topic) {
			return o
		}
	}
	return nil
}

// notTakenUp returns the partitions that were shown last and, as far as is known, are ours
// still, but are not taken up again yet, as after a session has ended: what was held is
// owed, and what was counted is.
func (s *session) notTakenUp(there []status.Partition) (missing []status.Partition) {
	mine := s.member.Assigned()
	for _, p := range s.shown {
		known := slices.ContainsFunc(there, func(q status.Partition) bool { return q.Topic == p.Topic && q.Partition == p.Partition })
		if known || mine != nil && !s.member.Has(p.Topic, p.Partition) {
			continue
		}
		a := s.ledgers[s.source(p.Topic, p.Partition)]
		if a == nil {
			continue
		}
		p.State, p.Totals, p.Disorder, p.Uncommitted = status.Recovering, a.Committed, a.Disorder, 0
		p.Hold = status.Hold{Words: "is to be taken up again from the last commit", Event: watermark.None}
		p.Density = reorder.Held{From: watermark.None, To: watermark.None}
		p.Records, p.Bytes, p.Owed, p.Paused, p.Blocked, p.Hidden, p.LateHidden = 0, 0, int(a.Committed.Held), false, nil, nil, nil
		p.End, p.Stable, p.Age, p.Silent, p.Unanswered, p.NoAnswer = -1, -1, 0, 0, 0, nil // nobody asks
		p.SetRates(a, time.Now())
		missing = append(missing, p)
	}
	return missing
}

func (s *session) stateOf(p *partition, now *status.Partition) status.PartitionState {
	switch {
	case now.Replaying:
		return status.Recovering
	case now.Paused:
		return status.Paused
	case now.Idle && now.Records > 0:
		return status.Draining
	case now.Records > 0 || now.Next < now.End || now.End < 0 || s.cfg.IdleTimeout == 0:
		return status.Active
	case now.Idle || s.now().Sub(max(p.heard, p.since)) >= s.cfg.IdleTimeout:
		return status.Idle
	}
	return status.Active
}

// notReady tells, in words, what is missing before all partitions of ours are worked
// on; "" if nothing is. outputsMissing: nothing but outputs is. One that waits for somebody to mend a record does not count:
// where a pod is taken out of service for not being ready, that would mend nothing.
func (s *session) notReady() (words string, outputsMissing bool) {
	mine := s.member.Assigned()
	if mine == nil {
		return "the group has not been joined yet", false
	}
	taking, again, waiting := 0, 0, 0
	for topic, ps := range *mine {
		for _, n := range ps {
			p := s.find(topic, n)
			if p == nil {
				src := s.source(topic, n)
				if at := s.suspended[src]; at == nil {
					taking++
				} else if at.state == status.WaitingForOutputs {
					waiting++
				}
			} else if _, replaying := p.state.Replaying(); replaying {
				again++
			}
		}
	}
	var why []string
	for _, c := range []struct {
		n    int
		what string
	}{{taking, "to be taken up"}, {again, "to be read again from the last commit"}, {waiting, "without a partition in the outputs"}} {
		if c.n > 0 {
			why = append(why, fmt.Sprintf("%d partitions are %s", c.n, c.what))
		}
	}
	return strings.Join(why, ", "), waiting > 0 && taking+again == 0
}

// source returns a partition of a topic, and where its records go.
func (s *session) source(topic string, n int32) emit.Source {
	t := s.topics[topic]
	return emit.Source{Topic: topic, Ordered: t.Ordered, Late: t.Late, Partition: n}
}
