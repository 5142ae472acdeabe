package proxy

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/recovery"
)

// gone deals with a position that the log no longer has, or with records that
// a new leader has rewritten: retention, deletion or truncation came between.
func (s *session) gone(ctx context.Context, p *partition, cause error) error {
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
	} else if parted, err := s.parted(ctx, p); err != nil {
		return err
	} else if parted >= 0 {
		diverged = min(diverged, parted)
	}
	if start.Offset <= at && at <= diverged {
		return s.again(ctx, p, cause) // the log has it: a broker that was behind has answered
	}
	err = p.path.Lost(fmt.Errorf("offset %d was to be read next, %d records are buffered, the log holds %d to %d: %w",
		at, p.state.Snapshot().Count, start.Offset, end.Offset, cause))
	if err != nil {
		return err
	}
	if at < start.Offset {
		s.skip(p, start)
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

// skip goes on where the log begins now.
func (s *session) skip(p *partition, start kadm.ListedOffset) {
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

// parted asks the leader up to where the log is still the one that we have read:
// the end of the records with the leader epoch of the last of them. -1: it
// cannot tell.
func (s *session) parted(ctx context.Context, p *partition) (int64, error) {
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
