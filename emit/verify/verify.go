// Package verify checks from outside that Tidemark's outputs keep the contract: it compares
// the outputs of each source partition with the source and with the group's commit. Run
// reads everything from Kafka; a Checker takes record by record from any reader.
package verify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/emit/scan"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// ErrNoCommit: the group has committed nothing for a partition, so nobody
// said which records its outputs owe.
var ErrNoCommit = errors.New("the group has committed nothing")

// ErrOtherTimes: no commit of a topic was made with the event times that verify was told
// of, so nothing shows that there were ever any such.
var ErrOtherTimes = errors.New("made with other event times than those to verify with")

// ErrNoIdentity: the outputs carry no source offsets, so their records cannot
// be told apart.
var ErrNoIdentity = errors.New("records without a source offset")

// Topic is a source topic, its outputs and its event times.
type Topic struct {
	Source, Ordered, Late string
	EventTime             func(*kgo.Record) (watermark.Time, error) // called concurrently
	SchemaID              func(*kgo.Record) (id string, ok bool)    // see Rules
	Fingerprint           [4]byte                                   // of EventTime, as in the commits
}

// Options say what to verify.
type Options struct {
	Topics      []Topic
	Group       string
	Prefix      string       // of our headers
	Required    emit.Headers // see Rules
	AtLeastOnce bool
	Identity    emit.Identity // by which repeats were recognised

	// Event times are judged from where all of these, and what the commits say, have come: FromOffsets has source
	// offsets by partition, FromTime is a time by the source's own timestamps, if not zero.
	From        From
	FromOffsets map[int32]int64
	FromTime    time.Time

	Dropped bool // repeats were dropped
	Unnamed bool // see Rules

	// Progress, if set, is called with how many offsets are done of how many, from one
	// goroutine at a time.
	Progress func(done, total int64)
}

// Run reads the sources and outputs of the topics and checks the contract.
// It returns one report per partition, in the order of topics and partitions.
//
// It may run beside the group: it reads the commit first and the ends of the
// topics afterwards, those of the outputs before those of the source. So all
// that the commit promises is in what is read, and the source of every output
// is, too.
//
// Each topic of a partition is a stream with its own fetches, one in hand and
// one ahead. What nobody asks of it, it does not read: its memory is bounded,
// and the three advance together along the source offsets.
//
// The error wraps a MissingTopicError, ErrNoCommit, ErrOtherTimes, ErrNoIdentity, ErrPartitions, ErrReset or one of those of
// reorder.Decode where there is nothing to check by.
func Run(ctx context.Context, cl *kgo.Client, o Options) ([]Report, error) {
	v := &verification{Options: o, cl: cl, adm: kadm.NewClient(cl)}
	var reports []Report
	var topics [][]*verified
	for _, t := range o.Topics {
		parts, err := v.survey(ctx, t)
		for try := 0; errors.Is(err, ErrReset) && try < surveys; try++ {
			parts, err = v.survey(ctx, t)
		}
		if err != nil {
			return nil, err
		}
		topics = append(topics, parts)
	}
	for i, parts := range topics {
		err := v.readAll(ctx, parts)
		for try := 1; errors.Is(err, scan.ErrDeleted) && try < surveys; try++ {
			// Retention goes on. What there is to read is not what there was.
			if parts, err = v.survey(ctx, o.Topics[i]); err == nil {
				err = v.readAll(ctx, parts)
			}
		}
		if err != nil {
			return nil, err
		}
		checkers := make([]*Checker, len(parts))
		for i, p := range parts {
			checkers[i] = p.checker
		}
		found := Reports(checkers)
		for i, p := range parts {
			v.explain(ctx, p, &found[i])
		}
		reports = append(reports, found...)
	}
	return reports, nil
}

// verification is one call of Run.
type verification struct {
	Options
	cl  *kgo.Client
	adm *kadm.Client

	mu          sync.Mutex
	done, total int64
}

// verified is one source partition under verification.
type verified struct {
	checker            *Checker
	scope              Scope
	raw, ordered, late scan.Stretch
}

// ErrPartitions: the topics do not have the same number of partitions.
var ErrPartitions = errors.New("its outputs have another number of partitions")

// MissingTopicError: a source topic or an output does not exist.
type MissingTopicError struct {
	Role string // source topic, ordered output, late output
	Name string
}

func (e *MissingTopicError) Error() string {
	return fmt.Sprintf("look up the %s %s: it does not exist", e.Role, e.Name)
}

// ErrReset: the group was reset while the topics were looked at, so commit and outputs
// do not belong together.
var ErrReset = errors.New("the group was reset meanwhile")

// surveys is how often a topic is looked at again for that.
const surveys = 3

// survey reads the commits and then the ends of a topic's partitions.
func (v *verification) survey(ctx context.Context, t Topic) ([]*verified, error) {
	topics, err := v.adm.ListTopics(ctx, t.Source, t.Ordered, t.Late)
	if err != nil {
		return nil, fmt.Errorf("look up %s and its outputs: %w", t.Source, err)
	}
	for _, topic := range []MissingTopicError{{"source topic", t.Source}, {"ordered output", t.Ordered}, {"late output", t.Late}} {
		switch err := topics[topic.Name].Err; {
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			return nil, &topic
		case err != nil:
			return nil, fmt.Errorf("look up the %s %s: %w", topic.Role, topic.Name, err)
		}
	}
	commits, err := v.commits(ctx, t.Source)
	if err != nil {
		return nil, err
	}
	written := map[string]kadm.ListedOffsets{}
	for _, out := range []string{t.Ordered, t.Late} {
		if written[out], err = v.settle(ctx, out); err != nil {
			return nil, err
		}
	}
	ordered, err := v.stretches(ctx, t.Ordered)
	if err != nil {
		return nil, err
	}
	late, err := v.stretches(ctx, t.Late)
	if err != nil {
		return nil, err
	}
	raw, err := v.stretches(ctx, t.Source)
	if err != nil {
		return nil, err
	}
	after, err := v.commits(ctx, t.Source)
	if err != nil {
		return nil, err
	}
	if len(ordered) != len(raw) || len(late) != len(raw) {
		return nil, fmt.Errorf("%s has %d partitions, and %w: %s has %d and %s has %d",
			t.Source, len(raw), ErrPartitions, t.Ordered, len(ordered), t.Late, len(late))
	}
	most := v.largest(ctx, t)
	orderedHidden, lateHidden := v.hidden(ctx, written[t.Ordered], ordered), v.hidden(ctx, written[t.Late], late)
	from, err := v.from(ctx, t.Source)
	if err != nil {
		return nil, err
	}
	others := 0
	parts := make([]*verified, len(raw))
	for i := range raw {
		commit, ok := commits[int32(i)]
		if !ok || commit.At < 0 {
			return nil, fmt.Errorf("%s partition %d: group %q: %w", t.Source, i, v.Group, ErrNoCommit)
		}
		at := reorder.Scope{Group: v.Group, TopicID: topics[t.Source].ID, Partition: int32(i), Fingerprint: t.Fingerprint}
		snap, err := reorder.Decode(commit.Metadata, commit.At, commit.LeaderEpoch, at)
		if err != nil {
			return nil, fmt.Errorf("%s partition %d: commit %d of group %q: %w", t.Source, i, commit.At, v.Group, err)
		}
		scope := scopeOf(snap)
		scope.From = from(int32(i))
		if scope.From.Told {
			scope.TimesEpoch = 0
		}
		other := reorder.Fingerprint(commit.Metadata) != t.Fingerprint
		if now := after[int32(i)]; now.At == commit.At && now.Metadata == commit.Metadata {
			scope.Quiet = true
		} else if later, err := reorder.Decode(now.Metadata, now.At, now.LeaderEpoch, at); err == nil {
			if later.Origin != snap.Origin || later.Next < snap.Next {
				return nil, fmt.Errorf("%s partition %d: commit %d of group %q: %w", t.Source, i, commit.At, v.Group, ErrReset)
			}
			scope.Epochs = later.Epoch > 0
		}
		scope.Epochs = scope.Epochs || scope.Epoch > 0
		scope.RawStart, scope.OrderedStart, scope.LateStart = raw[i].Start, ordered[i].Start, late[i].Start
		scope.RawEnd = raw[i].End
		scope.OrderedHidden, scope.LateHidden = orderedHidden[int32(i)] != nil, lateHidden[int32(i)] != nil
		rules := Rules{
			Topic: t.Source, Ordered: t.Ordered, Late: t.Late, Partition: int32(i), Prefix: v.Prefix,
			Required: v.Required, OrderedMax: most[t.Ordered], LateMax: most[t.Late],
			EventTime: t.EventTime, SchemaID: t.SchemaID, Unnamed: v.Unnamed, AtLeastOnce: v.AtLeastOnce, Identity: v.Identity, Dropped: v.Dropped,
		}
		parts[i] = &verified{
			checker: NewChecker(rules, scope), scope: scope,
			raw: raw[i], ordered: ordered[i], late: late[i],
		}
		if other {
			parts[i].checker.report.OtherTimes = true
			others++
		}
		for _, h := range []*Hidden{orderedHidden[int32(i)], lateHidden[int32(i)]} {
			if h != nil {
				parts[i].checker.report.Hidden = append(parts[i].checker.report.Hidden, *h)
			}
		}
		v.total += raw[i].Len() + ordered[i].Len() + late[i].Len()
	}
	if others > 0 && others == len(parts) {
		return nil, fmt.Errorf("%s: the commits of group %q were %w", t.Source, v.Group, ErrOtherTimes)
	}
	return parts, nil
}

// from returns where the event times of a topic's partitions are judged from.
func (v *verification) from(ctx context.Context, source string) (func(partition int32) From, error) {
	var begin kadm.ListedOffsets
	if !v.FromTime.IsZero() {
		ask := func(ctx context.Context, topics ...string) (kadm.ListedOffsets, error) {
			return v.adm.ListOffsetsAfterMilli(ctx, v.FromTime.UnixMilli(), topics...)
		}
		var err error
		if begin, err = listed(ctx, "first offset after "+v.FromTime.Format(time.RFC3339), source, ask); err != nil {
			return nil, err
		}
	}
	return func(n int32) From {
		at, _ := begin.Lookup(source, n)
		return From{v.From.Epoch, max(v.From.Offset, v.FromOffsets[n], at.Offset), v.From.Told}
	}, nil
}

func scopeOf(s reorder.Snapshot) Scope {
	return Scope{
		Origin: s.Origin, Committed: s.Low, Next: s.Next, Epoch: int64(s.Epoch), W: s.W,
		TimesFrom: s.TimesFrom, TimesEpoch: int64(s.TimesEpoch), Buffered: int64(s.Count), BufferedSum: s.Sum, Releasing: s.Releasing, Frontier: s.Frontier,
	}
}

// largest returns what brokers say of the largest batch that each output takes. They
// need not let us ask.
func (v *verification) largest(ctx context.Context, t Topic) map[string]int {
	most := map[string]int{}
	described, err := v.adm.DescribeTopicConfigs(ctx, t.Ordered, t.Late)
	if err != nil {
		return most
	}
	for _, d := range described {
		for _, c := range d.Configs {
			if n, err := strconv.Atoi(c.MaybeValue()); c.Key == "max.message.bytes" && err == nil {
				most[d.Name] = n
			}
		}
	}
	return most
}

// unstableTime is how long a commit that is under way may take to become stable. A
// transaction that lasts longer is one of a sidecar that died.
const unstableTime = 10 * time.Second

// commits returns the group's commits of a topic. They are stable: what an open
// transaction is about to commit is waited for, partition by partition, for a group
// that is at work always has some under way.
func (v *verification) commits(ctx context.Context, topic string) (map[int32]kadm.OffsetResponse, error) {
	stable := map[int32]kadm.OffsetResponse{}
	for began := time.Now(); ; {
		all, err := v.adm.FetchOffsets(kadm.RequireStable(ctx), v.Group)
		if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
			return nil, fmt.Errorf("fetch offsets of group %q: %w", v.Group, err)
		}
		waiting := false
		for partition, commit := range all[topic] {
			if _, ok := stable[partition]; ok {
				continue
			}
			switch {
			case commit.Err == nil:
				stable[partition] = commit
			case !errors.Is(commit.Err, kerr.UnstableOffsetCommit):
				return nil, fmt.Errorf("fetch offset of group %q, %s partition %d: %w", v.Group, topic, partition, commit.Err)
			case time.Since(began) > unstableTime:
				return nil, fmt.Errorf("fetch offset of group %q, %s partition %d: an open transaction has held it for more than %v: %w",
					v.Group, topic, partition, unstableTime, commit.Err)
			default:
				waiting = true
			}
		}
		if !waiting {
			return stable, nil
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
}

// pause waits before the brokers are asked again.
func pause(ctx context.Context) error {
	select {
	case <-time.After(20 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// settleTime is more than brokers take to mark the end of a transaction on all
// its partitions.
const settleTime = 2 * time.Second

// settle waits until readers of committed records see all that is in an output
// now. The end of a transaction is marked on the group's offsets and on the
// outputs one after the other, so a commit may be seen before what came out with
// it. A transaction that stays open is another, and may hide what came out with the
// commit. It returns where the output ended by the time of the commit.
func (v *verification) settle(ctx context.Context, topic string) (written kadm.ListedOffsets, err error) {
	written, err = listed(ctx, "end offset", topic, v.adm.ListEndOffsets)
	if err != nil {
		return nil, err
	}
	for began := time.Now(); ; {
		stable, err := listed(ctx, "last stable offset", topic, v.adm.ListCommittedOffsets)
		if err != nil {
			return nil, err
		}
		behind := false
		written.Each(func(end kadm.ListedOffset) {
			at, _ := stable.Lookup(topic, end.Partition)
			behind = behind || at.Offset < end.Offset
		})
		if !behind || time.Since(began) > settleTime {
			return written, nil
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
}

// listed asks for an offset of each partition of a topic. Without that of one nothing
// can be said of the topic, so the error names the partition, where brokers do.
func listed(ctx context.Context, what, topic string, ask func(context.Context, ...string) (kadm.ListedOffsets, error)) (kadm.ListedOffsets, error) {
	all, err := ask(ctx, topic)
	for _, n := range slices.Sorted(maps.Keys(all[topic])) {
		o := all[topic][n]
		switch {
		case o.Err != nil && n < 0: // that of the topic
			return nil, fmt.Errorf("ask for the %s of each partition of %s: %w", what, topic, o.Err)
		case o.Err != nil:
			return nil, fmt.Errorf("ask for the %s of %s partition %d: %w", what, topic, n, o.Err)
		}
	}
	var parts *kadm.ShardErrors
	if errors.As(err, &parts) {
		for _, part := range parts.Errs {
			if req, ok := part.Req.(*kmsg.ListOffsetsRequest); ok && len(req.Topics) > 0 && len(req.Topics[0].Partitions) > 0 {
				return nil, fmt.Errorf("ask for the %s of %s partition %d: %w", what, topic, req.Topics[0].Partitions[0].Partition, part.Err)
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("ask for the %s of each partition of %s: %w", what, topic, err)
	}
	return all, nil
}

// stretches returns what there is to read of each partition of a topic, up to
// the last stable offset.
func (v *verification) stretches(ctx context.Context, topic string) ([]scan.Stretch, error) {
	starts, err := listed(ctx, "first offset", topic, v.adm.ListStartOffsets)
	if err != nil {
		return nil, err
	}
	ends, err := listed(ctx, "last stable offset", topic, v.adm.ListCommittedOffsets)
	if err != nil {
		return nil, err
	}
	ss := make([]scan.Stretch, len(ends[topic]))
	for i := range ss {
		start, _ := starts.Lookup(topic, int32(i))
		end, ok := ends.Lookup(topic, int32(i))
		if !ok {
			return nil, fmt.Errorf("list last stable offsets of %s: no partition %d", topic, i)
		}
		ss[i] = scan.Stretch{Topic: topic, Partition: int32(i), Start: start.Offset, End: end.Offset}
	}
	return ss, nil
}

// readAll reads the partitions, as many at a time as there are processors. It
// returns the first error and then stops the others.
func (v *verification) readAll(ctx context.Context, parts []*verified) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for _, p := range parts {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := v.read(ctx, p); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// kafkaTopics are the three topics of a partition as examine reads them.
type kafkaTopics struct {
	v    *verification
	ctx  context.Context
	p    *verified
	open map[string]*scan.Stream
}

func (k *kafkaTopics) Raw(from int64) cursor {
	s := k.p.raw
	if last := k.open[s.Topic]; last != nil {
		last.Close()
		k.v.progress(last.Unread()) // nobody has read the rest
		k.v.more(max(0, s.End-max(from, s.Start)))
	} else {
		k.v.progress(min(max(0, from-s.Start), s.Len()))
	}
	s.Start = min(max(from, s.Start), s.End)
	return k.begin(s, k.p.checker.Compacted)
}

func (k *kafkaTopics) Ordered() cursor { return k.output(k.p.ordered) }

func (k *kafkaTopics) Late() cursor { return k.output(k.p.late) }

// output opens an output, which may be read more than once.
func (k *kafkaTopics) output(s scan.Stretch) cursor {
	if last := k.open[s.Topic]; last != nil {
		last.Close()
		k.v.progress(last.Unread())
		k.v.more(s.Len())
	}
	return k.begin(s, nil)
}

func (k *kafkaTopics) begin(s scan.Stretch, holed func()) cursor {
	st := scan.Open(k.ctx, k.v.cl, s)
	st.Passed, st.Holed = k.v.progress, holed
	k.open[s.Topic] = st
	return st
}

func (v *verification) read(ctx context.Context, p *verified) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	k := &kafkaTopics{v: v, ctx: ctx, p: p, open: map[string]*scan.Stream{}}
	err := examine(p.checker, k)
	for _, s := range k.open {
		v.progress(s.Unread()) // nobody has read the rest
	}
	if errors.Is(err, ErrNoIdentity) {
		err = fmt.Errorf("%s partition %d: %w", p.ordered.Topic, p.ordered.Partition, err)
	}
	return err
}

// more says that more is to be read than was thought.
func (v *verification) more(n int64) {
	v.mu.Lock()
	v.total += n
	v.mu.Unlock()
}

func (v *verification) progress(n int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.done += n
	if v.Progress != nil {
		v.Progress(v.done, v.total)
	}
}
