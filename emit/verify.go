package emit

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// ErrNoCommit: the group has committed nothing for a partition, so nobody
// said which records its outputs owe.
var ErrNoCommit = errors.New("the group has committed nothing")

// ErrNoIdentity: the outputs carry no source offsets, so their records cannot
// be told apart.
var ErrNoIdentity = errors.New("records without a source offset")

// VerifyTopic is a source topic, its outputs and its event times.
type VerifyTopic struct {
	Source, Ordered, Late string
	EventTime             func(*kgo.Record) (watermark.Time, error) // called concurrently
	SchemaID              func(value []byte) (id uint32, ok bool)   // see Rules
	Fingerprint           [4]byte                                   // of EventTime, as in the commits
}

// VerifyOptions say what to verify.
type VerifyOptions struct {
	Topics      []VerifyTopic
	Group       string
	Prefix      string // of our headers
	AtLeastOnce bool
	Identity    Identity // that repeats were told by
	Dropped     bool     // and they were dropped

	// Progress, if set, is told how many offsets are done of how many. It
	// is called from one goroutine at a time.
	Progress func(done, total int64)
}

// Verify reads the sources and outputs of the topics and checks the contract.
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
// The error wraps ErrNoCommit, ErrNoIdentity or one of those of
// reorder.Decode where there is nothing to check by.
func Verify(ctx context.Context, cl *kgo.Client, o VerifyOptions) ([]Report, error) {
	v := &verification{VerifyOptions: o, cl: cl, adm: kadm.NewClient(cl)}
	var reports []Report
	var topics [][]*verified
	for _, t := range o.Topics {
		parts, err := v.survey(ctx, t)
		if err != nil {
			return nil, err
		}
		topics = append(topics, parts)
	}
	for _, parts := range topics {
		if err := v.readAll(ctx, parts); err != nil {
			return nil, err
		}
		checkers := make([]*Checker, len(parts))
		for i, p := range parts {
			checkers[i] = p.checker
		}
		reports = append(reports, Reports(checkers)...)
	}
	return reports, nil
}

// verification is one run of Verify.
type verification struct {
	VerifyOptions
	cl  *kgo.Client
	adm *kadm.Client

	mu          sync.Mutex
	done, total int64
}

// verified is one source partition under verification.
type verified struct {
	checker            *Checker
	scope              Scope
	raw, ordered, late stretch
}

// survey reads the commits and then the ends of a topic's partitions.
func (v *verification) survey(ctx context.Context, t VerifyTopic) ([]*verified, error) {
	topics, err := v.adm.ListTopics(ctx, t.Source)
	if err == nil {
		err = topics.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", t.Source, err)
	}
	commits, err := v.commits(ctx, t.Source)
	if err != nil {
		return nil, err
	}
	for _, out := range []string{t.Ordered, t.Late} {
		if err := v.settle(ctx, out); err != nil {
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
		return nil, fmt.Errorf("%s has %d partitions, but %s has %d and %s has %d",
			t.Source, len(raw), t.Ordered, len(ordered), t.Late, len(late))
	}
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
		scope.Quiet = after[int32(i)].At == commit.At && after[int32(i)].Metadata == commit.Metadata
		scope.RawStart, scope.OrderedStart, scope.LateStart = raw[i].start, ordered[i].start, late[i].start
		rules := Rules{
			Topic: t.Source, Ordered: t.Ordered, Late: t.Late, Partition: int32(i), Prefix: v.Prefix,
			EventTime: t.EventTime, SchemaID: t.SchemaID, AtLeastOnce: v.AtLeastOnce, Identity: v.Identity, Dropped: v.Dropped,
		}
		parts[i] = &verified{
			checker: NewChecker(rules, scope), scope: scope,
			raw: raw[i], ordered: ordered[i], late: late[i],
		}
		v.total += raw[i].len() + ordered[i].len() + late[i].len()
	}
	return parts, nil
}

func scopeOf(s reorder.Snapshot) Scope {
	return Scope{
		Origin: s.Origin, Committed: s.Low, Next: s.Next, Epoch: int64(s.Epoch),
		Buffered: int64(s.Count), BufferedSum: s.Sum, Releasing: s.Releasing, Frontier: s.Frontier,
	}
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
				return nil, fmt.Errorf("fetch offset of group %q, %s partition %d: a transaction holds it for more than %v, one that has not ended: %w",
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
// it. A transaction that stays open is another, and lies behind that.
func (v *verification) settle(ctx context.Context, topic string) error {
	written, err := v.adm.ListEndOffsets(ctx, topic)
	if err == nil {
		err = written.Error()
	}
	if err != nil {
		return fmt.Errorf("list end offsets of %s: %w", topic, err)
	}
	for began := time.Now(); ; {
		stable, err := v.adm.ListCommittedOffsets(ctx, topic)
		if err == nil {
			err = stable.Error()
		}
		if err != nil {
			return fmt.Errorf("list last stable offsets of %s: %w", topic, err)
		}
		behind := false
		written.Each(func(end kadm.ListedOffset) {
			at, _ := stable.Lookup(topic, end.Partition)
			behind = behind || at.Offset < end.Offset
		})
		if !behind || time.Since(began) > settleTime {
			return nil
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// stretches returns what there is to read of each partition of a topic, up to
// the last stable offset.
func (v *verification) stretches(ctx context.Context, topic string) ([]stretch, error) {
	starts, err := v.adm.ListStartOffsets(ctx, topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list first offsets of %s: %w", topic, err)
	}
	ends, err := v.adm.ListCommittedOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list last stable offsets of %s: %w", topic, err)
	}
	ss := make([]stretch, len(ends[topic]))
	for i := range ss {
		start, _ := starts.Lookup(topic, int32(i))
		end, ok := ends.Lookup(topic, int32(i))
		if !ok {
			return nil, fmt.Errorf("list last stable offsets of %s: no partition %d", topic, i)
		}
		ss[i] = stretch{topic, int32(i), start.Offset, end.Offset}
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

// read feeds the checker of one partition: of the two outputs the one that
// lags in (epoch, source offset), and before it the source up to that offset.
//
//	raw      5 6 7 8 ──┐  5 is below the lagging output's 6: feed 5, then 6,
//	.ordered 6 9 8   ──┼─ then the 6 of .ordered, then 7 and 8, then ...
//	.late    7 20    ──┘
func (v *verification) read(ctx context.Context, p *verified) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := p.checker
	raw := v.open(ctx, p.raw)
	ordered := outputHead{stream: v.open(ctx, p.ordered)}
	late := outputHead{stream: v.open(ctx, p.late), late: true}

	if p.ordered.start > 0 { // what retention left begins here
		if err := ordered.peek(c); err != nil {
			return err
		}
		ordered.feed(c)
	}
	for {
		if err := errors.Join(ordered.peek(c), late.peek(c)); err != nil {
			return err
		}
		next := lagging(&ordered, &late)
		if next == nil {
			break
		}
		if raw.at() < p.scope.Origin && next.source >= p.scope.Origin {
			raw = v.skip(ctx, raw, p.scope.Origin)
		}
		if err := feedRaw(c, raw, next.source+1); err != nil {
			return err
		}
		next.feed(c)
		if c.report.Bare > maxBare {
			return fmt.Errorf("%s partition %d: more than %d %w", p.ordered.topic, p.ordered.partition, maxBare, ErrNoIdentity)
		}
	}
	c.OutputsEnd()
	if raw.at() < p.scope.Origin {
		raw = v.skip(ctx, raw, p.scope.Origin)
	}
	err := feedRaw(c, raw, p.scope.Next)
	v.progress(max(0, raw.end-raw.next)) // nobody has read the rest
	if err == nil && c.Claims() {
		err = v.originals(ctx, p)
	}
	return err
}

// originals reads .ordered once more, for what duplicates are said to repeat.
func (v *verification) originals(ctx context.Context, p *verified) error {
	v.mu.Lock()
	v.total += p.ordered.len()
	v.mu.Unlock()
	for ordered := v.open(ctx, p.ordered); ; ordered.pop() {
		r, err := ordered.peek()
		if err != nil || r == nil {
			return err
		}
		p.checker.Original(r)
	}
}

// maxBare bounds the records without identity, which are kept to the end.
const maxBare = 1_000_000

// feedRaw feeds the source records below an offset.
func feedRaw(c *Checker, raw *stream, below int64) error {
	for {
		r, err := raw.peek()
		if err != nil || r == nil || r.Offset >= below {
			return err
		}
		raw.pop()
		c.Raw(r)
	}
}

// outputHead is the next record of an output and what it says of itself.
type outputHead struct {
	*stream
	late          bool
	rec           *kgo.Record
	epoch, source int64
}

func (h *outputHead) peek(c *Checker) (err error) {
	if h.rec != nil {
		return nil
	}
	h.rec, err = h.stream.peek()
	if h.rec != nil {
		h.epoch, h.source = c.Place(h.rec, h.late)
	}
	return err
}

func (h *outputHead) feed(c *Checker) {
	switch {
	case h.rec == nil:
		return
	case h.late:
		c.Late(h.rec)
	default:
		c.Ordered(h.rec)
	}
	h.rec = nil
	h.pop()
}

// lagging returns the output whose next record is the earlier in (epoch,
// source offset), or nil if both have ended.
func lagging(a, b *outputHead) *outputHead {
	switch {
	case a.rec == nil && b.rec == nil:
		return nil
	case b.rec == nil:
		return a
	case a.rec == nil:
		return b
	case a.epoch < b.epoch || a.epoch == b.epoch && a.source <= b.source:
		return a
	}
	return b
}

func (v *verification) progress(n int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.done += n
	if v.Progress != nil {
		v.Progress(v.done, v.total)
	}
}
