package proxy

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/txn"
)

// How a partition comes to a session:
//
//	client: OnPartitionsAssigned   dead members' transactions are fenced, so
//	                               that committed offsets can be read at all
//	client: fetches offsets        waits until they are stable
//	client: AdjustFetchOffsets --> loop: commits what is open, reads the
//	                               commit, takes up its snapshot
//	client: reads from L  <------- loop: position
//
// After an abort the loop does the same by itself: reload.

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

// takeRequests takes up partitions that the client has been assigned.
func (s *session) takeRequests(ctx context.Context) error {
	for req, ok := s.member.TakeRequest(); ok; req, ok = s.member.TakeRequest() {
		at, err := s.takeUp(ctx, req.Partitions)
		req.Answer(at, err == nil)
		switch {
		case err == nil:
		case txn.Stale(err):
			s.reporter.Info("the group moved on while partitions were taken up", err, "group", s.cfg.Group) // the client is assigned again
		default:
			return err
		}
	}
	return nil
}

func (s *session) takeUp(ctx context.Context, partitions map[string][]int32) (group.Positions, error) {
	if err := s.checkpoint(ctx); err != nil {
		return nil, err
	}
	if err := s.amongOurselves(); err != nil {
		return nil, err
	}
	return s.load(partitions)
}

// reload takes up again, from what is committed, everything the session owns.
// It comes after an abort: what is in memory, in the engine and in the
// client's buffers, lies ahead of the commit and is void.
func (s *session) reload(ctx context.Context) error {
	s.suspendClosed()
	partitions := map[string][]int32{}
	s.each(func(p *partition) { partitions[p.Topic] = append(partitions[p.Topic], p.Partition) })
	s.writer.Rollback()
	if err := s.writer.Pause(ctx); err != nil {
		return err
	}
	return s.takeAgain(partitions)
}

// takeAgain takes up partitions that the client has been reading, and sets it
// back to where they go on.
func (s *session) takeAgain(partitions map[string][]int32) error {
	at, err := s.load(partitions)
	if err != nil {
		return err
	}
	set := map[string]map[int32]kgo.EpochOffset{}
	for topic, ps := range at {
		set[topic] = map[int32]kgo.EpochOffset{}
		for n, o := range ps {
			set[topic][n] = o.EpochOffset()
		}
	}
	if s.stalled {
		// The client passes over an offset that it believes to be at, also
		// when it has stopped reading there. See tooLargeToRead.
		aside := map[string]map[int32]kgo.EpochOffset{}
		for topic, ps := range set {
			aside[topic] = map[int32]kgo.EpochOffset{}
			for n, o := range ps {
				aside[topic][n] = kgo.EpochOffset{Epoch: -1, Offset: o.Offset + 1}
			}
		}
		s.cl.SetOffsets(aside)
	}
	s.cl.SetOffsets(set)
	return nil
}

// amongOurselves returns an error if others have come into the group before us. Nobody
// comes after.
func (s *session) amongOurselves() error {
	if others := group.StrangersIn(s.stopping, s.adm, s.reporter, s.cfg); others != nil {
		return fmt.Errorf("join group %q: %w", s.cfg.Group, others)
	}
	return nil
}
