package proxy

import (
	"maps"
	"slices"

	"github.com/tidemarkhq/tidemark/emit"
)

// takeEvents applies what has happened to our membership, and reports whether partitions
// have moved since a transaction could be begun.
func (s *session) takeEvents() (moved bool) {
	for _, e := range s.member.TakeEvents() {
		if e.Revoked == nil { // a new generation
			s.moved = s.forget(s.foreign) || s.moved
			continue
		}
		s.forget(func(topic string, n int32) bool { return slices.Contains(e.Revoked[topic], n) })
		s.moved = true
	}
	return s.moved
}

// giveUpForeign forgets, at the beginning of a turn, what the group has assigned to others.
// When the session hides a second revocation, the next generation, in which another
// member has the partition, may begin while a turn is under way, and with it our
// membership of it: a commit would be accepted, of what the clock or want of memory
// releases. The assignment without the partition came before either. As long as
// something is uncommitted, the revocation is still waiting for us, and so is the other.
func (s *session) giveUpForeign() {
	mine := s.member.Assigned()
	if mine == s.ownedSeen || !s.clean() {
		return
	}
	s.ownedSeen = mine
	s.forget(s.foreign)
}

// foreign reports whether the group has assigned a partition to nobody here.
func (s *session) foreign(topic string, n int32) bool { return !s.member.Has(topic, n) }

// forget drops all that is known of partitions that are not ours any more: nor is one that
// stands still to be tried again. It reports whether any of them was being worked on.
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
