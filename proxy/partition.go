package proxy

import (
	"maps"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/pipeline"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/proxy/txn"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// partition is a source partition that this session owns.
type partition struct {
	emit.Source
	state *reorder.Partition // nil of one that could not be taken up
	path  *pipeline.Partition
	scope reorder.Scope
	since watermark.Instant // when it was taken up

	paused   bool              // until slower ones have caught up; see align
	pausedAt watermark.Instant // since when
	ledger   *status.Ledger
	group.Extent
	ends      group.Ends // as heard last
	needed    needed
	sought    watermark.Instant // when it was read from elsewhere, last
	heard     watermark.Instant // when records came, last
	committed int64             // L, in the last commit

	output *txn.Source
}

// work has a partition be worked on from a state that was assigned to it.
func (p *partition) work(line *pipeline.Pipeline, state *reorder.Partition, now watermark.Instant) {
	p.state, p.path = state, line.Start(p.Source, state, p.ledger, now)
}

// find returns the partition if the session owns it.
func (s *session) find(topic string, n int32) *partition { return s.parts[topic][n] }

// each calls fn for every partition owned.
func (s *session) each(fn func(*partition)) {
	for _, ps := range s.parts {
		for _, p := range ps {
			fn(p)
		}
	}
}

// install puts a partition in the place of the one that was there.
func (s *session) install(p *partition) {
	s.remove(p.Topic, p.Partition)
	p.output = s.writer.Source(p.Source)
	p.path.Gate = p.output
	if s.parts[p.Topic] == nil {
		s.parts[p.Topic] = map[int32]*partition{}
	}
	s.parts[p.Topic][p.Partition] = p
}

// remove forgets a partition and everything held of it.
func (s *session) remove(topic string, n int32) {
	if p := s.find(topic, n); p != nil {
		s.engine.Revoke(p.state)
		delete(s.parts[topic], n)
	}
}

// takeEvents applies what has happened to our membership.
func (s *session) takeEvents() {
	for _, e := range s.member.TakeEvents() {
		if s.forget(e.Gone) || e.Assigned == nil {
			s.moved = true
		}
	}
}

// hasMoved reports whether partitions have been taken from us since the last turn began.
func (s *session) hasMoved() bool {
	if s.moved {
		return true
	}
	for _, e := range s.member.PeekEvents() {
		any := e.Assigned == nil
		s.each(func(p *partition) { any = any || e.Gone(p.Topic, p.Partition) })
		if any {
			return true
		}
	}
	return false
}

// forgetForeign forgets, at the beginning of a turn, partitions that the group has assigned
// to others. The transaction session hides a second revocation. The next generation, in
// which another member has the partition, may then begin while a turn is under way, and our
// commits would still be accepted. But the assignment without the partition has arrived by
// then. While something is uncommitted, the revocation still waits for us, and so does the
// other member.
func (s *session) forgetForeign() {
	mine := s.member.Assigned()
	if mine == s.assignment || !s.clean() {
		return
	}
	s.assignment = mine
	s.forget(s.foreign)
}

// foreign reports whether a partition is not in our latest assignment.
func (s *session) foreign(topic string, n int32) bool { return !s.member.Has(topic, n) }

// forget drops partitions that are not ours any more, suspended ones too. It reports
// whether any of them was being worked on.
func (s *session) forget(gone func(topic string, n int32) bool) (any bool) {
	for topic, ps := range s.parts {
		for n := range ps {
			if gone(topic, n) {
				s.remove(topic, n)
				any = true
			}
		}
	}
	maps.DeleteFunc(s.suspended, func(src emit.Source, _ *suspension) bool { return gone(src.Topic, src.Partition) })
	s.writer.Forget(gone)
	return any
}
