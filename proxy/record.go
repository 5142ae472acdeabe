package proxy

import (
	"cmp"
	"context"
	"errors"
	"math"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/pipeline"
	"github.com/tidemarkhq/tidemark/proxy/txn"
	"github.com/tidemarkhq/tidemark/reorder"
)

// What the loop does with a record: it gives it to its path (package pipeline), and does
// what that asks for.

// polled takes note of what was polled of a partition.
func (s *session) polled(p *partition, f *kgo.FetchTopicPartition) {
	if len(f.Records) > 0 {
		p.path.Polled(f.Records, f.HighWatermark)
		p.Fetched(f.HighWatermark, f.LastStableOffset)
		p.heard = s.now()
	}
}

// takeRecords works off what was polled of one partition.
func (s *session) takeRecords(ctx context.Context, p *partition, records []*kgo.Record) error {
	if p.state.Waits() {
		return nil // it gave way in this turn, and begins again at its commit
	}
	for _, r := range records {
		if r.Offset < p.state.Position() {
			continue // read before a rewind, and read again since
		}
		if !r.Attrs.IsControl() {
			s.codec.Saw(r.Attrs.CompressionType())
		}
		if err := s.takeRecord(ctx, p, r); err != nil {
			return err
		}
		if err := s.relieve(ctx); err != nil {
			return err
		}
		if p.state.Waits() || len(s.suspended) > 0 && s.find(p.Topic, p.Partition) != p {
			return nil // gave way, or was suspended, while room was made
		}
		if err := s.pace(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// takeRecord takes a record down its path.
func (s *session) takeRecord(ctx context.Context, p *partition, r *kgo.Record) error {
	for kind := p.path.Process(ctx, r); kind != pipeline.Done; kind = p.path.Continue(ctx) {
		if err := s.do(ctx, p, kind); err != nil {
			return err
		}
	}
	return nil
}

// release writes what has come due. It may be cut by checkpoints.
func (s *session) release(ctx context.Context, p *partition) error {
	for kind := p.path.Release(); kind != pipeline.Done; kind = p.path.Release() {
		if err := s.do(ctx, p, kind); err != nil {
			return err
		}
	}
	return nil
}

// do does what the path of a record asks for.
func (s *session) do(ctx context.Context, p *partition, kind pipeline.Kind) error {
	o := &p.path.Asked
	switch kind {
	case pipeline.Write:
		r := txn.Record{Record: o.Record, Offset: o.Offset, Held: o.Held}
		if err := s.write(ctx, p, r); err != nil || !r.Held {
			return err
		}
		return s.pace(ctx, p)
	case pipeline.Dropped:
		return s.pace(ctx, p)
	case pipeline.Checkpoint:
		return s.checkpoint(ctx)
	case pipeline.Halt:
		return s.haltAt(ctx, p)
	case pipeline.Suspend:
		return s.suspendForSchema(ctx, p, *o.Schema)
	case pipeline.Seek:
		s.seek(p)
		return errSeek
	}
	return o.Err
}

// relieve makes room, if too much is held: of several partitions that are being read
// again all but one give way, and of the others the oldest records are released early.
// What one that is being read again needs has to be held, whatever it takes.
func (s *session) relieve(ctx context.Context) error {
	for s.engine.Crowded() {
		if state := s.engine.Yield(); state != nil {
			s.pauseReplay(s.partitionOf(state))
			continue
		}
		state := s.engine.Relieve()
		if state == nil {
			return nil
		}
		s.seen.relieved = s.now()
		if err := ignoreHandled(s.release(ctx, s.partitionOf(state))); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) partitionOf(state *reorder.Partition) (owner *partition) {
	s.each(func(p *partition) {
		if p.state == state {
			owner = p
		}
	})
	return owner
}

// write hands over an output record of a partition.
func (s *session) write(ctx context.Context, p *partition, r txn.Record) error {
	if s.writer.Examining(p.output) {
		if err := ignoreHandled(s.closeGroup(ctx)); err != nil {
			return err
		}
	}
	return s.afterWrite(ctx, s.writer.Write(ctx, p.output, r))
}

// closeGroup waits for records that are under suspicion.
func (s *session) closeGroup(ctx context.Context) error {
	return s.afterWrite(ctx, s.writer.CloseGroup(ctx, true))
}

// afterWrite does what the writer's answer asks for.
func (s *session) afterWrite(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	refused, isRefused := errors.AsType[*txn.Refused](err)
	switch {
	case isRefused:
		return s.drop(refused)
	case errors.Is(err, txn.ErrRollback):
		return cmp.Or(s.checkpoint(ctx), errAborted)
	}
	return err
}

// endReplay ends the replay of a partition once reading has come to position.
func (s *session) endReplay(ctx context.Context, p *partition, position int64) error {
	if end, replaying := p.state.Replaying(); !replaying || position < end {
		return nil
	}
	return s.endReplayAt(ctx, p, math.MaxInt64)
}

// endReplayAt ends the replay of a partition whose log ends before it does, and finishes the
// release that was under way. After an accepted loss reading goes on where the logs part.
func (s *session) endReplayAt(ctx context.Context, p *partition, logEnd int64) error {
	lost, err := p.path.EndReplay(logEnd)
	if err == nil {
		err = s.release(ctx, p)
	}
	if err != nil || !lost {
		return err
	}
	s.seek(p)
	return errSeek
}

// seek has the client read on from where the partition stands. What it has
// fetched is void.
func (s *session) seek(p *partition) {
	p.sought = s.now()
	at := kgo.EpochOffset{Epoch: -1, Offset: p.state.Position()}
	s.cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{p.Topic: {p.Partition: at}})
}
