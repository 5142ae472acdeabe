package recovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
	"github.com/tidemarkhq/tidemark/reorder"
)

// knownFrom returns how many partitions the topic had when the group began
// with it, as the commits of its partitions say. Without any commit the group
// begins now; with none that says so, no partition is known.
func (l *Loader) knownFrom(ctx context.Context, t preflight.Topic) (known int32, err error) {
	every := make([]int32, t.Partitions)
	for n := range every {
		every[n] = int32(n)
	}
	// What the commits say of this never changes, so they need not be stable.
	commits, err := l.Admin.FetchCommits(ctx, l.Admin.Config.Group, map[string][]int32{t.Name: every}, false, l.abortedAt)
	if err != nil {
		return 0, err
	}
	known = t.Partitions
	said, any := false, false
	for n, c := range commits[t.Name] {
		any = any || c.Offset >= 0
		snap, err := reorder.Decode(c.Metadata, c.Offset, c.LeaderEpoch, l.scope(t, n))
		if err == nil {
			known, said = min(known, snap.Known), true
		}
	}
	if any && !said {
		return 0, nil
	}
	return known, nil
}

// listings are offsets that brokers have listed while partitions are taken up. A
// question is about whole topics, and their partitions ask the same.
type listings map[string]listing

// listing is what brokers have answered; err, why some have not.
type listing struct {
	kadm.ListedOffsets
	err error
}

// Lister is one of kadm's questions about the offsets of topics.
type Lister func(ctx context.Context, topics ...string) (kadm.ListedOffsets, error)

// once asks, unless it has been asked before. What some brokers answer counts, whatever
// becomes of others.
func (l listings) once(ctx context.Context, what string, ask Lister, topics ...string) (listing, error) {
	key := what + " " + topics[0]
	if known, ok := l[key]; ok {
		return known, nil
	}
	answer, err := askAll(ctx, ask, topics...)
	if err == nil {
		l[key] = answer
	}
	return answer, err
}

// listPatience is how long brokers may take to list offsets: the loop waits.
const listPatience = 2 * time.Second

// askAll asks the leaders of all partitions of topics. It fails only if nobody could be
// asked.
func askAll(ctx context.Context, ask Lister, topics ...string) (listing, error) {
	asking, cancel := context.WithTimeout(ctx, listPatience)
	defer cancel()
	listed, err := ask(asking, topics...)
	switch {
	case ctx.Err() != nil:
		return listing{}, ctx.Err()
	case err != nil && !errors.As(err, new(*kadm.ShardErrors)):
		return listing{}, err
	}
	return listing{listed, err}, nil
}

// ErrLeaderAway says that the leader of a partition does not answer, or that there is none.
var ErrLeaderAway = errors.New("its leader does not answer")

// of returns what was answered about a partition. ErrLeaderAway: nobody has answered, and
// others may have.
func (l listing) of(topic string, n int32) (kadm.ListedOffset, error) {
	o, ok := l.Lookup(topic, n)
	err := o.Err
	switch {
	case !ok && l.err == nil:
		return o, fmt.Errorf("%w: it leaves out %s partition %d", fault.ErrBadAnswer, topic, n)
	case !ok:
		err = l.err
	case err == nil:
		return o, nil
	}
	if ok && !preflight.Transient(err) {
		return o, err
	}
	return o, fmt.Errorf("list the offsets of %s partition %d: %w: %w", topic, n, ErrLeaderAway, err)
}

// startOffset resolves where a partition begins that has no commit.
// TIDEMARK_START counts for the partitions that were there when the group
// began with the topic, whichever instance takes them up and when; a partition
// that appeared later is read from its beginning.
func (l *Loader) startOffset(ctx context.Context, p *Resumption, first bool) (kgo.EpochOffset, error) {
	doing := func(err error) (kgo.EpochOffset, error) {
		return kgo.EpochOffset{}, fmt.Errorf("find where %s partition %d begins: %w", p.Topic, p.Partition, err)
	}
	var listed listing
	var err error
	switch start := l.Admin.Config.Start; {
	case !first || start.Kind == config.StartEarliest:
		listed, err = l.listed.once(ctx, "start", l.Admin.Kadm.ListStartOffsets, p.Topic)
	case start.Kind == config.StartLatest:
		listed, err = l.listed.once(ctx, "latest", l.Admin.Kadm.ListCommittedOffsets, p.Topic)
	case start.Kind == config.StartTime:
		listed, err = l.listed.once(ctx, "after", func(ctx context.Context, topics ...string) (kadm.ListedOffsets, error) {
			return firstSince(ctx, l.Admin.Kadm, start.Time.Millis(), topics...)
		}, p.Topic)
	case start.Kind == config.StartGroup:
		return l.groupOffset(ctx, p, start.Group)
	}
	if err != nil {
		return doing(err)
	}
	o, err := listed.of(p.Topic, p.Partition)
	if err != nil {
		return doing(err)
	}
	return kgo.EpochOffset{Epoch: o.LeaderEpoch, Offset: o.Offset}, nil
}

// firstSince lists the first offset of each partition whose record has a timestamp
// at or after the given one, in ms; where there is none, the end. The end is asked for
// first: kadm asks for it afterwards, and would pass over what comes between.
func firstSince(ctx context.Context, adm *kadm.Client, ms int64, topics ...string) (kadm.ListedOffsets, error) {
	ends, err := adm.ListEndOffsets(ctx, topics...)
	if err != nil && !errors.As(err, new(*kadm.ShardErrors)) {
		return nil, err
	}
	since, failed := adm.ListOffsetsAfterMilli(ctx, ms, topics...)
	for topic, partitions := range since {
		for n, o := range partitions {
			const none = -1 // the timestamp of an end
			if o.Err != nil || o.Timestamp != none {
				continue
			}
			if end, ok := ends.Lookup(topic, n); ok {
				since[topic][n] = end
			} else {
				delete(since[topic], n) // where it ended before is not known
			}
		}
	}
	return since, cmp.Or(failed, err)
}

// groupOffset returns where another group stands. It must be at rest: what
// its members did after the answer would be done twice.
func (l *Loader) groupOffset(ctx context.Context, p *Resumption, group string) (kgo.EpochOffset, error) {
	doing := func(err error, hint string) (kgo.EpochOffset, error) {
		return kgo.EpochOffset{}, fault.Usage(fmt.Errorf("start %s partition %d where group %q stands: %w", p.Topic, p.Partition, group, err), hint)
	}
	groups, err := l.Admin.Kadm.DescribeGroups(ctx, group)
	if err == nil {
		err = groups.Error()
	}
	if errors.Is(err, kerr.GroupAuthorizationFailed) {
		return doing(fmt.Errorf("not allowed to DESCRIBE it: %w", err), "allow it: "+fault.CommandsFor(l.Admin.Config).Allow("--group", group, kadm.OpDescribe))
	}
	if errors.Is(err, kerr.GroupIDNotFound) { // since Kafka 4.0
		return doing(errors.New("there is no such group"), "is the name right? Else choose another TIDEMARK_START")
	}
	if err != nil {
		return kgo.EpochOffset{}, fmt.Errorf("describe group %q: %w", group, err)
	}
	if n := len(groups[group].Members); n > 0 {
		return doing(fmt.Errorf("it has %d live members", n), "stop its consumers first")
	}
	offsets, err := l.Admin.FetchCommits(ctx, group, map[string][]int32{p.Topic: {p.Partition}}, true, l.abortedAt)
	if err != nil {
		return kgo.EpochOffset{}, err
	}
	c, ok := offsets[p.Topic][p.Partition]
	if !ok || c.Offset < 0 {
		return doing(errors.New("it has no offset for it"), "commit one for that partition in the group, or choose another TIDEMARK_START")
	}
	return kgo.EpochOffset{Epoch: c.LeaderEpoch, Offset: c.Offset}, nil
}
