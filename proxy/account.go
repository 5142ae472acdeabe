package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/reorder"
)

// invalid is what is remembered of records without a usable event time until
// they are committed, of watermarks that cannot be used, and lost of those that are
// gone: read again, they would be counted again.
type invalid struct {
	times   faulty
	markers faulty
	lost    int64
}

// faulty is how many records had something wrong, and what it was with the first.
type faulty struct {
	records int
	first   error
}

func (f *faulty) add(r *kgo.Record, err error) {
	if f.records++; f.records == 1 {
		f.first = fmt.Errorf("%s partition %d offset %d: %w", r.Topic, r.Partition, r.Offset, err)
	}
}

// done takes account of a commit.
func (s *session) done(ps []*partition) {
	s.reporter.Commits.Add(1)
	s.tell("records without a usable event time went to the late topic", s.invalid.times)
	s.tell("watermarks that records carry are not used", s.invalid.markers)
	s.reporter.Lost.Add(s.invalid.lost)
	s.invalid = invalid{}
	if s.cfg.Duplicates == config.DropDuplicates {
		for _, p := range ps {
			if p.dropped > 0 {
				s.reporter.Drops.Add(p.dropped)
				p.dropped = 0
				s.reporter.Throttle(fmt.Sprint(p.Topic, p.Partition), slog.LevelInfo, fault.None, "duplicates were dropped",
					"topic", p.Topic, "partition", p.Partition, "records", p.ledger.Pending.Dropped)
			}
		}
	}
}

func (s *session) tell(what string, f faulty) {
	if f.records > 0 {
		s.reporter.Errors[fault.Record].Add(int64(f.records - 1)) // and one more by raise
		s.reporter.Warn(what, f.first, "records", f.records)
	}
}

// undone takes account of an abort, unless it came after a commit.
func (s *session) undone(err error) {
	if errors.Is(err, errMoved) {
		return
	}
	s.reporter.Aborts.Add(1)
	s.invalid = invalid{}
	s.ledgers.Abort()
	s.releaseLatency.Abort()
}

// slow is how long brokers may take to acknowledge before it is told.
const slow = 5 * time.Second

// flush waits until everything produced is acknowledged or refused. The client
// itself tries for as long as it takes, without a word; in a transaction that is
// no use once it has timed out. What it has not sent yet when a record was
// refused is not sent at all, without transactions: see heed.
func (s *session) flush(ctx context.Context) error {
	s.flushes++
	s.sinceClock += clockEvery // it took a while
	defer s.waits.Begin(fault.Wait{What: "the acknowledgement of records", After: slow, Quiet: true})()
	flush := s.cl.Flush
	if s.gts == nil && s.unacked.any() {
		flush = s.cl.AbortBufferedRecords
	}
	for began := time.Now(); ; {
		wait, cancel := context.WithTimeout(ctx, slow)
		err := flush(wait)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("flush: %w", err)
		}
		if s.gts != nil && time.Since(began) >= s.cfg.TransactionTimeout {
			return fmt.Errorf("%d records not acknowledged within %v: %w", s.cl.BufferedProduceRecords(), s.cfg.TransactionTimeout, err)
		}
		s.reporter.Warn("records are not acknowledged; waiting", err, "records", s.cl.BufferedProduceRecords())
	}
}

// settle takes account of a commit.
func (s *session) settle(ps []*partition) {
	for _, p := range ps {
		p.ledger.Commit()
		p.committed = p.state.Low()
	}
	s.releaseLatency.Commit(s.now(), s.latency)
}

// tally takes note of what is held, for the commit that is about to be made.
func (s *session) tally() {
	s.each(func(p *partition) { p.ledger.Pending.Held = int64(p.state.Owed()) })
}

// endReplay is that of the partition's state. What it had and is gone is lost.
func (p *partition) endReplay(end int64, accept bool) *reorder.Loss {
	had := p.state.Owed()
	loss := p.state.EndReplay(end, accept)
	if loss != nil && accept {
		p.ledger.Lose(int64(had - p.state.Owed()))
	}
	return loss
}

// rewind is that of the partition's state, with the same loss.
func (p *partition) rewind(end int64) {
	had := p.state.Owed()
	p.state.Rewind(end)
	p.ledger.Lose(int64(had - p.state.Owed()))
}
