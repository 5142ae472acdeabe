package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/pipeline"
	"github.com/tidemarkhq/tidemark/proxy/txn"
	"github.com/tidemarkhq/tidemark/reorder"
)

// A checkpoint makes what was written durable together with the snapshots it belongs to:
//
//	snapshots -> the writer commits -> Advance -> ledger
//
// It comes when the commit interval is over, before a rebalance, and wherever the path of a
// record asks for one.

// errAborted says that everything since the last commit has been undone.
var errAborted = fault.NewError(fault.None, "aborted")

// errMoved says that a commit went through, and that meanwhile partitions have moved to
// others: what is in memory and not in the commit is void, as after an abort.
var errMoved = fault.NewError(fault.None, "partitions have moved after the commit")

// goesBack reports whether everything has to go on from the last commit.
func goesBack(err error) bool { return errors.Is(err, errAborted) || errors.Is(err, errMoved) }

// idleWait is how long a poll waits when there is nothing to commit.
const idleWait = 5 * time.Second

// clean reports whether everything is committed.
func (s *session) clean() bool { return s.writer.Clean() && !s.changed() }

func (s *session) changed() (any bool) {
	s.each(func(p *partition) { any = any || p.state.Changed() })
	return any
}

// untilCommit is how long the next poll may wait.
func (s *session) untilCommit() time.Duration {
	if s.clean() {
		return idleWait
	}
	return max(s.cfg.CommitInterval-time.Since(s.writer.Since()), 0)
}

func (s *session) commitDue() bool {
	return time.Since(s.writer.Since()) >= s.cfg.CommitInterval && !s.clean()
}

// checkpoint commits everything, the snapshot and the records of a partition together.
// After errAborted and errMoved, see reload. One checkpoint may be several transactions:
// see txn.Writer.MostOffsets.
func (s *session) checkpoint(ctx context.Context) error {
	for !s.clean() {
		if err := s.checkpointSome(ctx); err != nil {
			return err
		}
	}
	return nil
}

// checkpointSome ends what is open with the snapshots of the partitions that have written
// something, and of as many others as go with them.
func (s *session) checkpointSome(ctx context.Context) error {
	defer s.takeEvents() // a rebalance may have been let through
	// What CloseGroup finds refused is among the failures that Commit goes back for.
	if err := s.writer.CloseGroup(ctx, false); err != nil && !errors.Is(err, txn.ErrRollback) {
		return err
	}
	ps, rest := s.toCommit()
	s.each(func(p *partition) {
		p.ledger.Pending.Held = int64(p.state.Owed())
		p.output.Low = p.state.Low()
	})
	result, err := s.writer.Commit(ctx, snapshots(ps))
	switch {
	case err != nil:
		return err
	case result == txn.Aborted:
		return errAborted
	}
	s.committed(ps)
	if result == txn.Moved {
		for _, p := range rest {
			p.ledger.Abort() // they are read again from their commits
		}
		return errMoved
	}
	return nil
}

// toCommit returns the partitions that changed: those that the next commit is to have, and
// the rest. What a partition has written is committed with its snapshot or not at all, so
// those that did come first; pace sees to it that they are not too many.
func (s *session) toCommit() (ps, rest []*partition) {
	s.each(func(p *partition) {
		switch {
		case p.output.Written() > 0:
			ps = append(ps, p)
		case p.state.Changed():
			rest = append(rest, p)
		}
	})
	n := min(len(rest), max(s.writer.MostOffsets()-len(ps), 0))
	return append(ps, rest[:n]...), rest[n:]
}

// snapshots returns what is to be committed of partitions, grouped by topic.
func snapshots(ps []*partition) []txn.Offset {
	all := make([]txn.Offset, 0, len(ps))
	for _, p := range ps {
		if p.state.Changed() {
			all = append(all, offsetOf(p.Topic, p.scope, p.state.Snapshot()))
		}
	}
	slices.SortStableFunc(all, func(a, b txn.Offset) int { return strings.Compare(a.Topic, b.Topic) })
	return all
}

func offsetOf(topic string, scope reorder.Scope, s reorder.Snapshot) txn.Offset {
	return txn.Offset{
		Topic: topic, ID: scope.TopicID, Partition: scope.Partition,
		At: s.Low, LeaderEpoch: s.LowEpoch, Metadata: s.Encode(scope),
	}
}

// committed does what follows a commit of partitions.
func (s *session) committed(ps []*partition) {
	s.reporter.Commits.Add(1)
	s.reporter.Errors[fault.Record].Add(s.line.Invalid.Times)
	s.reportFaulty("watermarks that records carry are not used", s.line.Invalid.Markers)
	s.reporter.Lost.Add(s.line.Invalid.Lost)
	s.line.Invalid = pipeline.Invalid{}
	for _, p := range ps {
		if s.cfg.Duplicates == config.DropDuplicates && p.path.Dropped > 0 {
			s.reporter.Drops.Add(p.path.Dropped)
			p.path.Dropped = 0
			s.reporter.Throttle(fmt.Sprint(p.Topic, p.Partition), slog.LevelInfo, fault.None, "duplicates were dropped",
				"topic", p.Topic, "partition", p.Partition, "records", p.ledger.Pending.Dropped)
		}
		p.state.Advance()
		p.ledger.Commit()
		p.committed = p.state.Low()
		p.path.ReportLate()
	}
	s.line.Latency.Commit(s.now(), &s.latency)
}

// aborted does what follows when everything goes back to the last commit.
func (s *session) aborted(err error) {
	if errors.Is(err, errMoved) {
		return // what was committed is, and what was not has been seen to
	}
	s.reporter.Aborts.Add(1)
	s.line.Abort()
	s.ledgers.Abort()
}

func (s *session) reportFaulty(what string, found pipeline.Faulty) {
	if found.Records > 0 {
		s.reporter.Errors[fault.Record].Add(int64(found.Records - 1)) // and one more by Warn
		args := append([]any{"topic", found.Topic, "partition", found.Partition, "first_offset", found.Offset, "records", found.Records}, fault.HintArgs(found.Hint)...)
		s.reporter.Warn(what, found.Err, args...)
	}
}
