package proxy

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
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

// assignment asks the loop to take up partitions; reply gets their positions.
type assignment struct {
	ctx        context.Context // ends when the group rebalances again
	partitions map[string][]int32
	reply      chan positions
}

type positions map[string]map[int32]kgo.Offset

// ownership is a balancer that remembers what the group assigned last. The
// transaction session hides a revocation from us when another has come since
// the last transaction ended, and then it is the only one that knows.
type ownership struct {
	kgo.GroupBalancer
	latest atomic.Pointer[map[string][]int32]
	asked  atomic.Bool // the client has asked to join
}

func newOwnership() *ownership {
	return &ownership{GroupBalancer: kgo.CooperativeStickyBalancer()}
}

// JoinGroupMetadata is called with every question to join the group.
func (o *ownership) JoinGroupMetadata(topics []string, mine map[string][]int32, generation int32) []byte {
	o.asked.Store(true)
	return o.GroupBalancer.JoinGroupMetadata(topics, mine, generation)
}

// ParseSyncAssignment takes note of a new assignment.
func (o *ownership) ParseSyncAssignment(assignment []byte) (map[string][]int32, error) {
	mine, err := o.GroupBalancer.ParseSyncAssignment(assignment)
	if err == nil {
		o.latest.Store(&mine)
	}
	return mine, err
}

func (o *ownership) has(topic string, n int32) bool {
	mine := o.latest.Load()
	return mine != nil && slices.Contains((*mine)[topic], n)
}

// assigned is called by the client in every new generation of the group,
// before it fetches offsets, while the loop waits in poll. By now everything
// has been revoked that is no longer ours, and nobody else has it yet.
func (s *session) assigned(_ context.Context, _ *kgo.Client, added map[string][]int32) {
	<-s.ready
	s.reporter.Rebalances.Add(1)
	if s.forget(s.foreign) {
		s.rebalanced = true
	}
	if len(added) > 0 && s.gts != nil {
		s.fenceDead(added)
		s.stabilize(added)
	}
}

// giveUpForeign forgets, at the beginning of a turn, what the group has assigned to others.
// When the session hides a second revocation, the next generation, in which another
// member has the partition, may begin while a turn is under way, and with it our
// membership of it: a commit would be accepted, of what the clock or want of memory
// releases. The assignment without the partition came before either. As long as
// something is uncommitted, the revocation is still waiting for us, and so is the other.
func (s *session) giveUpForeign() {
	mine := s.owned.latest.Load()
	if mine == s.ownedSeen || !s.clean() {
		return
	}
	s.ownedSeen = mine
	s.forget(s.foreign)
}

// foreign reports whether the group has assigned a partition to nobody here.
func (s *session) foreign(topic string, n int32) bool { return !s.owned.has(topic, n) }

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

// revoked is called by the client while the loop waits in poll or in end, with
// nothing uncommitted unless the group was lost.
func (s *session) revoked(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	s.forget(func(topic string, n int32) bool { return slices.Contains(lost[topic], n) })
	s.rebalanced = true
	s.poke()
	if len(lost) > 0 {
		s.reporter.Progress("partitions given up", "partitions", list(lost))
	}
}

// position is called by the client when it has fetched offsets and is about
// to read. ctx ends when the group rebalances again.
func (s *session) position(ctx context.Context, fetched map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	req := assignment{ctx: ctx, partitions: map[string][]int32{}, reply: make(chan positions, 1)}
	for topic, ps := range fetched {
		for n := range ps {
			req.partitions[topic] = append(req.partitions[topic], n)
		}
	}
	select {
	case s.requests <- req:
		s.poke()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case at, ok := <-req.reply:
		if !ok {
			return nil, fmt.Errorf("partitions %v could not be taken up", req.partitions)
		}
		return at, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// takeRequests takes up partitions that the client has been assigned.
func (s *session) takeRequests(ctx context.Context) error {
	for {
		select {
		case req := <-s.requests:
			if req.ctx.Err() != nil {
				continue
			}
			at, err := s.takeUp(ctx, req.partitions)
			if err != nil {
				close(req.reply)
				if txn.Stale(err) {
					s.reporter.Info("the group moved on while partitions were taken up", err, "group", s.cfg.Group)
					continue // the client is assigned again
				}
				return err
			}
			req.reply <- at
		default:
			return nil
		}
	}
}

func (s *session) takeUp(ctx context.Context, partitions map[string][]int32) (positions, error) {
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
