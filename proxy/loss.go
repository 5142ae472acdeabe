package proxy

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/recovery"
)

// takeErrors looks at what came with a poll instead of records.
func (s *session) takeErrors(ctx context.Context, fetches kgo.Fetches) error {
	for _, f := range fetches.Errors() {
		if err := ignoreHandled(s.takeError(ctx, f)); err != nil {
			return err
		}
	}
	return nil
}

// readPause is the pause after an error in reading that the client does not
// try again by itself. Other partitions wait too, so it is short.
const readPause = 100 * time.Millisecond

func (s *session) takeError(ctx context.Context, f kgo.FetchError) error {
	p := s.find(f.Topic, f.Partition)
	if s.isSuspended(f.Topic, f.Partition) || p != nil && p.state.Waits() {
		return nil // and is not read
	}
	switch err := f.Err; {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return nil
	case errors.Is(err, kgo.ErrClientClosed):
		return err
	case errors.Is(err, kerr.FencedInstanceID):
		return fault.Failed(fmt.Errorf("join group %q as instance %q: %w", s.cfg.Group, s.cfg.Instance, err),
			"another process runs with this instance id; give each its own TIDEMARK_INSTANCE")
	case errors.Is(err, kerr.InconsistentGroupProtocol):
		// Brokers say that we are no member. The next session waits: see awaitGroup.
		s.member.NotAsked()
		return fmt.Errorf("join group %q: %w: %w", s.cfg.Group, group.ErrStrangers, err)
	case errors.As(err, new(*kgo.ErrGroupSession)):
		if f := fault.Permanent(s.cfg, err); f != nil {
			return f
		}
		if fault.HandshakeHint(err) != "" {
			// The client would log in again several times a second. The next
			// session's preflight takes its time: see refusedPause.
			return fmt.Errorf("join group %q: %w", s.cfg.Group, err)
		}
		s.reporter.Warn("lost the group; joining again", err, "group", s.cfg.Group)
		return nil
	case p != nil && errors.As(err, new(*kgo.ErrDecompressTooLarge)):
		return s.tooLargeToRead(ctx, p, err)
	case p != nil && (errors.As(err, new(*kgo.ErrDataLoss)) || errors.Is(err, kerr.OffsetOutOfRange)):
		return s.onDataLoss(ctx, p, err)
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return fault.Usage(fmt.Errorf("read %s: %w", f.Topic, err),
			"allow it: "+fault.CommandsFor(s.cfg).Allow("--topic", f.Topic, kadm.OpRead, kadm.OpDescribe))
	case errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.InconsistentTopicID):
		if other := s.admin.SameCluster(ctx, s.cluster); other != nil {
			return other
		}
		return fault.Failed(fmt.Errorf("read %s: the topic was deleted or created again: %w", f.Topic, err),
			"start again; if the topic is new, a new epoch has to begin: `tidemark position new-epoch --from earliest`, or TIDEMARK_ON_RESET=new-epoch for one start")
	case p == nil && f.Topic != "":
		// The client could not fetch the offset of a partition and goes on
		// without it: it would never be read.
		return fmt.Errorf("take up %s partition %d: %w", f.Topic, f.Partition, err)
	default:
		return s.again(ctx, p, err)
	}
}

// again pauses after an error in reading. The client asks again at once.
func (s *session) again(ctx context.Context, p *partition, err error) error {
	var where []any
	if p != nil {
		where = []any{"topic", p.Topic, "partition", p.Partition}
	}
	s.reporter.Warn("cannot read; trying again", err, where...)
	pause := fault.Backoff{First: readPause, Longest: readPause}
	_ = pause.Wait(ctx)
	return nil
}

// onDataLoss deals with a position that the log no longer has, or with records that
// a new leader has rewritten: retention, deletion or truncation came between.
func (s *session) onDataLoss(ctx context.Context, p *partition, cause error) error {
	start, end, err := recovery.Bounds(ctx, p.Topic, p.Partition, s.adm.ListStartOffsets, s.adm.ListEndOffsets)
	if errors.Is(err, recovery.ErrLeaderAway) {
		return s.again(ctx, p, err) // the leader is moving
	}
	if err != nil {
		return fmt.Errorf("find the bounds of %s partition %d: %w", p.Topic, p.Partition, err)
	}
	// Where a new leader has written over the log, what it wrote is read
	// like anything new.
	at, diverged := p.state.Position(), end.Offset
	if rewritten, ok := errors.AsType[*kgo.ErrDataLoss](cause); ok {
		diverged = min(diverged, rewritten.ResetTo)
	} else if parted, err := s.divergence(ctx, p); err != nil {
		return err
	} else if parted >= 0 {
		diverged = min(diverged, parted)
	}
	if start.Offset <= at && at <= diverged {
		return s.again(ctx, p, cause) // the log has it: a broker that was behind has answered
	}
	err = p.path.Lost(fmt.Errorf("offset %d was to be read next, %d records are held, the log holds %d to %d: %w",
		at, p.state.Snapshot().Count, start.Offset, end.Offset, cause))
	if err != nil {
		return err
	}
	if at < start.Offset {
		s.skipLost(p, start)
	} else {
		if _, replaying := p.state.Replaying(); replaying {
			p.path.AcceptLoss(diverged) // it is counted below
		}
		s.line.Invalid.Lost += max(at-diverged, 0)
		p.path.Rewind(diverged)
	}
	if err := s.endReplay(ctx, p, p.state.Position()); err != nil {
		return err
	}
	s.seek(p)
	return s.release(ctx, p)
}

// skipLost goes on where the log begins now.
func (s *session) skipLost(p *partition, start kadm.ListedOffset) {
	if end, replaying := p.state.Replaying(); replaying {
		if start.Offset < end {
			p.state.Skip(start.Offset, start.LeaderEpoch) // what is missing is counted when it has been read again
			return
		}
		s.line.Invalid.Lost += p.path.AcceptLoss(math.MaxInt64)
	}
	s.line.Invalid.Lost += max(start.Offset-p.state.Position(), 0)
	p.state.Skip(start.Offset, start.LeaderEpoch)
}

// divergence asks the leader up to where the log is still the one that we have read:
// the end of the records with the leader epoch of the last of them. -1: it
// cannot tell.
func (s *session) divergence(ctx context.Context, p *partition) (int64, error) {
	known := p.state.Snapshot().NextEpoch
	if known < 0 {
		return -1, nil
	}
	var ask kadm.OffsetForLeaderEpochRequest
	ask.Add(p.Topic, p.Partition, known)
	all, err := s.adm.OffsetForLeaderEpoch(ctx, ask)
	if err != nil {
		return 0, fmt.Errorf("find where %s partition %d was rewritten: %w", p.Topic, p.Partition, err)
	}
	answer, ok := all[p.Topic][p.Partition]
	if !ok || answer.Err != nil {
		return -1, nil
	}
	return answer.EndOffset, nil
}
