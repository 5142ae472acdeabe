package txn

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// atLeastOnce commits offsets once the records are acknowledged. Readers see records before
// the commit, and see them again if they are written again.
type atLeastOnce struct {
	*OffsetCommitter
	retry *retry
}

// Atomic implements Committer.
func (*atLeastOnce) Atomic() bool { return false }

// Begin implements Committer. There is nothing to begin.
func (*atLeastOnce) Begin(context.Context, bool) error { return nil }

// Forget implements Committer. There is nothing to forget.
func (*atLeastOnce) Forget(context.Context) error { return nil }

// End implements Committer.
func (c *atLeastOnce) End(ctx context.Context, offsets []Offset, commit bool) (Result, error) {
	if !commit {
		return Aborted, nil
	}
	err := c.Commit(ctx, offsets)
	if Stale(err) {
		c.Reporter.Info("the group has rebalanced, so a commit was refused; going back to the last commit", err, "group", c.Config.Group)
		c.retry.pending = true // the client learns of it with the next heartbeat
		return Aborted, nil
	}
	return Committed, err
}

// OffsetCommitter commits offsets as a member of the group, outside any transaction.
type OffsetCommitter struct {
	Config   config.Config
	Client   *kgo.Client // a member
	Reporter *fault.Reporter
	Limits   *Limits
	Wait     fault.Wait // for one commit
}

// Commit commits offsets, grouped by topic, in as many requests as it takes.
func (c *OffsetCommitter) Commit(ctx context.Context, offsets []Offset) error {
	for len(offsets) > 0 {
		n, size := 0, 0
		for ; n < len(offsets); n++ {
			more := offsets[n].size(c.Config.Group)
			if n > 0 && size+more > c.Limits.commit {
				break
			}
			size += more
		}
		err := c.commitOnce(ctx, offsets[:n])
		switch {
		case TooLargeCommit(err, size):
			if err := c.Limits.CommitRefused(c.Reporter, c.Config, n, size, err); err != nil {
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

func (c *OffsetCommitter) commitOnce(ctx context.Context, offsets []Offset) error {
	defer c.Reporter.Waits.Begin(c.Wait)()
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group = c.Config.Group
	req.MemberID, req.Generation = c.Client.GroupMetadata()
	req.InstanceID = &c.Config.Instance
	for same := range byTopic(offsets) {
		t := kmsg.NewOffsetCommitRequestTopic()
		t.Topic, t.TopicID = same[0].Topic, same[0].ID
		for _, o := range same {
			p := kmsg.NewOffsetCommitRequestTopicPartition()
			p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = o.Partition, o.At, o.LeaderEpoch, &o.Metadata
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, c.Client)
	if err != nil {
		return fault.Uncommittable(c.Config, fmt.Errorf("commit offsets of group %q: %w", c.Config.Group, err))
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fault.Uncommittable(c.Config, fmt.Errorf("commit offset of partition %d in group %q: %w", p.Partition, c.Config.Group, err))
			}
		}
	}
	return nil
}

// Stale reports whether the group has a newer generation than ours.
func Stale(err error) bool {
	return errors.Is(err, kerr.IllegalGeneration) || errors.Is(err, kerr.UnknownMemberID) ||
		errors.Is(err, kerr.RebalanceInProgress) || errors.Is(err, kerr.StaleMemberEpoch)
}
