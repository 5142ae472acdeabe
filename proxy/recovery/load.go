package recovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
	"github.com/tidemarkhq/tidemark/reorder"
)

// Loader finds out from where partitions go on. It asks brokers, and changes nothing.
type Loader struct {
	Admin       *group.Admin
	Cluster     *preflight.Cluster
	Fingerprint [4]byte // of the event-time sources
	// Earlier are those that earlier versions of Tidemark gave the same sources.
	Earlier   [][4]byte
	WallClock func() time.Time

	abortedAt time.Time
	listed    listings                        // during a Load
	starts    map[emit.Source]kgo.EpochOffset // where partitions begin that have no commit yet
}

// Resumption is how a partition goes on.
type Resumption struct {
	emit.Source
	Scope    reorder.Scope
	Snapshot reorder.Snapshot // from which it goes on
	// Begins says that it has no commit that can be used, and begins here.
	Begins bool
	// Uncommitted says that the snapshot has to be committed before anything is read: so
	// the next start finds the same origin, or the topic's id.
	Uncommitted bool
	// NoOutput says that the outputs have no such partition yet.
	NoOutput bool
	// Earlier says that the commit was written by a version that read some event times
	// otherwise. What it holds has to be found again by this one, or it cannot go on.
	Earlier bool
	// Away says why nothing is known yet but the offset of the commit: the leader of the
	// partition, or of its outputs, does not answer.
	Away error
}

// At returns where reading goes on.
func (p *Resumption) At() kgo.Offset {
	if p.Away != nil {
		return kgo.NewOffset().At(p.Snapshot.Low)
	}
	return kgo.NewOffset().At(p.Snapshot.Low).WithEpoch(p.Snapshot.LowEpoch)
}

// Load reads what is committed for partitions, and returns from where each of them goes on.
// abortedAt is when everything since that commit was undone, if that is why; zero: it is
// not. Where partitions begin, others must not be writing to their outputs, and the
// brokers have to be of the cluster that they were of.
func (l *Loader) Load(ctx context.Context, partitions map[string][]int32, abortedAt time.Time) ([]Resumption, error) {
	for topic, ps := range partitions {
		if most := l.Admin.Topics[topic].Partitions; slices.Max(ps) >= most {
			return nil, fmt.Errorf("%s has grown beyond %d partitions: %w", topic, most, preflight.ErrTopicsChanged)
		}
	}
	l.abortedAt, l.listed = abortedAt, listings{}
	if l.starts == nil {
		l.starts = map[emit.Source]kgo.EpochOffset{}
	}
	commits, err := l.Admin.FetchCommits(ctx, l.Admin.Config.Group, partitions, true, abortedAt)
	if err != nil {
		return nil, err
	}
	var all []Resumption
	var begin []emit.Source
	for topic, ps := range partitions {
		t := l.Admin.Topics[topic]
		known := sync.OnceValues(func() (int32, error) { return l.knownFrom(ctx, t) })
		for _, n := range ps {
			was := commits[topic][n]
			p, err := l.resume(ctx, t, n, was, known)
			switch {
			case errors.Is(err, ErrLeaderAway):
				p.Snapshot = reorder.Snapshot{Low: max(was.Offset, 0)}
				p.Begins, p.Uncommitted, p.Away = false, false, err
			case err != nil:
				return nil, err
			case p.Begins:
				begin = append(begin, p.Source)
			}
			all = append(all, p)
		}
	}
	if len(begin) == 0 {
		return all, nil
	}
	if err := l.Admin.SameCluster(ctx, l.Cluster); err != nil {
		return nil, err
	}
	return all, l.Admin.RefuseRivals(ctx, begin)
}

// resume returns how a partition goes on from its commit. knownFrom is asked for one that
// begins.
func (l *Loader) resume(ctx context.Context, t preflight.Topic, n int32, was group.Commit, knownFrom func() (int32, error)) (Resumption, error) {
	p := Resumption{
		Source: emit.Source{Topic: t.Name, Ordered: t.Ordered, Late: t.Late, Partition: n},
		Scope:  l.scope(t, n), NoOutput: n >= t.Usable,
	}
	var snap reorder.Snapshot
	var err error
	if was.Offset >= 0 && was.Metadata != "" {
		snap, err = reorder.Decode(was.Metadata, was.Offset, was.LeaderEpoch, p.Scope)
		if err == nil {
			p.Snapshot, p.Uncommitted = snap, p.adopt(was.Metadata)
			return p, nil
		}
		if errors.Is(err, reorder.ErrFingerprint) && l.takeEarlier(&p, was) {
			return p, nil
		}
		if !errors.Is(err, reorder.ErrRecreated) {
			return p, l.refuse(&p, was, err)
		}
	}
	known, unknown := knownFrom()
	if unknown != nil {
		return p, unknown
	}
	p.Snapshot, err = l.beginAt(ctx, &p, was, n < known, err, &snap)
	p.Snapshot.Known = known
	p.Begins, p.Uncommitted = true, true
	return p, err
}

// takeEarlier takes up a commit of an earlier version, if it is one for the same sources.
func (l *Loader) takeEarlier(p *Resumption, was group.Commit) bool {
	for _, fingerprint := range l.Earlier {
		scope := p.Scope
		scope.Fingerprint = fingerprint
		if snap, err := reorder.Decode(was.Metadata, was.Offset, was.LeaderEpoch, scope); err == nil {
			snap.TimesChange()
			p.adopt(was.Metadata) // written by the next commit: it must not look like one of ours before it is replayed
			p.Snapshot, p.Earlier = snap, true
			return true
		}
	}
	return false
}

// adopt compares the topic ids of a commit that was taken up and of the topic, and
// reports whether the commit should say another one. Brokers before 2.8 have no ids:
// of a commit from there it gets the topic's as soon as there is one, and the one that
// it has is kept while the brokers that answer show none.
func (p *Resumption) adopt(metadata string) bool {
	switch written := reorder.TopicID(metadata); {
	case written == p.Scope.TopicID:
		return false
	case p.Scope.TopicID == [16]byte{}:
		p.Scope.TopicID = written
		return false
	}
	return true
}

func (l *Loader) scope(t preflight.Topic, n int32) reorder.Scope {
	return reorder.Scope{Group: l.Admin.Config.Group, TopicID: t.ID, Partition: n, Fingerprint: l.Fingerprint}
}

// refuse explains metadata that cannot be used.
func (l *Loader) refuse(p *Resumption, was group.Commit, err error) error {
	err = fmt.Errorf("take up %s partition %d from offset %d of group %q: the metadata of that commit was %w", p.Topic, p.Partition, was.Offset, l.Admin.Config.Group, err)
	return fault.Usage(err, Advice(err, was.Offset))
}

// beginAt decides where a partition without a usable commit begins, and in
// which epoch. first says that it was there when the group began with the
// topic; why, that its commit, before, was for an earlier topic of the name.
func (l *Loader) beginAt(ctx context.Context, p *Resumption, was group.Commit, first bool, why error, before *reorder.Snapshot) (reorder.Snapshot, error) {
	out, err := l.outputs(ctx, p)
	if errors.Is(err, ErrLeaderAway) && (was.Offset < 0 || why != nil) {
		// Where it begins is where it would have begun: START=latest does not come to
		// mean the end of the wait.
		if _, failed := l.startsAt(ctx, p, first); failed != nil {
			return reorder.Snapshot{}, failed
		}
	}
	if err != nil {
		return reorder.Snapshot{}, err
	}
	if out.any && l.Admin.Config.OnReset != config.ResetBeginsEpoch {
		if r := l.Admin.RivalOf(ctx, p.Source); r != nil { // a new epoch would be the wrong way out
			return reorder.Snapshot{}, r.Refuse(fault.CommandsFor(l.Admin.Config))
		}
		return reorder.Snapshot{}, l.refuseReset(p, was, why)
	}
	epoch := uint32(0)
	switch {
	case why != nil: // what was committed last knows best
		epoch = max(out.epoch, before.Epoch) + 1
	case out.any:
		epoch = out.next(l.WallClock())
	}
	at := kgo.EpochOffset{Epoch: -1, Offset: was.Offset}
	if was.Offset < 0 || why != nil {
		if at, err = l.startsAt(ctx, p, first); err != nil {
			return reorder.Snapshot{}, err
		}
	}
	if why == nil {
		return reorder.FreshAfter(nil, at.Offset, at.Epoch, epoch), nil
	}
	return reorder.FreshAfter(reorder.TimesKnown(was.Metadata, before, why, p.Scope), at.Offset, at.Epoch, epoch), nil
}

// startsAt is startOffset, asked once in a session.
func (l *Loader) startsAt(ctx context.Context, p *Resumption, first bool) (at kgo.EpochOffset, err error) {
	at, ok := l.starts[p.Source]
	if !ok {
		if at, err = l.startOffset(ctx, p, first); err == nil {
			l.starts[p.Source] = at
		}
	}
	return at, err
}

func (l *Loader) refuseReset(p *Resumption, was group.Commit, why error) error {
	what := "the group has no commit"
	switch {
	case why != nil:
		what = "the topic was created again (the commit was " + why.Error() + ")"
	case was.Offset >= 0:
		what = fmt.Sprintf("offset %d was committed without metadata, by hand, by another program or by a tool that mirrors groups", was.Offset)
	}
	return fault.Usage(
		fmt.Errorf("take up %s partition %d: %s, but %s and %s hold records of an earlier run", p.Topic, p.Partition, what, p.Ordered, p.Late), Advice(why, was.Offset))
}
