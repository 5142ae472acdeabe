package proxy

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/pipeline"
	"github.com/tidemarkhq/tidemark/watermark"
)

// loop moves records from the source to the outputs until stop is done. hard cancels what
// is under way by then.
//
// One turn: poll; take up assigned partitions; process what was polled, record by record;
// drain idle partitions by what brokers answer about log ends; commit when it is time. A
// turn works off everything that was polled in it, and rebalances are let through only
// when everything is committed. Only a stop cuts a turn short, where a commit may come:
// the next start replays the rest.
func (s *session) loop(stop, hard context.Context) error {
	var ended watermark.Instant // the last turn
	for stop.Err() == nil {
		wait := s.untilCommit()
		s.trackJoining()
		s.applyQuotas()
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
		case err != nil && !errors.Is(err, errStopping):
			return err
		}
		ended = s.now()
		s.resumeReplay()
		s.align()
		s.answer()
		s.needEnds()
		s.line.JudgeSources()
		s.shareOutputs()
	}
	s.readClocks()
	err := s.checkpoint(hard)
	if !goesBack(err) {
		return err
	}
	s.aborted(err)
	return nil // undone as a whole: the next start does it again
}

// errStopping says that we are told to stop, and that what has been done so far can be
// committed.
var errStopping = errors.New("told to stop")

// errNothingDone says that we are told to stop, and that all since the last commit has
// been undone.
var errNothingDone = fmt.Errorf("%w after an abort", errStopping)

// turn does one turn and, when that was undone, begins again from the commit.
func (s *session) turn(ctx context.Context, fetches kgo.Fetches) error {
	defer s.reporter.Waits.Begin(fault.Wait{What: "acknowledgements of records, to make room for more", After: slowAnswer})()
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
	if err := s.watcherFault(); err != nil {
		return err
	}
	s.forgetForeign()
	if err := s.takeRequests(ctx); err != nil {
		return err
	}
	if err := s.takeErrors(ctx, fetches); err != nil {
		return err
	}
	err := s.trySuspended(ctx)
	if err == nil {
		err = s.trySchemas(ctx)
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

// pace is called where a commit may come. Every clockEvery records, and after a wait, it
// looks at the clock: commits when it is time, so that no transaction outlives its timeout
// because a release is long; ends the turn if the process is told to stop; and drains quiet
// partitions, which do not wait for the end of a busy one's turn. errSuspended: p was
// suspended, because a quiet partition wrote something and p's records had to be answered
// before that.
func (s *session) pace(ctx context.Context, p *partition) error {
	if s.sinceClock++; !s.writer.TakeWaited() && s.sinceClock < clockEvery {
		return nil
	}
	s.readClocks()
	s.applyQuotas()
	s.reporter.Waits.Renew()
	if s.stopping.Err() != nil {
		return errStopping
	}
	if s.now().Sub(s.ends.asked) >= group.AskInterval {
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

// clockEvery is after how many records pace looks at the clock.
const clockEvery = 256

func (s *session) readClocks() {
	s.sinceClock = 0
	s.writer.TakeWaited()
	s.line.SetClock(watermark.Time(s.wallClock().UnixNano()), s.now())
	s.engine.Tick(s.now())
}

// endWith has the loop end the process with a fault.
func (s *session) endWith(err error) {
	s.fatal.Store(&err)
	s.member.Wake()
}

// watcherFault returns a fault that a watcher found, which ends the process.
func (s *session) watcherFault() error {
	if err := s.fatal.Load(); err != nil {
		return *err
	}
	return nil
}

// shareOutputs tells the watchers of outputs which partitions are ours, once a second.
func (s *session) shareOutputs() {
	now := s.now()
	if s.seen.outputs != 0 && now.Sub(s.seen.outputs) < time.Second {
		return
	}
	s.seen.outputs = now
	var all []group.WatchedOutputs
	var sources []emit.Source
	s.each(func(p *partition) {
		sources = append(sources, p.Source)
		begun, ok := s.begun[p.Source]
		all = append(all, group.WatchedOutputs{Source: p.Source, Since: p.since, Young: ok && time.Since(begun) < group.YoungFor})
	})
	for src := range s.suspended {
		sources = append(sources, src)
	}
	s.rivals.SetOurs(all)
	s.open.SetOurs(sources)
}

// maxPoll bounds the records of one poll, and with them the time until the
// clock is looked at again.
const maxPoll = 20_000

// applyQuotas sets how much is written until the next commit, and how much is fetched at a
// time, to what quotas and slow brokers allow: a turn works off everything that was polled.
func (s *session) applyQuotas() {
	s.writer.SetMost(s.quotas.AtOnce(group.Produce, math.MaxInt))
	most := int(fetchBytes(int64(s.cfg.Memory)))
	n := int32(min(s.quotas.AtOnce(group.Fetch, most), s.writer.Most()))
	if n != s.fetchMost {
		s.fetchMost = n
		s.cl.UpdateFetchMaxBytes(n, min(n, partitionBytes))
	}
}

// partitionBytes is what is asked for of one partition, at the most: the client's default.
const partitionBytes = 1 << 20

// mostPolled is how many records one poll may return: what they become has to be written
// before rebalances are let through.
func (s *session) mostPolled() int { return s.writer.MostRecords(maxPoll) }
