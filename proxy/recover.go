package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
	"github.com/tidemarkhq/tidemark/proxy/txn"
	"github.com/tidemarkhq/tidemark/reorder"
)

// load reads what is committed for partitions, takes up their snapshots and
// returns where reading goes on. What begins here is committed before
// anything is read, so that the next start finds its origin. All is committed when it
// is called, so a stop ends it at once.
func (s *session) load(partitions map[string][]int32) (group.Positions, error) {
	defer s.waits.Begin(s.expected.loading)()
	at, err := s.loadAll(s.stopping, partitions)
	if err != nil && s.stopping.Err() != nil && !errors.As(err, new(*fault.Fault)) {
		return nil, errCutShort
	}
	return at, err
}

func (s *session) loadAll(ctx context.Context, partitions map[string][]int32) (group.Positions, error) {
	if len(partitions) == 0 {
		return nil, nil
	}
	for topic, ps := range partitions {
		if slices.Max(ps) >= s.topics[topic].Partitions {
			return nil, fmt.Errorf("%s has grown beyond %d partitions: %w", topic, s.topics[topic].Partitions, preflight.ErrTopicsChanged)
		}
	}
	mine, err := s.admin.FetchCommits(ctx, s.cfg.Group, partitions, true, s.abortedAt)
	if err != nil {
		return nil, err
	}
	s.listed = listings{}
	var loaded, waiting []*partition
	var begins []txn.Offset // what is committed before anything is read
	var fresh []emit.Source
	epochs := map[emit.Source]uint32{} // of those that begin
	away := map[*partition]error{}     // why they cannot be taken up now
	defer func() {
		for _, p := range loaded {
			if s.find(p.Topic, p.Partition) != p {
				s.engine.Revoke(p.state) // it came to an error
			}
		}
	}()
	at := group.Positions{}
	for topic, ps := range partitions {
		at[topic] = map[int32]kgo.Offset{}
		known := sync.OnceValues(func() (int32, error) { return s.knownFrom(ctx, s.topics[topic]) })
		for _, n := range ps {
			p, snap, begun, err := s.resume(ctx, s.topics[topic], n, mine[topic][n], known)
			if errors.Is(err, errLeaderAway) {
				was := max(mine[topic][n].Offset, 0)
				at[topic][n] = kgo.NewOffset().At(was) // from where nothing is read
				p.ledger, p.committed, p.High, p.Stable = s.ledgers.Open(p.Source, 0), was, -1, -1
				away[p] = err
				continue
			}
			if err != nil {
				return nil, err
			}
			if begun {
				fresh = append(fresh, p.Source)
				epochs[p.Source] = snap.Epoch
			}
			if begun || p.adopt(mine[topic][n].Metadata) {
				begins = append(begins, offsetOf(p, snap))
			}
			at[topic][n] = kgo.NewOffset().At(snap.Low).WithEpoch(snap.LowEpoch)
			p.ledger, p.committed, p.High, p.Stable = s.ledgers.Open(p.Source, snap.Count), snap.Low, -1, -1
			if n >= s.topics[topic].Usable {
				waiting = append(waiting, p)
				continue
			}
			p.work(s.line, s.engine.Assign(snap, s.now()), s.now())
			loaded = append(loaded, p)
			s.log.Debug("partition taken up", "topic", topic, "partition", n, "committed_offset", snap.Low,
				"next_offset", snap.Next, "buffered", snap.Count, "epoch", snap.Epoch, "first_start", begun)
		}
	}
	if len(fresh) > 0 {
		if err := s.admin.SameCluster(ctx, s.cluster); err != nil {
			return nil, err
		}
		if err := s.admin.RefuseRivals(ctx, fresh); err != nil {
			return nil, err
		}
	}
	if err := s.writer.Offsets.Commit(ctx, begins); err != nil {
		return nil, err
	}
	for _, src := range fresh {
		s.begun[src] = time.Now()
		if epoch := epochs[src]; epoch > 0 {
			s.log.Warn("a new epoch begins", "topic", src.Topic, "partition", src.Partition,
				"offset", at[src.Topic][src.Partition].EpochOffset().Offset, "epoch", epoch)
		}
	}
	if len(fresh) > 0 {
		s.reporter.Progress("the group had no offsets of its own here, and begins", "cluster_id", s.cluster.ID(), "group", s.cfg.Group, "begins", listAt(fresh, at))
	}
	var again int64
	for _, p := range loaded {
		p.since = s.now()
		p.path.Clocks.Begin(p.since)
		s.install(p)
		delete(s.suspended, p.Source)
		again += p.state.NextOffset() - p.state.Low()
	}
	s.cl.ResumeFetchPartitions(partitions)
	for _, p := range waiting {
		s.awaitOutputs(p)
	}
	for p, why := range away {
		s.awaitLeader(p, why)
	}
	if len(loaded)+len(waiting) == 0 {
		return at, nil
	}
	for p := range away {
		partitions = leaveOut(partitions, p)
	}
	s.reporter.Progress("partitions taken up", "partitions", group.ListPartitions(partitions), "first_starts", len(fresh), "offsets_to_read_again", again)
	return at, nil
}

// listAt writes partitions with the offsets at which they begin: orders/0@17,1@4.
func listAt(sources []emit.Source, at group.Positions) string {
	slices.SortFunc(sources, func(a, b emit.Source) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	var b strings.Builder
	last := ""
	for _, src := range sources {
		if src.Topic != last {
			b.WriteString(strings.Repeat(" ", min(b.Len(), 1)) + src.Topic + "/")
		} else {
			b.WriteByte(',')
		}
		last = src.Topic
		fmt.Fprintf(&b, "%d@%d", src.Partition, at[src.Topic][src.Partition].EpochOffset().Offset)
	}
	return b.String()
}

// resume returns a partition and the snapshot it goes on from; begun says
// that it is a new one, not yet committed. knownFrom is asked for new ones.
func (s *session) resume(ctx context.Context, t preflight.Topic, n int32, was group.Commit, knownFrom func() (int32, error)) (p *partition, snap reorder.Snapshot, begun bool, err error) {
	p = &partition{
		Source: emit.Source{Topic: t.Name, Ordered: t.Ordered, Late: t.Late, Partition: n},
		scope:  s.scope(t, n),
	}
	if was.Offset >= 0 && was.Metadata != "" {
		snap, err = reorder.Decode(was.Metadata, was.Offset, was.LeaderEpoch, p.scope)
		if err == nil {
			return p, snap, false, nil
		}
		if !errors.Is(err, reorder.ErrRecreated) {
			return nil, snap, false, s.refuse(p, was, err)
		}
	}
	known, unknown := knownFrom()
	if unknown != nil {
		return nil, snap, false, unknown
	}
	snap, err = s.beginAt(ctx, p, was, n < known, err, snap.Epoch)
	snap.Known = known
	return p, snap, true, err
}

// leaveOut returns partitions without one of them.
func leaveOut(partitions map[string][]int32, p *partition) map[string][]int32 {
	rest := maps.Clone(partitions)
	rest[p.Topic] = slices.DeleteFunc(slices.Clone(rest[p.Topic]), func(n int32) bool { return n == p.Partition })
	if len(rest[p.Topic]) == 0 {
		delete(rest, p.Topic)
	}
	return rest
}

// adopt compares the topic ids of a commit that was taken up and of the topic, and
// reports whether the commit should say another one. Brokers before 2.8 have no ids:
// of a commit from there it gets the topic's as soon as there is one, and the one that
// it has is kept while the brokers that answer show none.
func (p *partition) adopt(metadata string) bool {
	switch written := reorder.TopicID(metadata); {
	case written == p.scope.TopicID:
		return false
	case p.scope.TopicID == [16]byte{}:
		p.scope.TopicID = written
		return false
	}
	return true
}

func (s *session) scope(t preflight.Topic, n int32) reorder.Scope {
	return reorder.Scope{Group: s.cfg.Group, TopicID: t.ID, Partition: n, Fingerprint: s.extract.Fingerprint()}
}

// refuse explains metadata that cannot be used.
func (s *session) refuse(p *partition, was group.Commit, err error) error {
	err = fmt.Errorf("take up %s partition %d from offset %d of group %q: the metadata of that commit was %w", p.Topic, p.Partition, was.Offset, s.cfg.Group, err)
	switch {
	case errors.Is(err, reorder.ErrFingerprint):
		return fault.Usage(err, "go back to the TIDEMARK_EVENT_TIME of before until nothing is buffered (lag 0), then change it")
	case errors.Is(err, reorder.ErrNewer):
		return fault.Usage(err, "run the version that wrote it, or a later one")
	}
	return fault.Usage(err, "another program commits in this group, or an offset was moved by hand; use a TIDEMARK_GROUP of its own, or reset the offset with the tools of Kafka (which clears the metadata) and set TIDEMARK_ON_RESET=new-epoch")
}

// beginAt decides where a partition without a usable commit begins, and in
// which epoch. first says that it was there when the group began with the
// topic; why, that its commit was for an earlier topic of the name, in the epoch
// before.
func (s *session) beginAt(ctx context.Context, p *partition, was group.Commit, first bool, why error, before uint32) (reorder.Snapshot, error) {
	out, err := s.outputs(ctx, p)
	if errors.Is(err, errLeaderAway) && (was.Offset < 0 || why != nil) {
		// Where it begins is where it would have begun: START=latest does not come to
		// mean the end of the wait.
		if _, failed := s.startsAt(ctx, p, first); failed != nil {
			return reorder.Snapshot{}, failed
		}
	}
	if err != nil {
		return reorder.Snapshot{}, err
	}
	if out.any && s.cfg.OnReset != config.ResetBeginsEpoch {
		if r := s.admin.RivalOf(ctx, p.Source); r != nil { // a new epoch would be the wrong way out
			return reorder.Snapshot{}, r.Refuse(fault.CommandsFor(s.cfg))
		}
		return reorder.Snapshot{}, s.refuseReset(p, was, why)
	}
	epoch := uint32(0)
	switch {
	case why != nil: // what was committed last knows best
		epoch = max(out.epoch, before) + 1
	case out.any:
		epoch = out.next(s.wallClock())
	}
	at := kgo.EpochOffset{Epoch: -1, Offset: was.Offset}
	if was.Offset < 0 || why != nil {
		if at, err = s.startsAt(ctx, p, first); err != nil {
			return reorder.Snapshot{}, err
		}
	}
	return reorder.Fresh(at.Offset, at.Epoch, epoch), nil
}

// startsAt is startOffset, asked once in a session.
func (s *session) startsAt(ctx context.Context, p *partition, first bool) (at kgo.EpochOffset, err error) {
	at, ok := s.starts[p.Source]
	if !ok {
		if at, err = s.startOffset(ctx, p, first); err == nil {
			s.starts[p.Source] = at
		}
	}
	return at, err
}

func (s *session) refuseReset(p *partition, was group.Commit, why error) error {
	what := "the group has no commit"
	switch {
	case why != nil:
		what = "the topic was created again (the commit was " + why.Error() + ")"
	case was.Offset >= 0:
		what = fmt.Sprintf("the offset %d was set from outside", was.Offset)
	}
	return fault.Usage(
		fmt.Errorf("take up %s partition %d: %s, but %s and %s hold records of an earlier run", p.Topic, p.Partition, what, p.Ordered, p.Late),
		"is TIDEMARK_GROUP the group that wrote them? If it is, and an offset was lost or set by hand, it cannot be put back with Kafka's tools, which do not write the metadata that goes with it: "+
			"set TIDEMARK_ON_RESET=new-epoch for one start, to go on in a new epoch, in which order and watermarks begin anew; what the outputs hold from that offset on comes out a second time")
}
