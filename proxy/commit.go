package proxy

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
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
	defer s.waits.Begin(s.expected.beginning)()
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

// commit makes durable everything put out since the last one and the snapshots it belongs
// to, those of a partition together. errVoid: what was not yet committed was undone
// instead, unless it is errMoved. One commit may be several transactions: see mostOffsets.
func (s *session) commit(ctx context.Context) error {
	for !s.clean() {
		if err := s.commitSome(ctx); err != nil {
			return err
		}
	}
	return nil
}

// commitSome ends the transaction that is open with the snapshots of the partitions that
// have put something out in it, and of as many others as go with them.
func (s *session) commitSome(ctx context.Context) error {
	if err := s.closeGroup(ctx, false); err != nil {
		return err
	}
	ps, rest := s.toCommit()
	offsets := snapshots(ps)
	s.tally()
	var err error
	if s.gts != nil {
		err = s.commitTransaction(ctx, offsets)
	} else {
		err = s.commitOffsets(ctx, offsets)
	}
	overdue := s.gts != nil && !s.began.IsZero() && time.Since(s.began) > s.cfg.TransactionTimeout
	s.began, s.committed, s.put.open = time.Time{}, time.Now(), 0
	if err != nil && !errors.Is(err, errMoved) {
		if overdue {
			return fmt.Errorf("%w: %w", errOverdue, err)
		}
		return err
	}
	s.forgive()
	s.done(ps)
	for _, p := range ps {
		p.state.Advance()
		p.put = 0
	}
	s.putting = 0
	s.settle(ps)
	if err != nil {
		for _, p := range rest {
			p.ledger.Abort() // they are read again from their commits
		}
		return err
	}
	s.takeOff()
	return nil
}

// commitBytes is how large a commit is to be. Brokers write its offsets as one batch into
// __consumer_offsets, which takes a megabyte by default. If they take less, less is tried: see
// tooMany.
const commitBytes = 512 << 10

// offsetBytes is about what one of our offsets takes of it.
const offsetBytes = 250

// doubtfulBytes is from which size on a commit may have been refused for it where brokers
// do not say why. Kafka 4.1 answers a commit that is too large with UNKNOWN_SERVER_ERROR.
const doubtfulBytes = 64 << 10

// size is about what an offset takes in the batch.
func (o *offset) size(group string) int { return 90 + len(group) + len(o.topic) + len(o.metadata) }

func sizeOf(offsets []offset, group string) (n int) {
	for i := range offsets {
		n += offsets[i].size(group)
	}
	return n
}

// mostOffsets is how many partitions fit into a commit, if they are like those of the last
// one.
func (s *session) mostOffsets() int { return max(s.limits.commit/s.perOffset, 1) }

// full reports whether the transaction has something of as many partitions as fit into its
// commit.
func (s *session) full() bool { return s.gts != nil && s.putting >= s.mostOffsets() }

// toCommit returns the partitions that changed: those that the next commit is to have, and
// the rest. What a partition has put out is committed with its snapshot or not at all, so
// those that did come first; pace sees to it that they are not too many.
func (s *session) toCommit() (ps, rest []*partition) {
	s.each(func(p *partition) {
		switch {
		case p.put > 0:
			ps = append(ps, p)
		case p.state.Changed():
			rest = append(rest, p)
		}
	})
	n := len(rest)
	if s.gts != nil { // else they go in several requests
		n = min(n, max(s.mostOffsets()-len(ps), 0))
	}
	return append(ps, rest[:n]...), rest[n:]
}

// tooLargeCommit reports that brokers refused a commit of a size for that, or may have.
func tooLargeCommit(err error, size int) bool {
	return errors.Is(err, kerr.InvalidCommitOffsetSize) || tooBig(err) || errors.Is(err, kerr.UnknownServerError) && size > doubtfulBytes
}

// tooMany learns from a commit of n partitions that brokers refused for its size.
func (l *limits) tooMany(reporter *fault.Reporter, cfg config.Config, n, size int, err error) error {
	if n <= 1 {
		return fault.Failed(fmt.Errorf("commit the offset of one partition in group %q: %w", cfg.Group, err),
			"raise the limit: "+fault.CommandsFor(cfg).Set("__consumer_offsets", fault.MaxMessageBytes, fmt.Sprint(batchDefault)))
	}
	l.commit = min(l.commit, size) / 2
	reporter.Warn("a commit was too large; trying with fewer partitions at once", err, "group", cfg.Group, "most_partitions", n/2)
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

// snapshots returns what is to be committed of partitions, grouped by topic.
func snapshots(ps []*partition) []offset {
	all := make([]offset, 0, len(ps))
	for _, p := range ps {
		if p.state.Changed() {
			all = append(all, offsetOf(p, p.state.Snapshot()))
		}
	}
	slices.SortStableFunc(all, func(a, b offset) int { return strings.Compare(a.topic, b.topic) })
	return all
}

// commitTransaction ends the transaction. The offsets that the client would
// commit, the ends of what it polled, are replaced by ours; that also brings
// in partitions that polled nothing and were moved by the clock.
func (s *session) commitTransaction(ctx context.Context, offsets []offset) error {
	if err := s.begin(); err != nil { // nothing was put out, but there is something to commit
		return err
	}
	began := time.Now()
	err := s.flush(ctx)
	s.learnAcks(time.Since(began))
	if err != nil {
		return err
	}
	try := kgo.TryCommit
	empty := len(offsets) == 0 // what was put out in it was refused, and its partition dropped
	if empty {
		// After a commit without offsets the client holds its locks for half a second.
		try = kgo.TryAbort
	}
	if s.unacked.any() {
		if err := s.bear(ctx, s.unacked.take()); err != nil {
			return err
		}
		try, empty = kgo.TryAbort, false
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
	size := sizeOf(offsets, s.cfg.Group)
	if s.rebalanced && err == nil {
		if committed {
			return errMoved
		}
		return errVoid
	}
	switch {
	case tooLargeCommit(err, size):
		if err := s.limits.tooMany(s.reporter, s.cfg, len(offsets), size, err); err != nil {
			return err
		}
		return errVoid // the client has aborted
	case err != nil:
		return fault.Uncommittable(s.cfg, fmt.Errorf("end the transaction of %q: %w", s.cfg.TransactionalID(), err))
	case !committed && !empty:
		if try == kgo.TryCommit {
			s.reporter.Warn("a commit was undone; going back to the one before", fault.ErrOffsetsRefused, "group", s.cfg.Group)
			s.recoiling = true
			// The client keeps UNKNOWN_SERVER_ERROR to itself.
			if size > doubtfulBytes {
				if s.doubted++; s.doubted > 1 {
					_ = s.limits.tooMany(s.reporter, s.cfg, len(offsets), size, fault.ErrOffsetsRefused)
				}
			}
		}
		return errVoid
	}
	s.doubted = 0
	if n := len(offsets); n > 0 {
		s.perOffset = max(size/n, 1)
	}
	return nil
}

// end ends the transaction. When the group has thrown us out, End waits for a
// heartbeat that nobody sends until the callback for it has run, which waits
// for us to let rebalances through; so that is done when End takes long, and
// End then aborts. Whatever takes longer than a transaction may last has been
// aborted anyway.
func (s *session) end(ctx context.Context, try kgo.TransactionEndTry) (committed bool, err error) {
	defer s.waits.Begin(s.expected.ending)()
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
	defer s.waits.Begin(s.expected.ending)()
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
		s.reporter.Info("the group moved on; reading again from the last commit", err, "group", s.cfg.Group)
		s.recoiling = true // the client hears of it with the next heartbeat
		return errVoid
	}
	return err
}

// commitPlain commits offsets as a member of the group, outside any transaction, in as
// many requests as it takes.
func (s *session) commitPlain(ctx context.Context, offsets []offset) error {
	for len(offsets) > 0 {
		n, size := 0, 0
		for ; n < len(offsets); n++ {
			more := offsets[n].size(s.cfg.Group)
			if n > 0 && size+more > s.limits.commit {
				break
			}
			size += more
		}
		err := s.commitOnce(ctx, offsets[:n])
		switch {
		case tooLargeCommit(err, size):
			if err := s.limits.tooMany(s.reporter, s.cfg, n, size, err); err != nil {
				return err
			}
		case err != nil:
			return err
		default:
			offsets = offsets[n:]
		}
	}
	return nil
}

func (s *session) commitOnce(ctx context.Context, offsets []offset) error {
	defer s.waits.Begin(s.expected.committing)()
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
		return fault.Uncommittable(s.cfg, fmt.Errorf("commit offsets of group %q: %w", s.cfg.Group, err))
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fault.Uncommittable(s.cfg, fmt.Errorf("commit offset of partition %d in group %q: %w", p.Partition, s.cfg.Group, err))
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
