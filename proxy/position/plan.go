package position

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/emit/scan"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/reorder"
)

// Plan is what would be changed. Nothing has been, until Apply.
type Plan struct {
	Verb  string // restore, rebuild, new-epoch
	Steps []Step

	before commits // what was committed when it was made,
	ends   map[string]map[int32]bounds
	of     []emit.Source
}

// Step is a partition that gets another position.
type Step struct {
	emit.Source
	Was      View
	Snapshot reorder.Snapshot
	Commit   group.Commit
	Note     string // what follows from it; may be empty
}

// begin looks at what there is: the group is at rest, and nothing is open.
func (t *Tool) begin(ctx context.Context, verb string, of Partitions) (*Plan, error) {
	if err := t.atRest(ctx); err != nil {
		return nil, err
	}
	p := &Plan{Verb: verb, of: t.sources(of)}
	if r := t.admin().RivalOf(ctx, p.of...); r != nil { // this is not the group that these outputs are of
		return nil, r.Refuse(fault.CommandsFor(t.Config))
	}
	var err error
	if p.before, err = t.fetch(ctx, true); err != nil {
		return nil, err
	}
	if err := t.settle(ctx, p.of); err != nil {
		return nil, err
	}
	if outputs := t.outputsOf(); len(outputs) > 0 {
		if p.ends, err = t.listed(ctx, outputs...); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (t *Tool) add(p *Plan, src emit.Source, s reorder.Snapshot, c group.Commit, note string) {
	p.Steps = append(p.Steps, Step{Source: src, Was: t.view(src, p.before[src.Topic][src.Partition]), Snapshot: s, Commit: c, Note: note})
}

// commitOf returns what is committed for a snapshot.
func (t *Tool) commitOf(src emit.Source, s *reorder.Snapshot) group.Commit {
	return group.Commit{Offset: s.Low, LeaderEpoch: s.LowEpoch, Metadata: s.Encode(t.scope(src.Topic, src.Partition))}
}

// commitAtOnce is how many partitions are committed in one request: brokers keep them in one
// batch.
const commitAtOnce = 1000

// Apply commits what was planned, unless something has changed since.
func (t *Tool) Apply(ctx context.Context, p *Plan) error {
	if err := t.atRest(ctx); err != nil {
		return err
	}
	now, err := t.begin(ctx, p.Verb, Partitions{})
	if err != nil {
		return err
	}
	for _, s := range p.Steps {
		n := s.Partition
		if now.before[s.Topic][n] != p.before[s.Topic][n] || now.ends[s.Ordered][n] != p.ends[s.Ordered][n] || now.ends[s.Late][n] != p.ends[s.Late][n] {
			return fault.Usage(fmt.Errorf("%s %s partition %d: the group or its outputs have changed since the plan was made", p.Verb, s.Topic, n), "plan again, while nothing works in this group")
		}
	}
	for steps := range slices.Chunk(p.Steps, commitAtOnce) {
		if err := t.commit(ctx, steps); err != nil {
			return err
		}
	}
	return nil
}

// Which says which partitions get another position.
type Which struct {
	All  bool       // all of them
	Only Partitions // these; nil: those that a sidecar does not go on from
}

// choose returns the partitions, of those that have outputs.
func (t *Tool) choose(ctx context.Context, w Which) (Partitions, error) {
	for topic, ps := range w.Only {
		for _, n := range ps {
			if at, ok := t.topics[topic]; !ok || n < 0 || n >= at.Partitions {
				return nil, fault.Usage(fmt.Errorf("%s has no partition %d", topic, n), "")
			}
		}
	}
	switch {
	case w.Only != nil:
		return w.Only, nil
	case w.All:
		return t.every(), nil
	}
	all, err := t.fetch(ctx, true)
	if err != nil {
		return nil, err
	}
	of := Partitions{}
	for _, src := range t.sources(t.every()) {
		if v := t.view(src, all[src.Topic][src.Partition]); v.Err != nil {
			of[src.Topic] = append(of[src.Topic], src.Partition)
		}
	}
	return of, nil
}

// PlanRebuild plans positions that are made from the outputs. origin is where the group
// began; -1: at the beginning of the source, or the outputs say.
func (t *Tool) PlanRebuild(ctx context.Context, w Which, origin int64) (*Plan, error) {
	const otherwise = "begin a new epoch: `tidemark position new-epoch`"
	if t.Config.Delivery == config.AtLeastOnce {
		return nil, fault.Usage(errors.New("rebuild the position: with TIDEMARK_DELIVERY=at-least-once the outputs may hold records twice, and do not say which of two runs went on"), otherwise)
	}
	if !t.Config.Headers.SourceOffset {
		return nil, fault.Usage(errors.New("rebuild the position: TIDEMARK_HEADERS has no source-offset, without which the outputs do not say what came out"), otherwise)
	}
	of, err := t.choose(ctx, w)
	if err != nil {
		return nil, err
	}
	plan, err := t.begin(ctx, "rebuild", of)
	if err != nil {
		return nil, err
	}
	sources, err := t.listed(ctx, t.Config.Topics...)
	if err != nil {
		return nil, err
	}
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	eventTime, done, err := config.EventTimes(ctx, t.Config, giveUp)
	if err != nil {
		return nil, err
	}
	defer done()
	for _, src := range plan.of {
		was := t.view(src, plan.before[src.Topic][src.Partition])
		if errors.Is(was.Err, reorder.ErrRecreated) {
			return nil, fault.Usage(fmt.Errorf("rebuild %s partition %d: %w, which is what the outputs belong to", src.Topic, src.Partition, was.Err), "go on with the topic of now, in a new epoch: `tidemark position new-epoch --from earliest`")
		}
		b := &rebuild{Tool: t, src: src, was: was, eventTime: eventTime, origin: origin, known: t.topics[src.Topic].Partitions}
		stretch := func(topic string, at bounds) scan.Stretch {
			return scan.Stretch{Topic: topic, Partition: src.Partition, Start: at.start, End: at.end}
		}
		b.raw = stretch(src.Topic, sources[src.Topic][src.Partition])
		b.outs = [2]scan.Stretch{stretch(src.Ordered, plan.ends[src.Ordered][src.Partition]), stretch(src.Late, plan.ends[src.Late][src.Partition])}
		made, err := b.run(ctx)
		otherwise := otherwise
		if b.was.Commit.Offset < 0 {
			otherwise = "begin a new epoch, at the beginning or elsewhere: `tidemark position new-epoch --from earliest`"
		}
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, errOtherTimes):
			return nil, fault.Usage(fmt.Errorf("rebuild %s partition %d: %w", src.Topic, src.Partition, err),
				"set the TIDEMARK_EVENT_TIME of then; or, if that was wrong, begin a new epoch, in which what is held is judged by the present one: `tidemark position new-epoch`")
		case errors.Is(err, errNoOrigin):
			return nil, fault.Usage(fmt.Errorf("rebuild %s partition %d: %w", src.Topic, src.Partition, err),
				fmt.Sprintf("the log said it when the group began (`begins`), and the plan when it was a new epoch: `tidemark position rebuild --partition %s/%d --origin N`, each partition with its own; else %s", src.Topic, src.Partition, otherwise))
		case errors.Is(err, ErrNotKnown):
			return nil, fault.Usage(fmt.Errorf("rebuild %s partition %d: %w", src.Topic, src.Partition, err), otherwise)
		case err != nil:
			return nil, fmt.Errorf("rebuild %s partition %d: %w", src.Topic, src.Partition, err)
		}
		t.add(plan, src, made.Snapshot, t.commitOf(src, &made.Snapshot), made.describe())
	}
	return plan, nil
}

// From says where a new epoch begins.
type From struct {
	Start  config.Start // of StartEarliest, StartLatest and StartTime
	Offset int64        // at this offset, if it is not negative
	// Committed says: at the offset that is committed, the first that is still owed.
	Committed bool
}

// PlanNewEpoch plans that partitions begin anew, in a new epoch.
func (t *Tool) PlanNewEpoch(ctx context.Context, w Which, from From) (*Plan, error) {
	of, err := t.choose(ctx, w)
	if err != nil {
		return nil, err
	}
	plan, err := t.begin(ctx, "new-epoch", of)
	if err != nil {
		return nil, err
	}
	sources, err := t.listed(ctx, t.Config.Topics...)
	if err != nil {
		return nil, err
	}
	loader := t.loader()
	for _, src := range plan.of {
		was := t.view(src, plan.before[src.Topic][src.Partition])
		at, err := t.begins(ctx, src, was, from, sources[src.Topic][src.Partition])
		if err != nil {
			return nil, err
		}
		before := uint32(0)
		if was.Readable {
			before = was.Snapshot.Epoch
		}
		epoch, err := loader.EpochAfter(ctx, src, was.Readable, before)
		if err != nil {
			return nil, fmt.Errorf("find the number of a new epoch of %s partition %d: %w", src.Topic, src.Partition, err)
		}
		s := reorder.FreshAfter(t.timesKnown(&was), at, -1, epoch)
		s.Known = t.topics[src.Topic].Partitions
		t.add(plan, src, s, t.commitOf(src, &s), effect(&was, at))
	}
	return plan, nil
}

// timesKnown returns a position if it says from where on event times are made as now.
func (t *Tool) timesKnown(v *View) *reorder.Snapshot {
	if !v.Readable || v.Earlier {
		return nil
	}
	return reorder.TimesKnown(v.Commit.Metadata, &v.Snapshot, v.Err, t.scope(v.Topic, v.Partition))
}

// begins returns the offset at which a partition begins.
func (t *Tool) begins(ctx context.Context, src emit.Source, was View, from From, source bounds) (int64, error) {
	at := int64(-1)
	switch {
	case from.Offset >= 0:
		at = from.Offset
	case from.Committed:
		if at = was.Commit.Offset; at < 0 || errors.Is(was.Err, reorder.ErrRecreated) {
			return 0, fault.Usage(fmt.Errorf("begin a new epoch of %s partition %d: nothing is committed for it", src.Topic, src.Partition), "say where it begins: --from earliest, latest, an offset or a time")
		}
	case from.Start.Kind == config.StartEarliest:
		return source.start, nil
	case from.Start.Kind == config.StartLatest:
		return source.end, nil
	default:
		found, err := t.adm.ListOffsetsAfterMilli(ctx, from.Start.Time.Millis(), src.Topic)
		if err == nil {
			err = found.Error()
		}
		if err != nil {
			return 0, fmt.Errorf("find where %s partition %d has that time: %w", src.Topic, src.Partition, err)
		}
		o, _ := found.Lookup(src.Topic, src.Partition)
		return min(o.Offset, source.end), nil
	}
	if at < source.start || at > source.end {
		return 0, fault.Usage(fmt.Errorf("begin a new epoch of %s partition %d: offset %d is not between its first, %d, and its end, %d", src.Topic, src.Partition, at, source.start, source.end),
			"say where it begins: --from earliest, latest, an offset or a time")
	}
	return at, nil
}

// effect says what a beginning means for what is held and for what has come out.
func effect(was *View, at int64) string {
	if !was.Readable || errors.Is(was.Err, reorder.ErrRecreated) {
		return fmt.Sprintf("what the outputs hold from source offset %d on comes out a second time; what is below it and has not come out never will", at)
	}
	s := &was.Snapshot
	switch {
	case at > s.Low && s.Count > 0:
		return fmt.Sprintf("of the %d records that are held, those below offset %d never come out", s.Count, at)
	case at < s.Next && s.Count == 0:
		return fmt.Sprintf("what has come out of offsets %d to %d comes out a second time", at, s.Next-1)
	case at < s.Next:
		return fmt.Sprintf("the %d records that are held are judged anew; what else has come out of offsets %d to %d comes out a second time", s.Count, at, s.Next-1)
	}
	return ""
}
