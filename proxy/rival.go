package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
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

// rival is a producer of others that writes to an output of ours.
type rival struct {
	topic     string // the output
	partition int32
	producer  int64
	id        string // transactional; "" if it has none, or is hidden from us
	group     string // of the Tidemark that has it,
	instance  string // which is at work on our source; "": not known to be one
}

func (r rival) String() string {
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
func (r rival) cure(t fault.Commands) string {
	if r.instance != "" {
		return fmt.Sprintf("stop group %q, or start this one as a member of it: TIDEMARK_GROUP=%s, with a TIDEMARK_INSTANCE that no other has", r.group, r.group)
	}
	return "find it (" + t.Line("kafka-transactions", "describe-producers", "--topic", r.topic, "--partition", fmt.Sprint(r.partition)) + ") and stop it"
}

// refuse explains why a partition does not begin.
func (r rival) refuse(t fault.Commands) *fault.Fault {
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

// wrote reports that a producer wrote between two looks.
func (t trace) wrote(before, now traces) bool {
	was, ok := before[t]
	is := now[t]
	was.Leader, is.Leader = 0, 0
	return !ok || was != is
}

// outputsOf are those of partitions that are written to, with the source of each.
func (s *session) outputsOf(sources []emit.Source) (outputs kadm.TopicsSet, of map[string]emit.Source) {
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
func (s *session) strangers(ctx context.Context, sources []emit.Source) (traces, map[int64]string, error) {
	outputs, _ := s.outputsOf(sources)
	if len(outputs) == 0 {
		return nil, nil, nil // to ask for none is to ask for all
	}
	described, failed := s.adm.DescribeProducers(ctx, outputs) // some answers are better than none
	found, ids := traces{}, map[int64]string{}
	described.EachPartition(func(p kadm.DescribedProducersPartition) { failed = cmp.Or(failed, p.Err) })
	described.EachProducer(func(p kadm.DescribedProducer) {
		found[trace{p.Topic, p.Partition, p.ProducerID}] = p
		ids[p.ProducerID] = ""
	})
	if len(found) == 0 {
		return nil, nil, failed
	}
	ours, err := s.producerID(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("find our own producer id: %w", err)
	}
	listed, err := s.adm.ListTransactions(ctx, slices.Collect(maps.Keys(ids)), nil)
	if err != nil && s.gts != nil {
		if len(listed) == 0 {
			return nil, nil, fmt.Errorf("list transactions: %w", err)
		}
		failed = cmp.Or(failed, err)
	}
	for id, txn := range listed {
		ids[txn.ProducerID] = id
	}
	maps.DeleteFunc(found, func(t trace, _ kadm.DescribedProducer) bool {
		_, ofGroup := s.instanceOf(ids[t.producer])
		return t.producer == ours || ofGroup
	})
	return found, ids, failed
}

// producerID returns that of this session.
func (s *session) producerID(ctx context.Context) (int64, error) {
	if s.gts == nil {
		id, _, err := s.cl.ProducerID(ctx)
		return id, err
	}
	described, err := s.adm.DescribeTransactions(ctx, s.cfg.TransactionalID())
	if err != nil {
		return 0, err
	}
	own := described[s.cfg.TransactionalID()]
	return own.ProducerID, own.Err
}

// atWork returns the first of the strangers that is an instance of another Tidemark
// which is at work on the source partition behind the output.
func (s *session) atWork(ctx context.Context, found traces, ids map[int64]string, sources []emit.Source) *rival {
	_, of := s.outputsOf(sources)
	groups := map[string]kadm.DescribedGroup{}
	for t := range found {
		group, instance, ok := config.SplitTransactionalID(ids[t.producer])
		if !ok || group == "" {
			continue
		}
		if _, known := groups[group]; !known {
			described, err := s.adm.DescribeGroups(ctx, group)
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
			for _, a := range assigned.Topics {
				if a.Topic == src.Topic && slices.Contains(a.Partitions, t.partition) {
					return &rival{topic: t.topic, partition: t.partition, producer: t.producer, id: ids[t.producer], group: group, instance: instance}
				}
			}
		}
	}
	return nil
}

// rivalOf returns who is seen at once to be at work on the outputs of a partition.
func (s *session) rivalOf(ctx context.Context, src emit.Source) *rival {
	ctx, cancel := context.WithTimeout(ctx, rivalPatience)
	defer cancel()
	sources := []emit.Source{src}
	found, ids, _ := s.strangers(ctx, sources) // what is not told of is looked at again before anything begins
	return s.atWork(ctx, found, ids, sources)
}

// How long a look may take, and how long strangers are watched before a partition
// begins.
const (
	rivalPatience = 5 * time.Second
	rivalWatch    = 2 * time.Second
	rivalStep     = 500 * time.Millisecond
)

// refuseRivals returns a fault if others write to the outputs of partitions that are
// about to begin. It costs nothing where nobody has written to them, and two seconds
// where somebody has who cannot be told from a rival in another way.
func (s *session) refuseRivals(ctx context.Context, sources []emit.Source) error {
	ctx, cancel := context.WithTimeout(ctx, rivalPatience)
	defer cancel()
	first, ids, err := s.strangers(ctx, sources)
	if err != nil {
		s.log.Info("cannot tell whether others write to the outputs", "err", err)
	}
	if r := s.atWork(ctx, first, ids, sources); r != nil {
		return r.refuse(fault.CommandsFor(s.cfg))
	}
	for began := time.Now(); len(first) > 0 && time.Since(began) < rivalWatch; {
		pause := fault.Backoff{First: rivalStep, Longest: rivalStep}
		if pause.Wait(ctx) != nil {
			return nil
		}
		now, ids, failed := s.strangers(ctx, sources)
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
				return rival{topic: t.topic, partition: t.partition, producer: t.producer, id: ids[t.producer]}.refuse(fault.CommandsFor(s.cfg))
			}
		}
		err = failed
	}
	return nil
}

// rivalEvery is how often the outputs are looked at while the session runs.
const rivalEvery = 10 * time.Second

// beginning is for how long a partition counts as one that has just begun. Two groups
// that begin at the same time see each other only when both have written.
const beginning = time.Minute

// watchedOutputs is a partition of ours, for whoever watches its outputs.
type watchedOutputs struct {
	emit.Source
	since watermark.Instant // it has been ours without a break
	young bool              // it began not long ago
}

// showOutputs tells the watcher which partitions are ours.
func (s *session) showOutputs() {
	now := s.now()
	if s.outputsShown != 0 && now.Sub(s.outputsShown) < time.Second {
		return
	}
	s.outputsShown = now
	var all []watchedOutputs
	s.each(func(p *partition) {
		begun, ok := s.begun[p.Source]
		all = append(all, watchedOutputs{p.Source, p.since, ok && time.Since(begun) < beginning})
	})
	s.ours.Store(&all)
}

// watchOutputs looks for rivals until ctx is done. A stranger without a name counts when
// it has written between each of three looks: a member of our own group that is thrown
// out may still be putting out what it has, for a turn.
func (s *session) watchOutputs(ctx context.Context) {
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
		case <-time.After(rivalEvery):
		}
		if err := s.sameCluster(ctx); err != nil {
			s.endWith(err)
			continue
		}
		ours := s.ours.Load()
		if ours == nil {
			continue
		}
		now := seen{at: s.now(), wrote: map[trace]bool{}}
		var sources []emit.Source
		of := map[trace]watchedOutputs{}
		for _, w := range *ours {
			sources = append(sources, w.Source)
		}
		looking, cancel := context.WithTimeout(ctx, rivalPatience)
		found, ids, err := s.strangers(looking, sources)
		if err != nil && ctx.Err() == nil {
			s.log.Debug("cannot tell whether others write to the outputs", "err", err)
		}
		now.traces = found
		r := s.atWork(looking, found, ids, sources)
		cancel()
		for t := range found {
			for _, w := range *ours {
				if w.Partition == t.partition && (w.Ordered == t.topic || w.Late == t.topic) {
					of[t] = w
				}
			}
			now.wrote[t] = last.traces != nil && of[t].since < last.at && t.wrote(last.traces, found)
			if r == nil && now.wrote[t] && last.wrote[t] {
				r = &rival{topic: t.topic, partition: t.partition, producer: t.producer, id: ids[t.producer]}
			}
		}
		if r != nil {
			args := []any{"topic", r.topic, "partition", r.partition, "producer_id", r.producer}
			if r.id != "" {
				args = append(args, "transactional_id", r.id)
			}
			s.reporter.Throttle("", slog.LevelError, fault.None, "others write to an output of ours, which has what they write in it as well", append(args, "hint", r.cure(fault.CommandsFor(s.cfg)))...)
		}
		s.rival.Store(r)
		if r != nil && of[trace{r.topic, r.partition, r.producer}].young {
			s.endWith(r.refuse(fault.CommandsFor(s.cfg)))
		}
		last = now
	}
}

// endWith has the loop end the process with a fault.
func (s *session) endWith(err error) {
	s.fatal.Store(&err)
	s.poke()
}

// heedWatcher returns what the watcher found that ends the process.
func (s *session) heedWatcher() error {
	if err := s.fatal.Load(); err != nil {
		return *err
	}
	return nil
}

// sameCluster asks the brokers that the session's own client has come to which cluster
// they are of. No answer is no other cluster.
func (s *session) sameCluster(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(kadm.WithAuthorizedOps(ctx), rivalPatience) // not out of the cache
	defer cancel()
	told, err := kadm.NewClient(s.cl).BrokerMetadata(ctx)
	if auth := new(kadm.AuthError); err != nil && !errors.As(err, &auth) {
		return nil
	}
	return s.cluster.Check(s.cfg, told.Cluster)
}
