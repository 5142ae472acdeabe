package group

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// Somebody else's transaction that stays open holds up all readers of committed records:
// on a source us, on an output those whom we write for. Neither gets an error. What shows it is
// the last stable offset, which stays where it is, below the end of the log.
//
//	look      every StableEvery, at the stable offset and the end of our sources and outputs:
//	          two requests for each broker
//	suspect   a partition whose stable offset was below the end at two looks, and the same.
//	          Our own transactions end in between, or the brokers hold us up and are waited for
//	ask       the leaders of suspects who has a transaction open (Read on the topic, Kafka 2.8),
//	          the coordinators for its transactional id and when it began (Describe on the id,
//	          Kafka 3.0). What they do not say is not guessed
//
// The settings of the outputs are looked at beside it: with message.timestamp.type set to
// LogAppendTime, copies no longer have the timestamps of their sources, and the client
// does not pass on the broker's answer that says so.

// StableEvery is how often the last stable offsets are looked at.
const StableEvery = 5 * time.Second

// settingsEvery is how often the settings of the outputs are.
const settingsEvery = time.Minute

// OpenTransactions watches our sources and outputs for transactions of others that stay open.
type OpenTransactions struct {
	Admin  *Admin
	Client *kgo.Client

	ours  atomic.Pointer[[]emit.Source]
	seen  atomic.Pointer[[]fault.OpenTransaction]
	times atomic.Pointer[[]string]
}

// SetOurs sets which source partitions are ours.
func (w *OpenTransactions) SetOurs(ours []emit.Source) { w.ours.Store(&ours) }

// Seen returns the partitions that are held open, by topic and partition.
func (w *OpenTransactions) Seen() []fault.OpenTransaction {
	if seen := w.seen.Load(); seen != nil {
		return *seen
	}
	return nil
}

// AppendTimes returns the outputs that replace timestamps with the time of arrival.
func (w *OpenTransactions) AppendTimes() []string {
	if topics := w.times.Load(); topics != nil {
		return *topics
	}
	return nil
}

// stableEnd is what one look says of a partition.
type stableEnd struct{ stable, end int64 }

// suspect is a partition whose stable offset stays below its end.
type suspect struct {
	stable int64
	first  time.Time // seen so
}

// Watch looks until ctx is done.
func (w *OpenTransactions) Watch(ctx context.Context) {
	before := map[TopicPartition]suspect{}
	var settings time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(StableEvery):
		}
		ours := w.ours.Load()
		if ours == nil || len(*ours) == 0 {
			before = map[TopicPartition]suspect{}
			w.seen.Store(nil) // whoever has them tells of them
			continue
		}
		looking, cancel := context.WithTimeout(ctx, rivalPatience)
		ends, err := w.look(looking, *ours)
		if err != nil && ctx.Err() == nil {
			w.Admin.Reporter.Logger.Debug("cannot look for open transactions", "err", err)
		}
		now, held := map[TopicPartition]suspect{}, map[TopicPartition]stableEnd{}
		for tp, at := range ends {
			if at.stable >= at.end {
				continue
			}
			now[tp] = suspect{at.stable, time.Now()}
			if was, ok := before[tp]; ok && was.stable == at.stable {
				now[tp] = was
				if time.Since(was.first) >= w.patience() {
					held[tp] = at
				}
			}
		}
		for tp, was := range before {
			if _, answered := ends[tp]; !answered { // its leader is away: nothing is known to have ended
				now[tp] = was
			}
		}
		before = now
		open := w.describe(looking, held, before)
		cancel()
		if ctx.Err() != nil {
			return
		}
		for _, was := range w.Seen() {
			if _, answered := ends[TopicPartition{was.Topic, was.Partition}]; !answered && w.has(was) {
				open = append(open, was)
			}
		}
		w.tell(open)
		if time.Since(settings) >= settingsEvery {
			settings = time.Now()
			w.lookAtSettings(ctx, *ours)
		}
	}
}

// patience is for how long a stable offset has to stay: longer than a transaction of ours.
func (w *OpenTransactions) patience() time.Duration {
	return max(StableEvery, 2*w.Admin.Config.CommitInterval) - StableEvery/10 // the first look took time
}

// has reports whether a partition that was held open is one of ours still.
func (w *OpenTransactions) has(o fault.OpenTransaction) bool {
	return slices.ContainsFunc(*w.ours.Load(), func(src emit.Source) bool {
		return src.Partition == o.Partition && (src.Topic == o.Topic || src.Ordered == o.Topic || src.Late == o.Topic)
	})
}

// look returns the stable offsets and the ends of sources and their outputs, as far as
// leaders answer. The end is asked for first: what is written between the two questions
// only makes the stable offset larger.
func (w *OpenTransactions) look(ctx context.Context, ours []emit.Source) (map[TopicPartition]stableEnd, error) {
	parts := map[string][]int32{}
	for _, src := range ours {
		parts[src.Topic] = append(parts[src.Topic], src.Partition)
		if src.Partition < w.Admin.Topics[src.Topic].Usable {
			parts[src.Ordered] = append(parts[src.Ordered], src.Partition)
			parts[src.Late] = append(parts[src.Late], src.Partition)
		}
	}
	high, err := w.list(ctx, parts, 0)
	stable, failed := w.list(ctx, parts, 1)
	both := map[TopicPartition]stableEnd{}
	for tp, end := range high {
		if at, ok := stable[tp]; ok {
			both[tp] = stableEnd{at, end}
		}
	}
	return both, cmp.Or(err, failed)
}

func (w *OpenTransactions) list(ctx context.Context, parts map[string][]int32, isolation int8) (map[TopicPartition]int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.IsolationLevel = isolation
	for topic, ps := range parts {
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = topic
		for _, n := range ps {
			p := kmsg.NewListOffsetsRequestTopicPartition()
			p.Partition, p.Timestamp = n, -1
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	ends := map[TopicPartition]int64{}
	var failed error
	for _, shard := range w.Client.RequestSharded(ctx, req) {
		if shard.Err != nil {
			failed = cmp.Or(failed, shard.Err)
			continue
		}
		for _, t := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					failed = cmp.Or(failed, err)
					continue
				}
				ends[TopicPartition{t.Topic, p.Partition}] = p.Offset
			}
		}
	}
	return ends, failed
}

// describe says who holds partitions open, without what turns out to be our own.
func (w *OpenTransactions) describe(ctx context.Context, held map[TopicPartition]stableEnd, suspects map[TopicPartition]suspect) (open []fault.OpenTransaction) {
	if len(held) == 0 {
		return nil // to ask for none is to ask for all
	}
	set := kadm.TopicsSet{}
	for tp := range held {
		set.Add(tp.Topic, tp.N)
	}
	described, failed := w.Admin.Kadm.DescribeProducers(ctx, set)
	if failed != nil {
		failed = fmt.Errorf("describe its producers: %w", failed)
	}
	holders, refused, ids := map[TopicPartition]kadm.DescribedProducer{}, map[TopicPartition]error{}, map[int64]bool{}
	described.EachPartition(func(p kadm.DescribedProducersPartition) {
		tp := TopicPartition{p.Topic, p.Partition}
		if p.Err != nil {
			refused[tp] = fmt.Errorf("describe its producers (needs Read on topic %s): %w", p.Topic, p.Err)
			return
		}
		refused[tp] = nil
		for _, by := range p.ActiveProducers {
			if by.CurrentTxnStartOffset < 0 {
				continue
			}
			if first, ok := holders[tp]; !ok || by.CurrentTxnStartOffset < first.CurrentTxnStartOffset {
				holders[tp] = by
			}
			ids[by.ProducerID] = true
		}
	})
	names, began, unknown := w.transactions(ctx, slices.Sorted(maps.Keys(ids)))
	for tp, at := range held {
		o := fault.OpenTransaction{
			Topic: tp.Topic, Partition: tp.N, Offset: at.stable, Behind: at.end - at.stable,
			Seen: suspects[tp].first, ProducerID: -1, Output: !slices.Contains(w.Admin.Config.Topics, tp.Topic),
		}
		why, answered := refused[tp]
		by, known := holders[tp]
		switch {
		case known:
			o.ProducerID, o.TransactionalID, o.Since = by.ProducerID, names[by.ProducerID], began[by.ProducerID]
			if o.TransactionalID == "" {
				o.Unknown = unknown
			}
			instance, ofGroup := w.Admin.instanceOf(o.TransactionalID)
			if ofGroup && instance == w.Admin.Config.Instance {
				continue // that we wait for its end is said where we do
			}
			o.Sibling = ofGroup
		case answered && why == nil:
			continue // it has just ended
		default:
			o.Unknown = cmp.Or(why, failed)
		}
		open = append(open, o)
	}
	return open
}

// transactions returns the transactional ids of producers, and when their transactions
// began, as far as brokers tell us. unknown is why they may have told less.
func (w *OpenTransactions) transactions(ctx context.Context, producers []int64) (names map[int64]string, began map[int64]time.Time, unknown error) {
	names, began = map[int64]string{}, map[int64]time.Time{}
	if len(producers) == 0 {
		return names, began, nil
	}
	listed, err := w.Admin.Kadm.ListTransactions(ctx, producers, nil)
	unknown = errors.New("the brokers list no transactional id for it; Describe on transactional ids shows those of others")
	if err != nil {
		unknown = fmt.Errorf("list transactions: %w", err)
	}
	for id, tx := range listed {
		names[tx.ProducerID] = id
	}
	if len(listed) == 0 {
		return names, began, unknown
	}
	details, _ := w.Admin.Kadm.DescribeTransactions(ctx, listed.TransactionalIDs()...)
	for _, tx := range details {
		if tx.Err == nil && tx.StartTimestamp > 0 {
			began[tx.ProducerID] = time.UnixMilli(tx.StartTimestamp)
		}
	}
	return names, began, unknown
}

// mostTold is how many open transactions are named in the log at a time, of those on sources
// and of those on outputs: upstream may have hundreds, one after the other.
const mostTold = 3

// tell publishes what holds partitions open, and logs it: one line for each transaction,
// which may hold many partitions.
func (w *OpenTransactions) tell(open []fault.OpenTransaction) {
	slices.SortFunc(open, func(a, b fault.OpenTransaction) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	was := w.Seen()
	w.seen.Store(&open)
	for _, output := range []bool{false, true} {
		all := byProducer(open, output)
		for i, held := range all[:min(len(all), mostTold)] {
			w.logOpen(i, held, len(all)-mostTold)
		}
	}
	ended := slices.DeleteFunc(slices.Clone(was), func(o fault.OpenTransaction) bool {
		return !w.has(o) || slices.ContainsFunc(open, func(is fault.OpenTransaction) bool {
			return is.Topic == o.Topic && is.Partition == o.Partition
		})
	})
	if len(ended) > 0 {
		args := placesOf(ended)
		first := slices.MinFunc(ended, func(a, b fault.OpenTransaction) int { return a.Seen.Compare(b.Seen) })
		if first.TransactionalID != "" {
			args = append(args, "transactional_id", first.TransactionalID)
		}
		w.Admin.Reporter.Throttle("", slog.LevelInfo, fault.None, "the open transaction has ended; readers go on",
			append(args, "waited", time.Since(cmp.Or(first.Since, first.Seen)).Round(time.Second).String())...)
	}
}

// byProducer returns what transactions hold open, on outputs or on sources: each with what it
// holds, and the one that has been seen for longest first.
func byProducer(open []fault.OpenTransaction, output bool) (all [][]fault.OpenTransaction) {
	at := map[int64]int{}
	for _, o := range open {
		if o.Output != output {
			continue
		}
		i, ok := at[o.ProducerID]
		if !ok {
			i = len(all)
			at[o.ProducerID], all = i, append(all, nil)
		}
		all[i] = append(all[i], o)
	}
	slices.SortStableFunc(all, func(a, b []fault.OpenTransaction) int { return a[0].Seen.Compare(b[0].Seen) })
	return all
}

// logOpen logs what a transaction holds open. After the last that is named, it says how many
// there are beside.
func (w *OpenTransactions) logOpen(i int, held []fault.OpenTransaction, unnamed int) {
	first := held[0]
	msg := "an open transaction holds up a source partition; nothing behind it can be read until it ends"
	if first.Output {
		msg = "another program's open transaction holds up readers of an output; they see nothing behind it until it ends"
	}
	args := placesOf(held)
	args = append(args, "first_offset", first.Offset, "behind", first.Behind)
	if first.ProducerID >= 0 {
		args = append(args, "producer_id", first.ProducerID)
	}
	if first.TransactionalID != "" {
		args = append(args, "transactional_id", first.TransactionalID)
	}
	if !first.Since.IsZero() {
		args = append(args, "since", first.Since.UTC().Format(time.RFC3339))
	}
	if first.Unknown != nil {
		args = append(args, "err", first.Unknown)
	}
	if i == mostTold-1 && unnamed > 0 {
		args = append(args, "others", unnamed)
	}
	w.Admin.Reporter.Throttle(fmt.Sprint(i), slog.LevelWarn, fault.None, msg, append(args, "hint", first.Cure(fault.CommandsFor(w.Admin.Config)))...)
}

// placesOf returns where transactions are or were open, as log arguments.
func placesOf(all []fault.OpenTransaction) []any {
	args := []any{"topic", all[0].Topic, "partition", all[0].Partition}
	if len(all) == 1 {
		return args
	}
	partitions := map[string][]int32{}
	for _, o := range all {
		partitions[o.Topic] = append(partitions[o.Topic], o.Partition)
	}
	return append(args, "partitions", ListPartitions(partitions))
}

// lookAtSettings looks whether outputs replace timestamps. Where the settings may not be
// seen, preflight has warned of it.
func (w *OpenTransactions) lookAtSettings(ctx context.Context, ours []emit.Source) {
	ctx, cancel := context.WithTimeout(ctx, rivalPatience)
	defer cancel()
	outputs := map[string]bool{}
	for _, src := range ours {
		outputs[src.Ordered], outputs[src.Late] = true, true
	}
	configs, err := w.Admin.Kadm.DescribeTopicConfigs(ctx, slices.Sorted(maps.Keys(outputs))...)
	if err != nil {
		return
	}
	var replaced []string
	for _, topic := range configs {
		for _, c := range topic.Configs {
			if topic.Err == nil && c.Key == fault.TimestampType && c.MaybeValue() == fault.LogAppendTime {
				replaced = append(replaced, topic.Name)
			}
		}
	}
	slices.Sort(replaced)
	w.times.Store(&replaced)
	for _, topic := range replaced {
		w.Admin.Reporter.Throttle(topic, slog.LevelError, fault.None, "an output replaces the timestamps of its records with the time of arrival; they are no longer those of the source",
			"topic", topic, "hint", fault.CommandsFor(w.Admin.Config).Set(topic, fault.TimestampType, "CreateTime")+
				"; records put out meanwhile keep the time of their arrival")
	}
}
