package proxy

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/reorder"
)

// idleWait is how long a poll waits when there is nothing to commit.
const idleWait = 5 * time.Second

// begin opens a transaction if there is none. Without transactions it only
// notes when the first record since the last commit went out.
func (s *session) begin() error {
	if !s.began.IsZero() {
		return nil
	}
	s.began = time.Now()
	if s.gts == nil {
		return nil
	}
	defer s.awaited.begin(s.while.beginning)()
	if err := s.gts.Begin(); err != nil {
		return fmt.Errorf("begin a transaction as %q: %w", s.cfg.TransactionalID(), err)
	}
	return nil
}

// clean reports whether everything is committed.
func (s *session) clean() bool { return s.began.IsZero() && !s.changed() }

func (s *session) changed() (any bool) {
	s.each(func(p *partition) { any = any || p.state.Changed() })
	return any
}

// untilCommit is how long the next poll may wait.
func (s *session) untilCommit() time.Duration {
	if s.clean() {
		return idleWait
	}
	return max(s.cfg.CommitInterval-time.Since(s.since()), 0)
}

func (s *session) commitDue() bool {
	return time.Since(s.since()) >= s.cfg.CommitInterval && !s.clean()
}

// since is when the interval to the next commit began.
func (s *session) since() time.Time {
	if s.began.IsZero() {
		return s.committed
	}
	return s.began
}

// commit makes durable, together, everything put out since the last one and
// the snapshots it belongs to. errVoid: it was undone instead, together, unless it is
// errMoved.
func (s *session) commit(ctx context.Context) error {
	if s.clean() {
		return nil
	}
	if err := s.closeGroup(ctx, false); err != nil {
		return err
	}
	offsets := s.snapshots()
	s.tally()
	var err error
	if s.gts != nil {
		err = s.commitTransaction(ctx, offsets)
	} else {
		err = s.commitOffsets(ctx, offsets)
	}
	overdue := s.gts != nil && !s.began.IsZero() && time.Since(s.began) > s.cfg.TransactionTimeout
	s.began, s.committed = time.Time{}, time.Now()
	if err != nil && !errors.Is(err, errMoved) {
		if overdue {
			return fmt.Errorf("%w: %w", errOverdue, err)
		}
		return err
	}
	s.forgive()
	s.done()
	s.each(func(p *partition) { p.state.Advance(); p.put = 0 })
	s.settle()
	if err != nil {
		return err
	}
	s.takeOff()
	return nil
}

// errOverdue says that a transaction had been open for longer than it may last:
// that we were fenced then is the brokers' doing, and nobody took our place.
var errOverdue = errors.New("the transaction timed out")

// offset is one partition of a commit.
type offset struct {
	topic       string
	id          [16]byte
	partition   int32
	at          int64
	leaderEpoch int32
	metadata    string
}

func offsetOf(p *partition, s reorder.Snapshot) offset {
	return offset{p.Topic, p.scope.TopicID, p.Partition, s.Low, s.LowEpoch, s.Encode(p.scope)}
}

// byTopic yields the offsets of one topic after the other. They are grouped.
func byTopic(offsets []offset) iter.Seq[[]offset] {
	return func(yield func([]offset) bool) {
		for len(offsets) > 0 {
			n := 1
			for n < len(offsets) && offsets[n].topic == offsets[0].topic {
				n++
			}
			if !yield(offsets[:n]) {
				return
			}
			offsets = offsets[n:]
		}
	}
}

// snapshots returns what is to be committed of the partitions that changed.
func (s *session) snapshots() []offset {
	var all []offset
	s.each(func(p *partition) {
		if p.state.Changed() {
			all = append(all, offsetOf(p, p.state.Snapshot()))
		}
	})
	return all
}

// commitTransaction ends the transaction. The offsets that the client would
// commit, the ends of what it polled, are replaced by ours; that also brings
// in partitions that polled nothing and were moved by the clock.
func (s *session) commitTransaction(ctx context.Context, offsets []offset) error {
	if err := s.begin(); err != nil { // nothing was put out, but there is something to commit
		return err
	}
	if err := s.flush(ctx); err != nil {
		return err
	}
	try := kgo.TryCommit
	if s.unacked.any() {
		if err := s.bear(ctx, s.unacked.take()); err != nil {
			return err
		}
		try = kgo.TryAbort
	}
	withOurs := kgo.PreTxnCommitFnContext(ctx, func(req *kmsg.TxnOffsetCommitRequest) error {
		req.Topics = req.Topics[:0]
		for same := range byTopic(offsets) {
			t := kmsg.NewTxnOffsetCommitRequestTopic()
			t.Topic, t.TopicID = same[0].topic, same[0].id
			for _, o := range same {
				p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
				p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = o.partition, o.at, o.leaderEpoch, &o.metadata
				t.Partitions = append(t.Partitions, p)
			}
			req.Topics = append(req.Topics, t)
		}
		return nil
	})
	committed, err := s.end(withOurs, try)
	if s.rebalanced && err == nil {
		if committed {
			return errMoved
		}
		return errVoid
	}
	switch {
	case err != nil:
		return s.uncommittable(fmt.Errorf("end the transaction of %q: %w", s.cfg.TransactionalID(), err))
	case !committed:
		if try == kgo.TryCommit {
			s.alarm.raise("a commit was undone; going back to the one before", errRefused, "group", s.cfg.Group)
			s.recoiling = true
		}
		return errVoid
	}
	return nil
}

// end ends the transaction. When the group has thrown us out, End waits for a
// heartbeat that nobody sends until the callback for it has run, which waits
// for us to let rebalances through; so that is done when End takes long, and
// End then aborts. Whatever takes longer than a transaction may last has been
// aborted anyway.
func (s *session) end(ctx context.Context, try kgo.TransactionEndTry) (committed bool, err error) {
	defer s.awaited.begin(s.while.ending)()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.TransactionTimeout)
	defer cancel()
	allowed := make(chan struct{})
	let := time.AfterFunc(min(stuckAfter, s.cfg.TransactionTimeout/4), func() { s.cl.AllowRebalance(); close(allowed) })
	committed, err = s.gts.End(ctx, try)
	if !let.Stop() {
		<-allowed
		s.hold()
	}
	return committed, err
}

// stuckAfter is how long ending a transaction takes at the most when all is
// well: some milliseconds, or until other members have joined.
const stuckAfter = 2 * time.Second

// settleRebalance ends the session's memory of a revocation. Nothing is open:
// rebalances are let through between transactions only. Without this the next
// transaction would be aborted for nothing.
func (s *session) settleRebalance(ctx context.Context) error {
	s.rebalanced = false
	if s.gts == nil {
		return nil
	}
	defer s.awaited.begin(s.while.ending)()
	_, err := s.gts.End(ctx, kgo.TryAbort)
	return err
}

// commitOffsets flushes and commits without a transaction.
func (s *session) commitOffsets(ctx context.Context, offsets []offset) error {
	if err := s.flush(ctx); err != nil {
		return err
	}
	if s.unacked.any() {
		if err := s.bear(ctx, s.unacked.take()); err != nil {
			return err
		}
		return errVoid
	}
	err := s.commitPlain(ctx, offsets)
	if stale(err) {
		s.alarm.note("the group moved on; reading again from the last commit", err, "group", s.cfg.Group)
		s.recoiling = true // the client hears of it with the next heartbeat
		return errVoid
	}
	return err
}

// commitPlain commits offsets as a member of the group, outside any
// transaction.
func (s *session) commitPlain(ctx context.Context, offsets []offset) error {
	if len(offsets) == 0 {
		return nil
	}
	defer s.awaited.begin(s.while.committing)()
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group = s.cfg.Group
	req.MemberID, req.Generation = s.cl.GroupMetadata()
	req.InstanceID = &s.cfg.Instance
	for same := range byTopic(offsets) {
		t := kmsg.NewOffsetCommitRequestTopic()
		t.Topic, t.TopicID = same[0].topic, same[0].id
		for _, o := range same {
			p := kmsg.NewOffsetCommitRequestTopicPartition()
			p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = o.partition, o.at, o.leaderEpoch, &o.metadata
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, s.cl)
	if err != nil {
		return s.uncommittable(fmt.Errorf("commit offsets of group %q: %w", s.cfg.Group, err))
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return s.uncommittable(fmt.Errorf("commit offset of partition %d in group %q: %w", p.Partition, s.cfg.Group, err))
			}
		}
	}
	return nil
}

// stale reports that the group has a newer generation than ours.
func stale(err error) bool {
	return errors.Is(err, kerr.IllegalGeneration) || errors.Is(err, kerr.UnknownMemberID) ||
		errors.Is(err, kerr.RebalanceInProgress) || errors.Is(err, kerr.StaleMemberEpoch)
}
