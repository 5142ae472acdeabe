package group

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Two groups on the same outputs put out everything twice, in two orders. No commit
// shows it, for each group has its own; the brokers do: of every output partition they
// know the producers that wrote to it lately. One that is not ours is a rival when it
// is at work now, which is shown by one of two things:
//
//	its transactional id is GROUP/INSTANCE, and that instance is a member of that group
//	and has our source partition assigned
//	it has written since the last look, while the partition was ours
//
// What a producer left there that has ended, or has gone on to other topics, stays to be
// seen for a day, and is neither. Where a partition begins, be it for the first time or
// with a new epoch, a rival ends the process before anything is committed. Who has been
// at work before only tells of it: it was there first.

// Rival is a producer of others that writes to an output of ours.
type Rival struct {
	topic     string // the output
	partition int32
	producer  int64
	id        string // transactional; "" if it has none, or is hidden from us
	group     string // of the Tidemark that has it,
	instance  string // which is at work on our source; "": not known to be one
}

func (r Rival) String() string {
	who := fmt.Sprintf("a producer that is not of this group (producer id %d)", r.producer)
	switch {
	case r.instance != "":
		who = fmt.Sprintf("instance %q of group %q", r.instance, r.group)
	case r.id != "":
		who = fmt.Sprintf("transactional id %q", r.id)
	}
	return fmt.Sprintf("%s writes to %s partition %d too", who, r.topic, r.partition)
}

// cure says what stops it.
func (r Rival) cure(t fault.Commands) string {
	if r.instance != "" {
		return fmt.Sprintf("stop group %q, or start this one as a member of it: TIDEMARK_GROUP=%s, with a TIDEMARK_INSTANCE that no other has", r.group, r.group)
	}
	return "find it (" + t.Line("kafka-transactions", "describe-producers", "--topic", r.topic, "--partition", fmt.Sprint(r.partition)) + ") and stop it"
}

// Refuse explains why a partition does not begin.
func (r Rival) Refuse(t fault.Commands) *fault.Fault {
	return fault.Usage(fmt.Errorf("begin to write to %s partition %d: %v, and records would come out twice", r.topic, r.partition, r),
		r.cure(t)+"; or give this group outputs of its own: TIDEMARK_ORDERED_SUFFIX and TIDEMARK_LATE_SUFFIX")
}

// trace is what an output partition shows of one of its producers.
type trace struct {
	topic     string
	partition int32
	producer  int64
}

// traces are all that outputs show, each with what changes when it writes.
type traces map[trace]kadm.DescribedProducer

// wrote reports that a producer wrote between two looks. The end of its transaction alone
// does not show that: brokers write it a moment after they have promised it, or when it has
// timed out, and the producer may be gone by then.
func (t trace) wrote(before, now traces) bool {
	was, ok := before[t]
	is := now[t]
	was.Leader, is.Leader = 0, 0
	if ok && was.CurrentTxnStartOffset >= 0 && is.CurrentTxnStartOffset < 0 {
		return false
	}
	return !ok || was != is
}

// outputsOf are those of partitions that are written to, with the source of each.
func (a *Admin) outputsOf(sources []emit.Source) (outputs kadm.TopicsSet, of map[string]emit.Source) {
	outputs, of = kadm.TopicsSet{}, map[string]emit.Source{}
	for _, src := range sources {
		for _, topic := range []string{src.Ordered, src.Late} {
			outputs.Add(topic, src.Partition)
			of[topic] = src
		}
	}
	return outputs, of
}

// strangers returns the traces of producers that are not ours, and their transactional
// ids where the brokers list them. With an error, those are left out, or seem to be
// strangers, that nobody could be asked about.
func (a *Admin) strangers(ctx context.Context, sources []emit.Source) (traces, map[int64]string, error) {
	outputs, _ := a.outputsOf(sources)
	if len(outputs) == 0 {
		return nil, nil, nil // to ask for none is to ask for all
	}
	described, failed := a.Kadm.DescribeProducers(ctx, outputs) // some answers are better than none
	found, ids := traces{}, map[int64]string{}
	described.EachPartition(func(p kadm.DescribedProducersPartition) { failed = cmp.Or(failed, p.Err) })
	described.EachProducer(func(p kadm.DescribedProducer) {
		found[trace{p.Topic, p.Partition, p.ProducerID}] = p
		ids[p.ProducerID] = ""
	})
	if len(found) == 0 {
		return nil, nil, failed
	}
	ours, err := a.producerID(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("find our own producer id: %w", err)
	}
	listed, err := a.Kadm.ListTransactions(ctx, slices.Collect(maps.Keys(ids)), nil)
	if err != nil && a.Atomic {
		if len(listed) == 0 {
			return nil, nil, fmt.Errorf("list transactions: %w", err)
		}
		failed = cmp.Or(failed, err)
	}
	for id, txn := range listed {
		ids[txn.ProducerID] = id
	}
	maps.DeleteFunc(found, func(t trace, _ kadm.DescribedProducer) bool {
		_, ofGroup := a.instanceOf(ids[t.producer])
		return t.producer == ours || ofGroup
	})
	return found, ids, failed
}

// producerID returns that of this session.
func (a *Admin) producerID(ctx context.Context) (int64, error) {
	if a.Silent {
		return -1, nil
	}
	if !a.Atomic {
		id, _, err := a.Client.ProducerID(ctx)
		return id, err
	}
	described, err := a.Kadm.DescribeTransactions(ctx, a.Config.TransactionalID())
	if err != nil {
		return 0, err
	}
	own := described[a.Config.TransactionalID()]
	return own.ProducerID, own.Err
}

// atWork returns the first of the strangers that is an instance of another Tidemark
// which is at work on the source partition behind the output.
func (a *Admin) atWork(ctx context.Context, found traces, ids map[int64]string, sources []emit.Source) *Rival {
	_, of := a.outputsOf(sources)
	groups := map[string]kadm.DescribedGroup{}
	for t := range found {
		group, instance, ok := config.SplitTransactionalID(ids[t.producer])
		if !ok || group == "" {
			continue
		}
		if _, known := groups[group]; !known {
			described, err := a.Kadm.DescribeGroups(ctx, group)
			if err != nil {
				continue
			}
			groups[group] = described[group]
		}
		src := of[t.topic]
		for _, m := range groups[group].Members {
			assigned, ok := m.Assigned.AsConsumer()
			if !ok || m.InstanceID == nil || *m.InstanceID != instance {
				continue
			}
			for _, topic := range assigned.Topics {
				if topic.Topic == src.Topic && slices.Contains(topic.Partitions, t.partition) {
					return &Rival{topic: t.topic, partition: t.partition, producer: t.producer, id: ids[t.producer], group: group, instance: instance}
				}
			}
		}
	}
	return nil
}

// RivalOf returns who is seen at once to be at work on the outputs of partitions.
func (a *Admin) RivalOf(ctx context.Context, sources ...emit.Source) *Rival {
	ctx, cancel := context.WithTimeout(ctx, rivalPatience)
	defer cancel()
	found, ids, _ := a.strangers(ctx, sources) // what is not told of is looked at again before anything begins
	return a.atWork(ctx, found, ids, sources)
}

// How long a look may take, and how long strangers are watched before a partition
// begins.
const (
	rivalPatience = 5 * time.Second
	rivalWatch    = 2 * time.Second
	rivalStep     = 500 * time.Millisecond
)

// RefuseRivals returns a fault if others write to the outputs of partitions that are
// about to begin. It costs nothing where nobody has written to them, and two seconds
// where somebody has who cannot be told from a rival in another way.
func (a *Admin) RefuseRivals(ctx context.Context, sources []emit.Source) error {
	ctx, cancel := context.WithTimeout(ctx, rivalPatience)
	defer cancel()
	first, ids, err := a.strangers(ctx, sources)
	if err != nil {
		a.Reporter.Logger.Info("cannot check whether other producers write to the output topics", "err", err)
	}
	if r := a.atWork(ctx, first, ids, sources); r != nil {
		return r.Refuse(fault.CommandsFor(a.Config))
	}
	for began := time.Now(); len(first) > 0 && time.Since(began) < rivalWatch; {
		pause := fault.Backoff{First: rivalStep, Longest: rivalStep}
		if pause.Wait(ctx) != nil {
			return nil
		}
		now, ids, failed := a.strangers(ctx, sources)
		if now == nil && failed != nil {
			return nil
		}
		err = cmp.Or(err, failed)
		for t := range now {
			if _, known := first[t]; !known && err != nil {
				first[t] = now[t] // it may have been there: not all were told of
				continue
			}
			if t.wrote(first, now) {
				return Rival{topic: t.topic, partition: t.partition, producer: t.producer, id: ids[t.producer]}.Refuse(fault.CommandsFor(a.Config))
			}
			first[t] = now[t] // its transaction may have ended
		}
		err = failed
	}
	return nil
}

// RivalEvery is how often the outputs are looked at while the session runs.
const RivalEvery = 10 * time.Second

// YoungFor is for how long a partition counts as one that has just begun. Two groups
// that begin at the same time see each other only when both have written.
const YoungFor = time.Minute

// WatchedOutputs is a partition of ours, for whoever watches its outputs.
type WatchedOutputs struct {
	emit.Source
	Since watermark.Instant // it has been ours without a break
	Young bool              // it began not long ago
}

// Rivals watches the outputs of ours for other writers.
type Rivals struct {
	Admin   *Admin
	Cluster *preflight.Cluster
	Now     func() watermark.Instant
	EndWith func(error) // has the loop end the process

	ours atomic.Pointer[[]WatchedOutputs]
	Seen atomic.Pointer[Rival] // last; nil: none
}

// SetOurs sets which partitions are ours.
func (w *Rivals) SetOurs(ours []WatchedOutputs) { w.ours.Store(&ours) }

// Watch looks for rivals until ctx is done. A stranger without a name counts when
// it has written between each of three looks: a member of our own group that is thrown
// out may still be putting out what it has, for a turn.
func (w *Rivals) Watch(ctx context.Context) {
	a := w.Admin
	type seen struct {
		at     watermark.Instant
		traces traces
		wrote  map[trace]bool // since the look before
	}
	var last seen
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(RivalEvery):
		}
		if err := a.SameCluster(ctx, w.Cluster); err != nil {
			w.EndWith(err)
			continue
		}
		ours := w.ours.Load()
		if ours == nil {
			continue
		}
		now := seen{at: w.Now(), wrote: map[trace]bool{}}
		var sources []emit.Source
		of := map[trace]WatchedOutputs{}
		for _, o := range *ours {
			sources = append(sources, o.Source)
		}
		looking, cancel := context.WithTimeout(ctx, rivalPatience)
		found, ids, err := a.strangers(looking, sources)
		if err != nil && ctx.Err() == nil {
			a.Reporter.Logger.Debug("cannot check whether other producers write to the output topics", "err", err)
		}
		now.traces = found
		r := a.atWork(looking, found, ids, sources)
		cancel()
		for t := range found {
			for _, o := range *ours {
				if o.Partition == t.partition && (o.Ordered == t.topic || o.Late == t.topic) {
					of[t] = o
				}
			}
			now.wrote[t] = last.traces != nil && of[t].Since < last.at && t.wrote(last.traces, found)
			if r == nil && now.wrote[t] && last.wrote[t] {
				r = &Rival{topic: t.topic, partition: t.partition, producer: t.producer, id: ids[t.producer]}
			}
		}
		if r != nil {
			args := []any{"topic", r.topic, "partition", r.partition, "producer_id", r.producer}
			if r.id != "" {
				args = append(args, "transactional_id", r.id)
			}
			a.Reporter.Throttle("", slog.LevelError, fault.None, "another producer writes to an output topic; its readers get those records too", append(args, "hint", r.cure(fault.CommandsFor(a.Config)))...)
		}
		w.Seen.Store(r)
		if r != nil && of[trace{r.topic, r.partition, r.producer}].Young {
			w.EndWith(r.Refuse(fault.CommandsFor(a.Config)))
		}
		last = now
	}
}
