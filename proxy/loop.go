package proxy

import (
	"cmp"
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
	"github.com/tidemarkhq/tidemark/proxy/pipeline"
	"github.com/tidemarkhq/tidemark/proxy/txn"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// loop moves records from the source to the outputs until stop is done. hard
// ends what is under way by then.
//
// One turn: poll; take assignments; judge and release what was polled, record
// by record; let the broker's answers about the ends drain idle partitions;
// commit when it is time. What was polled in a turn is worked off in it, and
// rebalances are let through only when everything is committed. Only a stop cuts a
// turn short, where a commit may come between: what is left of it is read again by the
// next start.
func (s *session) loop(stop, hard context.Context) error {
	var ended watermark.Instant // the last turn
	for stop.Err() == nil {
		wait := s.untilCommit()
		s.lookForPlace()
		s.heedQuotas()
		most, began := s.mostPolled(), s.now()
		if s.clean() {
			s.member.Allow()
		}
		fetches := s.member.Poll(stop, wait, most)
		s.takeEvents()
		s.readClocks()
		s.line.Polled(began.Sub(ended) <= pipeline.PromptPoll)
		switch err := s.turn(hard, fetches); {
		case errors.Is(err, errNothingDone):
			return nil
		case err != nil && !errors.Is(err, errCutShort):
			return err
		}
		ended = s.now()
		s.nextReplay()
		s.align()
		s.answer()
		s.needEnds()
		s.showOutputs()
	}
	s.readClocks()
	err := s.checkpoint(hard)
	if !goesBack(err) {
		return err
	}
	s.aborted(err)
	return nil // undone as a whole: the next start does it again
}

// errCutShort says that we are told to stop, and that what has been done so far can be
// committed.
var errCutShort = errors.New("told to stop")

// errNothingDone says that we are told to stop, and that all since the last commit has
// been undone.
var errNothingDone = fmt.Errorf("%w after an abort", errCutShort)

// turn does one turn and, when that was undone, begins again from the commit.
func (s *session) turn(ctx context.Context, fetches kgo.Fetches) error {
	defer s.waits.Begin(fault.Wait{What: "room for more records: those before are not acknowledged", After: slowAnswer})()
	err := s.work(ctx, fetches)
	if !goesBack(err) {
		return err
	}
	s.aborted(err)
	s.abortedAt = time.Now()
	defer func() { s.abortedAt = time.Time{} }()
	err = s.reload(s.stopping)
	if err != nil && s.stopping.Err() != nil {
		return errNothingDone
	}
	return err
}

func (s *session) work(ctx context.Context, fetches kgo.Fetches) error {
	if s.moved {
		s.moved = false
		if err := s.writer.ForgetRevocation(ctx); err != nil {
			return err
		}
	}
	if err := s.heedWatcher(); err != nil {
		return err
	}
	s.giveUpForeign()
	if err := s.takeRequests(ctx); err != nil {
		return err
	}
	if err := s.takeErrors(ctx, fetches); err != nil {
		return err
	}
	err := s.trySuspended(ctx)
	if err == nil {
		err = s.tryWaiting(ctx)
	}
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		if p := s.find(f.Topic, f.Partition); p != nil && err == nil {
			s.polled(p, &f)
			err = ignoreHandled(s.takeRecords(ctx, p, f.Records))
		}
	})
	if err == nil {
		err = s.takeAnswers(ctx)
	}
	if err == nil {
		err = ignoreHandled(s.closeGroup(ctx))
	}
	if err == nil && (s.commitDue() || s.member.RebalancePending()) {
		err = s.checkpoint(ctx)
	}
	return err
}

// polled takes note of what was polled of a partition.
func (s *session) polled(p *partition, f *kgo.FetchTopicPartition) {
	if len(f.Records) > 0 {
		p.path.Polled(f.Records, f.HighWatermark)
		p.High, p.Stable, p.heard = max(p.High, f.HighWatermark), f.LastStableOffset, s.now()
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
		if err := s.process(ctx, p, r); err != nil {
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

// process takes a record down its path.
func (s *session) process(ctx context.Context, p *partition, r *kgo.Record) error {
	for o := p.path.Process(ctx, r); o.Kind != pipeline.Done; o = p.path.Continue(ctx) {
		if err := s.do(ctx, p, &o); err != nil {
			return err
		}
	}
	return nil
}

// release writes what has come due. It may be cut by checkpoints.
func (s *session) release(ctx context.Context, p *partition) error {
	for o := p.path.Release(); o.Kind != pipeline.Done; o = p.path.Release() {
		if err := s.do(ctx, p, &o); err != nil {
			return err
		}
	}
	return nil
}

// do does what the path of a record asks for.
func (s *session) do(ctx context.Context, p *partition, o *pipeline.Outcome) error {
	switch o.Kind {
	case pipeline.Write:
		err := s.write(ctx, p, txn.Record{Record: o.Record, Offset: o.Offset, Held: o.Held})
		if err != nil || !o.Held {
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
		return s.suspendForSchema(ctx, p, o.Schema)
	case pipeline.Seek:
		s.seek(p)
		return errSought
	}
	return o.Err
}

// relieve makes room, if too much is held: of several partitions that are being read
// again all but one give way, and of the others the oldest records are released early.
// What one that is being read again needs has to be held, whatever it takes.
func (s *session) relieve(ctx context.Context) error {
	for s.engine.Crowded() {
		if state := s.engine.Yield(); state != nil {
			s.giveWay(s.owner(state))
			continue
		}
		state := s.engine.Relieve()
		if state == nil {
			return nil
		}
		s.relieved = s.now()
		if err := ignoreHandled(s.release(ctx, s.owner(state))); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) owner(state *reorder.Partition) (owner *partition) {
	s.each(func(p *partition) {
		if p.state == state {
			owner = p
		}
	})
	return owner
}

// write hands over an output record of a partition.
func (s *session) write(ctx context.Context, p *partition, r txn.Record) error {
	if s.writer.Examining(p.out) {
		if err := ignoreHandled(s.closeGroup(ctx)); err != nil {
			return err
		}
	}
	return s.afterWrite(ctx, s.writer.Write(ctx, p.out, r))
}

// closeGroup waits for records that are under suspicion.
func (s *session) closeGroup(ctx context.Context) error {
	return s.afterWrite(ctx, s.writer.CloseGroup(ctx, true))
}

// afterWrite does what the writer's answer asks for.
func (s *session) afterWrite(ctx context.Context, err error) error {
	refused, isRefused := errors.AsType[*txn.Refused](err)
	switch {
	case isRefused:
		return s.drop(refused)
	case errors.Is(err, txn.ErrRollback):
		return cmp.Or(s.checkpoint(ctx), errAborted)
	}
	return err
}

// pace looks at the clock now and then inside long turns, and commits when it
// is time: a transaction must not outlive its timeout because a release is
// long. Nor does a stop wait for the end of one: where a commit may come, the turn may
// end as well. And a quiet partition does not wait for a busy one. errSuspended: p was
// stopped meanwhile, for what a quiet one puts out has us wait for a suspect's group.
func (s *session) pace(ctx context.Context, p *partition) error {
	if s.sinceClock++; !s.writer.TakeWaited() && s.sinceClock < clockEvery {
		return nil
	}
	s.readClocks()
	s.heedQuotas()
	s.waits.Renew()
	if s.stopping.Err() != nil {
		return errCutShort
	}
	if s.now().Sub(s.needed) >= group.AskInterval {
		s.needEnds()
	}
	if s.commitDue() || s.writer.Full() {
		if err := s.checkpoint(ctx); err != nil {
			return err
		}
	}
	if err := s.takeAnswers(ctx); err != nil {
		return err
	}
	if s.find(p.Topic, p.Partition) != p {
		return errSuspended
	}
	return nil
}

// clockEvery is after how many records the clock is looked at.
const clockEvery = 256

func (s *session) readClocks() {
	s.sinceClock = 0
	s.line.SetClock(watermark.Time(s.wallClock().UnixNano()), s.now())
	s.engine.Tick(s.now())
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
	return errSought
}

// seek has the client read on from where the partition stands. What it has
// fetched is void.
func (s *session) seek(p *partition) {
	p.sought = s.now()
	at := kgo.EpochOffset{Epoch: -1, Offset: p.state.Position()}
	s.cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{p.Topic: {p.Partition: at}})
}

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
		// We have been told that we are no member. See awaitGroup, in the next session.
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
		return s.gone(ctx, p, err)
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return fault.Usage(fmt.Errorf("read %s: %w", f.Topic, err),
			"allow it: "+fault.CommandsFor(s.cfg).Allow("--topic", f.Topic, kadm.OpRead, kadm.OpDescribe))
	case errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.InconsistentTopicID):
		if other := s.admin.SameCluster(ctx, s.cluster); other != nil {
			return other
		}
		return fault.Failed(fmt.Errorf("read %s: the topic was deleted or created again: %w", f.Topic, err),
			"start again; if the topic is new, TIDEMARK_ON_RESET=new-epoch lets a new epoch begin")
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
	s.reporter.Warn("reading fails; trying again", err, where...)
	pause := fault.Backoff{First: readPause, Longest: readPause}
	_ = pause.Wait(ctx)
	return nil
}

// endWith has the loop end the process with a fault.
func (s *session) endWith(err error) {
	s.fatal.Store(&err)
	s.member.Wake()
}

// heedWatcher returns what the watcher found that ends the process.
func (s *session) heedWatcher() error {
	if err := s.fatal.Load(); err != nil {
		return *err
	}
	return nil
}

// showOutputs tells the watcher which partitions are ours.
func (s *session) showOutputs() {
	now := s.now()
	if s.outputsShown != 0 && now.Sub(s.outputsShown) < time.Second {
		return
	}
	s.outputsShown = now
	var all []group.WatchedOutputs
	s.each(func(p *partition) {
		begun, ok := s.begun[p.Source]
		all = append(all, group.WatchedOutputs{Source: p.Source, Since: p.since, Young: ok && time.Since(begun) < group.YoungFor})
	})
	s.rivals.SetOurs(all)
}
