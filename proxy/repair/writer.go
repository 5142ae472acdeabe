package repair

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/preflight"

	"github.com/tidemarkhq/tidemark/proxy/txn"
)

// writer publishes corrections in transactions, as the only member of the repair's group. It
// is a member only so that the brokers know who may commit: it is assigned all partitions and
// fetches none of them, because package scan does the reading.
type writer struct {
	*repairRun
	topics []preflight.Corrections
	gts    *kgo.GroupTransactSession
	joined context.Context // done once we are a member
	die    context.CancelFunc
}

func (p *repairRun) openWriter(topics []preflight.Corrections) (*writer, error) {
	life, die := context.WithCancel(context.Background())
	joined, join := context.WithCancel(context.Background())
	w := &writer{repairRun: p, topics: topics, joined: joined, die: die}
	opts := append(slices.Clip(p.connection),
		kgo.AlwaysRetryEOF(),
		kgo.WithContext(life),
		kgo.ConsumerGroup(p.cfg.Group),
		kgo.InstanceID(p.cfg.Instance),
		kgo.Balancers(group.NewBalancer()),
		kgo.SessionTimeout(p.cfg.SessionTimeout),
		kgo.RebalanceTimeout(p.cfg.SessionTimeout),
		kgo.HeartbeatInterval(group.Heartbeat),
		kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { join() }),
		kgo.AdjustFetchOffsetsFn(func(context.Context, map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
			return nil, nil
		}),

		kgo.TransactionalID(p.cfg.TransactionalID()),
		kgo.TransactionTimeout(p.cfg.TransactionTimeout),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MaxBufferedRecords(txn.MaxInFlight),
		kgo.MaxBufferedBytes(txn.MostBatch+txn.MaxInFlightBytes),
		kgo.ProducerBatchMaxBytes(txn.MostBatch), // send keeps below the limits
		kgo.RecordRetries(txn.ProduceTries),
		kgo.UnknownTopicRetries(2*txn.ProduceTries),
	)
	for _, t := range topics {
		opts = append(opts, kgo.ConsumeTopics(t.Late))
	}
	if codec, ok := txn.Codecs[p.cfg.Compression]; ok {
		opts = append(opts, kgo.ProducerBatchCompression(codec))
	}
	var err error
	if w.gts, err = kgo.NewGroupTransactSession(opts...); err != nil {
		die()
		return nil, fault.Usage(err, "")
	}
	return w, nil
}

// takeOver takes over the transactional id. That ends the transaction of a repair that died,
// and from here on no other repair can commit. So the commits have to be fetched after this,
// and are final then. The client itself would take the id over only with its first record,
// perhaps from a repair that has done all the work meanwhile.
func (w *writer) takeOver(ctx context.Context) error {
	taking := w.Reporter.Waits.Begin(fault.TransactionWait(fault.CommandsFor(w.cfg), "the end of a transaction that another repair may have left open", time.Second))
	_, _, err := w.gts.Client().ProducerID(ctx)
	taking()
	if err != nil {
		return fmt.Errorf("take over the transactional id %q: %w", w.cfg.TransactionalID(), err)
	}
	return w.join(ctx)
}

// join waits until we are a member of the group; all repairs are the same static member.
func (w *writer) join(ctx context.Context) error {
	defer w.Reporter.Waits.Begin(fault.GroupWait(fault.CommandsFor(w.cfg), "our place in the group", fault.JoinPatience))()
	either, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.joined, cancel)()
	for {
		fetches := w.gts.PollFetches(either)
		switch {
		case w.joined.Err() != nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		for _, f := range fetches.Errors() {
			if errors.Is(f.Err, kerr.InconsistentGroupProtocol) {
				return fmt.Errorf("join group %q: %w: %w", w.cfg.Group, group.ErrStrangers, f.Err)
			}
			if w.forGood(f.Err) != nil || fault.HandshakeHint(f.Err) != "" || !errors.As(f.Err, new(*kgo.ErrGroupSession)) {
				return fmt.Errorf("join group %q: %w", w.cfg.Group, f.Err)
			}
			w.Reporter.Warn("cannot join the group; retrying", f.Err, "group", w.cfg.Group)
		}
	}
}

// publish makes shares durable: their corrections, and how far the late topics have been
// processed. When ctx is done, it aborts what is open, until hard is done.
func (w *writer) publish(ctx, hard context.Context, shares []*Share) error {
	began := time.Now()
	err := w.transact(ctx, hard, shares)
	switch {
	case err == nil:
		w.Reporter.Commits.Add(1)
		w.report.Add(shares)
		return nil
	case time.Since(began) > w.cfg.TransactionTimeout:
		err = fmt.Errorf("%w: %w", txn.ErrOverdue, err)
	}
	w.Reporter.Aborts.Add(1)
	return err
}

func (w *writer) transact(ctx, hard context.Context, shares []*Share) error {
	defer w.Reporter.Waits.Begin(fault.TransactionWait(fault.CommandsFor(w.cfg), "a transaction of corrections", w.cfg.TransactionTimeout))()
	if err := w.gts.Begin(); err != nil {
		return fmt.Errorf("begin a transaction as %q: %w", w.cfg.TransactionalID(), err)
	}
	ending, cancel := context.WithTimeout(hard, w.cfg.TransactionTimeout)
	defer cancel()
	if err := w.send(ctx, shares); err != nil {
		if _, abort := w.gts.End(ending, kgo.TryAbort); abort != nil {
			w.Reporter.Warn("cannot abort a transaction; the next session ends it", abort)
		}
		return err
	}
	w.doubtful = shares
	committed, err := w.gts.End(kgo.PreTxnCommitFnContext(ending, func(req *kmsg.TxnOffsetCommitRequest) error {
		txn.Put(w.offsets(shares), req)
		return nil
	}), kgo.TryCommit)
	if size := txn.OffsetBytes * len(shares); txn.TooLargeCommit(err, size) {
		w.doubtful = nil
		return cmp.Or(w.Limits.CommitRefused(w.Reporter, w.cfg, len(shares), size, err), txn.ErrLimits)
	}
	if err != nil {
		return fmt.Errorf("end the transaction of %q: %w", w.cfg.TransactionalID(), err)
	}
	w.doubtful = nil
	if !committed {
		return txn.WhyAborted(ctx, w.gts.Client(), w.cfg)
	}
	return nil
}

// send produces all corrections and waits until they are acknowledged. It flushes a batch
// before that could exceed its topic's limit uncompressed, and sends a larger record alone:
// see package txn, size.go.
func (w *writer) send(ctx context.Context, shares []*Share) error {
	var failed atomic.Pointer[refusal]
	flush := func() error {
		if err := w.gts.Client().Flush(ctx); err != nil {
			return err
		}
		if r := failed.Load(); r != nil {
			return w.refused(ctx, r, shares)
		}
		return nil
	}
	for _, s := range shares {
		packed, room := 0, w.room(s.To)
		for _, r := range s.Records {
			n := emit.WireSize(r)
			if packed > 0 && packed+n > room {
				if err := flush(); err != nil {
					return err
				}
				packed = 0
			}
			packed += n
			w.gts.Produce(ctx, r, func(r *kgo.Record, err error) {
				if err != nil {
					failed.CompareAndSwap(nil, &refusal{topic: r.Topic, partition: r.Partition, size: emit.WireSize(r), err: err})
				}
			})
		}
	}
	return flush()
}

// room is the largest batch of a topic before compression, in bytes.
func (w *writer) room(topic string) int {
	return w.rooms.Batch(topic, w.sizes(topic).Has)
}

// sizes returns max.message.bytes of a topic of corrections.
func (w *writer) sizes(topic string) txn.Sizes {
	for _, t := range w.topics {
		if t.To == topic {
			return txn.Sizes{Has: int(min(t.MaxBatch, txn.MostBatch)), Needs: int(t.NeededMax)}
		}
	}
	return txn.Sizes{}
}

// refused handles a correction that was refused. If it was sent with others, the batch may
// have been too large, and later ones are made smaller.
func (w *writer) refused(ctx context.Context, r *refusal, shares []*Share) error {
	err := fmt.Errorf("write to %s partition %d: %w", r.topic, r.partition, txn.SizeError(r.err))
	switch {
	case txn.TooLarge(r.err) && r.size <= w.room(r.topic):
		w.rooms.BatchRefused(r.topic, w.sizes(r.topic).Has)
		return fmt.Errorf("%w: %w", txn.ErrLimits, err)
	case txn.TooLarge(r.err), txn.RefusedForGood(r.err):
		return w.blame(ctx, r, shares)
	case errors.Is(r.err, kerr.UnknownTopicOrPartition), errors.Is(r.err, kerr.UnknownTopicID):
		return fault.Failed(err, "the topic was deleted; restart, which creates it again")
	case txn.AboutPartition(r.err):
		out := fmt.Sprintf("%s partition %d", r.topic, r.partition)
		if w.refusals[out]++; w.refusals[out] > txn.Patience {
			for _, s := range shares {
				if s.To == r.topic && s.Partition == r.partition {
					w.owe(s, s.Start, err, "check that the partition has a leader and enough replicas in sync: "+
						fault.CommandsFor(w.cfg).Line("kafka-topics", "--describe", "--topic", r.topic))
				}
			}
			return errOwed
		}
	}
	return err
}

// errOwed says that the brokers refuse a correction for good. That and all later ones of its
// partition of the late topic stay owed; the other partitions are corrected.
var errOwed = errors.New("a correction is refused, and stays owed")

// blame finds the late record with the lowest offset whose correction brokers refuse, by
// sending the corrections of its partition again, in the order of the late topic and in
// ever smaller parts. The transaction is aborted afterwards.
func (w *writer) blame(ctx context.Context, r *refusal, shares []*Share) error {
	for _, s := range shares {
		if s.To != r.topic || s.Partition != r.partition {
			continue
		}
		hs := make([]*txn.Handed, len(s.Records))
		for i, c := range s.Records {
			hs[i] = &txn.Handed{Record: txn.Record{Record: c, Offset: s.From[i]}, Err: r.err}
		}
		slices.SortFunc(hs, func(a, b *txn.Handed) int { return cmp.Compare(a.Offset, b.Offset) })
		packed, room := 0, w.room(s.To)
		flush := func() error { packed = 0; return w.gts.Client().Flush(ctx) }
		culprit, err := txn.Sifter{
			Flush:   flush,
			ForGood: func(err error) bool { return txn.TooLarge(err) || txn.RefusedForGood(err) },
			Send: func(h *txn.Handed) (err error) {
				n := emit.WireSize(h.Record.Record)
				if packed > 0 && packed+n > room {
					err = flush()
				}
				packed += n
				h.Err, h.Context = nil, nil
				w.gts.Produce(ctx, h.Record.Record, func(_ *kgo.Record, err error) { h.Err = err })
				return err
			},
		}.First(hs)
		if err != nil {
			return err
		}
		if culprit != nil {
			w.owe(s, culprit.Offset, fmt.Errorf("write the correction of %s partition %d offset %d to %s: %w: %w", s.Late, s.Partition, culprit.Offset, s.To, txn.ErrForGood, txn.SizeError(culprit.Err)),
				txn.Cure(fault.CommandsFor(w.cfg), culprit.Record.Record, culprit.Err, w.sizes(s.To)))
			return errOwed
		}
	}
	return fmt.Errorf("write to %s partition %d: %w", r.topic, r.partition, r.err) // this time it was accepted
}

// owe makes the run stop at an offset of a partition of a late topic.
func (w *writer) owe(s *Share, from int64, err error, hint string) {
	at := owedAt{s.Late, s.Partition}
	if o, ok := w.owed[at]; ok && o.from <= from {
		return
	}
	f := fault.Failed(fmt.Errorf("%w: %w", errOwed, err), hint)
	w.owed[at] = owed{from: from, fault: f}
	w.Reporter.Error(fmt.Sprint(s.Late, s.Partition), "a correction is refused; it and all later ones of its partition of the late topic stay owed until a run succeeds", err,
		"topic", s.Late, "partition", s.Partition, "offset", from, "hint", hint)
}

// offsets returns how far the late topics have been processed.
func (w *writer) offsets(shares []*Share) (all []txn.Offset) {
	for _, topic := range w.topics {
		for _, s := range shares {
			if s.Late == topic.Late {
				all = append(all, txn.Offset{
					Topic: topic.Late, ID: topic.ID, Partition: s.Partition, At: s.Next, LeaderEpoch: -1, Metadata: Metadata(topic.ID),
				})
			}
		}
	}
	return all
}

// refusal is a correction that was not acknowledged.
type refusal struct {
	topic     string
	partition int32
	size      int // of the record, in a batch of its own before compression
	err       error
}
