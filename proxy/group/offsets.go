package group

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// Commit is what the group has committed for a partition.
type Commit struct {
	Offset      int64 // -1: nothing
	LeaderEpoch int32
	Metadata    string
}

// FetchCommits reads a group's commits for partitions. A stable answer waits
// for transactions that are about to change them. abortedAt is when we aborted what was
// written to these partitions, if that is why they are read.
func (a *Admin) FetchCommits(ctx context.Context, group string, partitions map[string][]int32, stable bool, abortedAt time.Time) (map[string]map[int32]Commit, error) {
	req, names := a.offsetRequest(group, partitions, stable)
	var h holders
	pause := fault.Backoff{First: 20 * time.Millisecond, Longest: time.Second}
	for {
		all, err := a.fetchOnce(ctx, req, names)
		if !errors.Is(err, kerr.UnstableOffsetCommit) {
			return all, err
		}
		if !abortedAt.IsZero() && time.Since(abortedAt) > ownAbort {
			// On our own partitions, after an abort: it is our own, and the
			// client believes that it has ended. The next session ends it.
			return nil, fmt.Errorf("%w: the aborted transaction is still open", err)
		}
		a.Reporter.Waits.Answered(err)
		a.heldBack(ctx, group, &h, err)
		if err := pause.Wait(ctx); err != nil {
			return nil, err
		}
	}
}

func (a *Admin) offsetRequest(group string, partitions map[string][]int32, stable bool) (req *kmsg.OffsetFetchRequest, names map[[16]byte]string) {
	req = kmsg.NewPtrOffsetFetchRequest()
	req.RequireStable = stable
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	names = map[[16]byte]string{}
	for topic, ps := range partitions {
		t := kmsg.NewOffsetFetchRequestGroupTopic()
		t.Topic, t.TopicID, t.Partitions = topic, a.Topics[topic].ID, ps
		names[t.TopicID] = topic
		g.Topics = append(g.Topics, t)
	}
	req.Groups = append(req.Groups, g)
	return req, names
}

// ownAbort is how long the end of our own transaction may take to be seen.
const ownAbort = time.Second

func (a *Admin) fetchOnce(ctx context.Context, req *kmsg.OffsetFetchRequest, names map[[16]byte]string) (map[string]map[int32]Commit, error) {
	doing := func(err error) error {
		return fmt.Errorf("fetch the offsets of group %q: %w", req.Groups[0].Group, err)
	}
	resp, err := req.RequestWith(ctx, a.Client)
	if err != nil {
		return nil, doing(err)
	}
	if len(resp.Groups) != 1 {
		return nil, doing(fmt.Errorf("%w: it is about %d groups", fault.ErrBadAnswer, len(resp.Groups)))
	}
	g := resp.Groups[0]
	if err := kerr.ErrorForCode(g.ErrorCode); err != nil {
		return nil, doing(err)
	}
	all := map[string]map[int32]Commit{}
	for _, t := range g.Topics {
		topic := t.Topic
		if topic == "" {
			topic = names[t.TopicID]
		}
		all[topic] = map[int32]Commit{}
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return nil, doing(fmt.Errorf("%s partition %d: %w", topic, p.Partition, err))
			}
			c := Commit{Offset: p.Offset, LeaderEpoch: p.LeaderEpoch}
			if p.Metadata != nil {
				c.Metadata = *p.Metadata
			}
			all[topic][p.Partition] = c
		}
	}
	for _, asked := range req.Groups[0].Topics {
		if all[asked.Topic] == nil {
			return nil, doing(fmt.Errorf("%w: it leaves out %s", fault.ErrBadAnswer, asked.Topic))
		}
	}
	return all, nil
}
