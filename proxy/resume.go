package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/recovery"
	"github.com/tidemarkhq/tidemark/proxy/txn"
)

// How a partition comes to be worked on:
//
//	client: OnPartitionsAssigned   dead members' transactions are fenced, so that
//	                               committed offsets can be read at all
//	client: fetches offsets        waits until they are stable
//	client: AdjustFetchOffsets --> loop: checkpoint, then load: recovery.Loader reads the
//	                               commits, what begins is committed, and the
//	                               partitions are installed
//	client: reads from L  <------- loop: positions
//
// After an abort the loop does the same by itself: reload.

// takeRequests takes up partitions that the client has been assigned.
func (s *session) takeRequests(ctx context.Context) error {
	for req, ok := s.member.TakeRequest(); ok; req, ok = s.member.TakeRequest() {
		at, err := s.takeUp(ctx, req.Partitions)
		req.Answer(at, err == nil)
		switch {
		case err == nil:
		case txn.Stale(err):
			s.reporter.Info("the group has rebalanced while partitions were being assigned; they will be assigned again", err, "group", s.cfg.Group) // the client is assigned again
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
	if err := s.checkStrangers(); err != nil {
		return nil, err
	}
	return s.load("partitions assigned", partitions)
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
	at, err := s.load("partitions are read again from their last commit", partitions)
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
	if s.unstick {
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

// checkStrangers returns an error if others have come into the group before us. Nobody
// comes after.
func (s *session) checkStrangers() error {
	if others := group.StrangersIn(s.stopping, s.adm, s.reporter, s.cfg); others != nil {
		return fmt.Errorf("join group %q: %w", s.cfg.Group, others)
	}
	return nil
}

// load has partitions be worked on from their commits, and returns where reading goes on.
// What begins here is committed before anything is read, so that the next start finds its
// origin. All is committed when it is called, so a stop ends it at once. msg is how the log
// tells of it.
func (s *session) load(msg string, partitions map[string][]int32) (group.Positions, error) {
	defer s.reporter.Waits.Begin(s.joining.loading)()
	at, err := s.loadAll(s.stopping, msg, partitions)
	if err != nil && s.stopping.Err() != nil && !errors.As(err, new(*fault.Fault)) {
		return nil, errStopping
	}
	return at, err
}

func (s *session) loadAll(ctx context.Context, msg string, partitions map[string][]int32) (group.Positions, error) {
	if len(partitions) == 0 {
		return nil, nil
	}
	all, err := s.loader.Load(ctx, partitions, s.abortedAt)
	if err != nil {
		return nil, err
	}
	var offsets []txn.Offset // to be committed before anything is read
	for i := range all {
		if r := &all[i]; r.Uncommitted {
			offsets = append(offsets, offsetOf(r.Topic, r.Scope, r.Snapshot))
		}
	}
	if err := s.writer.Offsets.Commit(ctx, offsets); err != nil {
		return nil, err
	}
	s.reportBeginnings(all)
	s.reportUnusedStart(all)
	s.cl.ResumeFetchPartitions(partitions)
	at := group.Positions{}
	taken, begun, replayed := map[string][]int32{}, 0, int64(0)
	for i := range all {
		r := &all[i]
		if at[r.Topic] == nil {
			at[r.Topic] = map[int32]kgo.Offset{}
		}
		at[r.Topic][r.Partition] = r.At()
		s.resume(r)
		if r.Away != nil {
			continue
		}
		taken[r.Topic] = append(taken[r.Topic], r.Partition)
		if r.Begins {
			begun++
		}
		if !r.NoOutput {
			replayed += r.Snapshot.Next - r.Snapshot.Low
		}
	}
	if len(taken) > 0 {
		s.reporter.Progress(msg, "partitions", group.ListPartitions(taken), "first_starts", begun, "offsets_to_read_again", replayed)
	}
	return at, nil
}

// resume installs a partition, or suspends it where it cannot be worked on.
func (s *session) resume(r *recovery.Resumption) {
	snap := r.Snapshot
	p := &partition{
		Source: r.Source, scope: r.Scope, ledger: s.ledgers.Open(r.Source, snap.Count), committed: snap.Low,
		Extent: group.Extent{High: -1, Stable: -1},
	}
	switch {
	case r.Away != nil:
		s.awaitLeader(p, r.Away)
	case r.NoOutput:
		s.awaitOutputs(p)
	default:
		p.since = s.now()
		p.work(s.line, s.engine.Assign(snap, p.since), p.since)
		p.path.Earlier = r.Earlier
		s.install(p)
		delete(s.suspended, p.Source)
		s.reporter.Logger.Debug("partition assigned", "topic", p.Topic, "partition", p.Partition, "committed_offset", snap.Low,
			"next_offset", snap.Next, "buffered", snap.Count, "epoch", snap.Epoch, "first_start", r.Begins)
	}
}

// reportBeginnings tells of partitions that begin, and takes note of when.
func (s *session) reportBeginnings(all []recovery.Resumption) {
	var begun []*recovery.Resumption
	for i := range all {
		r := &all[i]
		if !r.Begins {
			continue
		}
		begun = append(begun, r)
		s.begun[r.Source] = time.Now()
		if r.Snapshot.Epoch > 0 {
			s.reporter.Logger.Warn("a new epoch begins", "topic", r.Topic, "partition", r.Partition, "offset", r.Snapshot.Low, "epoch", r.Snapshot.Epoch)
		}
	}
	if len(begun) > 0 {
		s.reporter.Progress("the group has no offsets for these partitions and starts them", "cluster_id", s.cluster.ID(), "group", s.cfg.Group, "begins", listBeginnings(begun))
	}
}

// reportUnusedStart tells, once, whoever has set TIDEMARK_START that it does not count where
// the group has offsets.
func (s *session) reportUnusedStart(all []recovery.Resumption) {
	if !s.cfg.StartIsSet() {
		return
	}
	for i := range all {
		if r := &all[i]; !r.Begins && r.Away == nil {
			s.reporter.InfoOnce(r.Topic, "the group has offsets, so TIDEMARK_START does not count; reading goes on from them",
				"topic", r.Topic, "group", s.cfg.Group, "start", s.cfg.Start.String())
		}
	}
}

// listBeginnings writes partitions with the offsets at which they begin: orders/0@17,1@4.
func listBeginnings(begun []*recovery.Resumption) string {
	slices.SortFunc(begun, func(a, b *recovery.Resumption) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	var b strings.Builder
	last := ""
	for _, r := range begun {
		if r.Topic != last {
			b.WriteString(strings.Repeat(" ", min(b.Len(), 1)) + r.Topic + "/")
		} else {
			b.WriteByte(',')
		}
		last = r.Topic
		fmt.Fprintf(&b, "%d@%d", r.Partition, r.Snapshot.Low)
	}
	return b.String()
}
