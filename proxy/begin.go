package proxy

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/reorder"
)

// knownFrom returns how many partitions the topic had when the group began
// with it, as the commits of its partitions say. Without any commit the group
// begins now; with none that says so, no partition is known.
func (s *session) knownFrom(ctx context.Context, t Topic) (known int32, err error) {
	every := make([]int32, t.Partitions)
	for n := range every {
		every[n] = int32(n)
	}
	// What the commits say of this never changes, so they need not be stable.
	commits, err := s.fetchCommitted(ctx, s.cfg.Group, map[string][]int32{t.Name: every}, false)
	if err != nil {
		return 0, err
	}
	known = t.Partitions
	said, any := false, false
	for n, c := range commits[t.Name] {
		any = any || c.offset >= 0
		snap, err := reorder.Decode(c.metadata, c.offset, c.leaderEpoch, s.scope(t, n))
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
// question is about a whole topic, and its partitions ask the same.
type listings map[string]kadm.ListedOffsets

func (l listings) once(ctx context.Context, what string, ask func(context.Context, ...string) (kadm.ListedOffsets, error), topics ...string) (kadm.ListedOffsets, error) {
	key := what + " " + topics[0]
	if known, ok := l[key]; ok {
		return known, nil
	}
	listed, err := ask(ctx, topics...)
	if err == nil {
		l[key] = listed
	}
	return listed, err
}

// startOffset resolves where a partition begins that has no commit.
// TIDEMARK_START counts for the partitions that were there when the group
// began with the topic, whichever instance takes them up and when; a partition
// that appeared later is read from its beginning.
func (s *session) startOffset(ctx context.Context, p *partition, first bool) (kgo.EpochOffset, error) {
	doing := func(err error) (kgo.EpochOffset, error) {
		return kgo.EpochOffset{}, fmt.Errorf("find where %s partition %d begins: %w", p.Topic, p.Partition, err)
	}
	var listed kadm.ListedOffsets
	var err error
	switch start := s.cfg.Start; {
	case !first || start.Kind == config.StartEarliest:
		listed, err = s.listed.once(ctx, "start", s.adm.ListStartOffsets, p.Topic)
	case start.Kind == config.StartLatest:
		listed, err = s.listed.once(ctx, "latest", s.adm.ListCommittedOffsets, p.Topic)
	case start.Kind == config.StartTime:
		listed, err = s.listed.once(ctx, "after", func(ctx context.Context, topics ...string) (kadm.ListedOffsets, error) {
			return firstSince(ctx, s.adm, start.Time.Millis(), topics...)
		}, p.Topic)
	case start.Kind == config.StartGroup:
		return s.groupOffset(ctx, p, start.Group)
	}
	if err != nil {
		return doing(err)
	}
	o, ok := listed.Lookup(p.Topic, p.Partition)
	if !ok {
		return doing(fmt.Errorf("%w: it leaves that out", errAnswer))
	}
	if o.Err != nil {
		return doing(o.Err)
	}
	return kgo.EpochOffset{Epoch: o.LeaderEpoch, Offset: o.Offset}, nil
}

// firstSince lists the first offset of each partition whose record has a timestamp
// at or after the given one, in ms; where there is none, the end. The end is asked for
// first: kadm asks for it afterwards, and would pass over what comes between.
func firstSince(ctx context.Context, adm *kadm.Client, ms int64, topics ...string) (kadm.ListedOffsets, error) {
	ends, err := adm.ListEndOffsets(ctx, topics...)
	if err != nil {
		return nil, err
	}
	since, err := adm.ListOffsetsAfterMilli(ctx, ms, topics...)
	for topic, partitions := range since {
		for n, o := range partitions {
			const none = -1 // the timestamp of an end
			if end, ok := ends.Lookup(topic, n); ok && o.Err == nil && o.Timestamp == none {
				since[topic][n] = end
			}
		}
	}
	return since, err
}

// groupOffset returns where another group stands. It must be at rest: what
// its members did after the answer would be done twice.
func (s *session) groupOffset(ctx context.Context, p *partition, group string) (kgo.EpochOffset, error) {
	doing := func(err error, hint string) (kgo.EpochOffset, error) {
		return kgo.EpochOffset{}, usage(fmt.Errorf("start %s partition %d where group %q stands: %w", p.Topic, p.Partition, group, err), hint)
	}
	groups, err := s.adm.DescribeGroups(ctx, group)
	if err == nil {
		err = groups.Error()
	}
	if errors.Is(err, kerr.GroupAuthorizationFailed) {
		return doing(fmt.Errorf("we may not DESCRIBE it: %w", err), "allow it: "+tools{s.cfg}.allow("--group", group, kadm.OpDescribe))
	}
	if err != nil {
		return kgo.EpochOffset{}, fmt.Errorf("describe group %q: %w", group, err)
	}
	if n := len(groups[group].Members); n > 0 {
		return doing(fmt.Errorf("it has %d live members", n), "stop its consumers first")
	}
	offsets, err := s.fetchCommitted(ctx, group, map[string][]int32{p.Topic: {p.Partition}}, true)
	if err != nil {
		return kgo.EpochOffset{}, err
	}
	c, ok := offsets[p.Topic][p.Partition]
	if !ok || c.offset < 0 {
		return doing(errors.New("it has no offset for it"), "commit one for that partition in the group, or choose another TIDEMARK_START")
	}
	return kgo.EpochOffset{Epoch: c.leaderEpoch, Offset: c.offset}, nil
}
