package position

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/emit/scan"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/pipeline"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Rebuilt is a position that was made from the outputs.
type Rebuilt struct {
	Snapshot reorder.Snapshot
	// Exact says that records alone have moved the watermark: what comes out from now on is
	// what would have come out without a break.
	Exact bool
	since since
}

// rebuild makes the position of a partition from its outputs.
type rebuild struct {
	*Tool
	src       emit.Source
	was       View // what is committed
	eventTime func(*kgo.Record) (watermark.Time, error)
	raw       scan.Stretch
	outs      [2]scan.Stretch
	origin    int64
	known     int32
}

func (b *rebuild) run(ctx context.Context) (Rebuilt, error) {
	o, err := b.readOutputs(ctx)
	if err != nil {
		return Rebuilt{}, err
	}
	t, err := b.retracing(o)
	if err != nil {
		return Rebuilt{}, err
	}
	if err := b.retrace(ctx, t, o); err != nil {
		return Rebuilt{}, err
	}
	if err := b.confirmRepeats(ctx, t); err != nil {
		return Rebuilt{}, err
	}
	t.trustRepeats()
	if err := t.doubt(); err != nil {
		return Rebuilt{}, err
	}
	s := t.snapshot(b.known)
	since, err := b.sinceWhen(t, &s)
	if err != nil {
		return Rebuilt{}, err
	}
	if s.Settled, err = b.settled(ctx, t, &s); err != nil {
		return Rebuilt{}, err
	}
	if err := b.check(ctx, t, &s); err != nil {
		return Rebuilt{}, err
	}
	exact := since != fromBelow && since != fromHere && (len(t.run) == 0 || t.exact())
	return Rebuilt{s, exact, since}, nil
}

func (b *rebuild) readOutputs(ctx context.Context) (*outputs, error) {
	o := newOutputs(b.src, b.Config.HeaderPrefix, newTimes(func(r *kgo.Record) (watermark.Time, error) { return b.eventTime(b.asSource(r)) }, b.Config.OutputHeaders()))
	for which, s := range b.outs {
		for r, err := range scan.Read(ctx, b.Client, s) {
			if err == nil {
				err = o.add(which, r)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	o.orderedGone, o.lateGone = b.outs[ordered].Start > 0, b.outs[late].Start > 0
	return o, nil
}

// retracing returns what retraces the last reading of the source.
func (b *rebuild) retracing(o *outputs) (*retracing, error) {
	run, first := o.generation()
	if b.origin < 0 && b.was.Readable && b.was.SameTopic() && len(run) > 0 && run[len(run)-1].epoch == b.was.Snapshot.Epoch {
		b.origin = b.was.Snapshot.Origin // the commit is of the epoch that came out last
	}
	if b.origin < 0 {
		switch {
		case !first && run[0].from > b.raw.Start:
			return nil, notKnown("a new epoch began at an offset that nothing says, at %d or before: %w", run[0].from, errNoOrigin)
		case b.Config.Start.Kind != config.StartEarliest:
			return nil, notKnown("TIDEMARK_START is not earliest, and nothing says where the group began: %w", errNoOrigin)
		}
		b.origin = 0 // it read all there was, of which retention may have taken the beginning
	}
	t := &retracing{
		origin: b.origin, highest: -1, repeats: b.Config.Dedup.On(), dropped: b.Config.Duplicates == config.DropDuplicates && b.Config.Dedup.On(),
		skew: b.Config.MaxFuture, wall: watermark.Time(b.WallClock().UnixNano()),
	}
	t.later = !first
	for _, s := range run {
		if s.to >= b.origin { // else it was before
			t.run = append(t.run, s)
			t.highest = max(t.highest, s.to)
		}
	}
	if len(t.run) == 0 {
		if o.orderedGone || o.lateGone {
			return nil, notKnown("retention has taken all that came out")
		}
		if len(run) > 0 {
			t.epoch, t.later = run[len(run)-1].epoch+1, true // what came out before the origin has an order of its own
		}
		t.origin = max(t.origin, b.raw.Start) // nothing has come out: it begins
		t.begin(b.Config.Laws())
		return t, nil
	}
	t.epoch, t.now = t.run[0].epoch, t.run[len(t.run)-1]
	t.gone = gone{ordered: o.orderedGone, late: o.lateGone, below: math.MaxInt64}
	if o.any[late] {
		t.gone.below = o.firstLate
	}
	if o.orderedGone {
		s := t.now
		for i := len(t.run) - 1; i >= 0; i-- {
			if t.run[i].first != nil {
				s = t.run[i]
			}
		}
		if s.first == nil {
			return nil, notKnown("retention has taken all of %s that came out in epoch %d", b.src.Ordered, t.now.epoch)
		}
		at, err := b.eventTime(b.asSource(s.first))
		if err != nil {
			return nil, notKnown("the first record left of %s has no event time: %w", b.src.Ordered, err)
		}
		t.gone.before, t.gone.first = reorder.Position{Time: at, Offset: s.first.Offset}, s.epoch
	}
	if t.now.last != nil {
		at, err := b.eventTime(b.asSource(t.now.last))
		if err != nil {
			return nil, notKnown("source offset %d came out in order and has no event time by TIDEMARK_EVENT_TIME as it is now: %w", t.now.last.Offset, err)
		}
		t.last, t.any = reorder.Position{Time: at, Offset: t.now.last.Offset}, true
	}
	if t.highest >= b.raw.End {
		return nil, notKnown("source offset %d came out, but %s ends at %d: the outputs belong to another topic of this name, or to another cluster", t.highest, b.src.Topic, b.raw.End)
	}
	t.begin(b.Config.Laws())
	return t, nil
}

// asSource gives a record of an output the place that it has in the source.
func (b *rebuild) asSource(r *kgo.Record) *kgo.Record {
	r.Topic, r.Partition = b.src.Topic, b.src.Partition
	return r
}

// source yields the records of the source from an offset on, and its end.
func (b *rebuild) source(ctx context.Context, from, to int64, do func(*kgo.Record, sourceRecord) (more bool, err error)) error {
	s := b.raw
	s.Start, s.End = max(s.Start, from), min(s.End, to)
	for r, err := range scan.Read(ctx, b.Client, s) {
		if err != nil {
			return err
		}
		if r.Attrs.IsControl() {
			continue
		}
		more, err := do(r, b.judged(r))
		if err != nil || !more {
			return err
		}
	}
	return nil
}

var idSeed = maphash.MakeSeed()

// judged finds what a record is judged by.
func (b *rebuild) judged(r *kgo.Record) sourceRecord {
	t, err := b.eventTime(r)
	in := sourceRecord{
		Offset: r.Offset, LeaderEpoch: r.LeaderEpoch, Time: t, Invalid: err != nil, Outside: errors.Is(err, timestamp.ErrUnknownSchema),
		Previous: errors.Is(err, timestamp.ErrPrevious), Stamp: watermark.Max, Marker: watermark.None,
	}
	if stamp, ok := watermark.FromMillis(r.Timestamp.UnixMilli()); ok {
		in.Stamp = stamp
	}
	if b.Config.Watermark == config.Punctuated {
		if w, present, err := b.Config.WatermarkHeader.Time(r); present && err == nil {
			in.Marker = w
		}
	}
	if b.Config.Dedup.On() {
		if id := b.Config.Dedup.Identity.OfRecord(r); len(id) > 0 {
			in.ID = maphash.Bytes(idSeed, id) | 1
		}
	}
	return in
}

func (b *rebuild) retrace(ctx context.Context, t *retracing, o *outputs) error {
	if t.done {
		return nil
	}
	err := b.source(ctx, t.origin, math.MaxInt64, func(r *kgo.Record, in sourceRecord) (bool, error) {
		if isOther(r, t.now.last) || isOther(r, t.now.lastLate) || t.any && r.Offset == t.last.Offset && (in.Time != t.last.Time || in.Invalid) {
			return false, notKnown("source offset %d is not the record that came out as it: the outputs belong to another topic of this name, or to another cluster", r.Offset)
		}
		err := t.step(in)
		return !t.done, err
	})
	if err == nil && !t.done {
		t.finish()
	}
	return err
}

// isOther reports whether r has the offset of a record that came out, and is not that one.
func isOther(r, out *kgo.Record) bool {
	return out != nil && r.Offset == out.Offset && !(bytes.Equal(r.Key, out.Key) && bytes.Equal(r.Value, out.Value))
}

// confirmRepeats sees that what is in no output, and has to be a repeat that was dropped,
// repeats an ordered record.
func (b *rebuild) confirmRepeats(ctx context.Context, t *retracing) error {
	type known struct {
		at watermark.Time
		id uint64
	}
	wanted, highest := map[known][]int64{}, int64(-1)
	for _, r := range t.repeated {
		if r.Offset >= t.end {
			continue
		}
		k := known{r.Time, r.id}
		wanted[k], highest = append(wanted[k], r.Offset), r.Offset
	}
	if len(wanted) == 0 {
		return nil
	}
	err := b.source(ctx, t.origin, highest, func(r *kgo.Record, in sourceRecord) (bool, error) {
		if !in.Invalid && t.inOrder(in.Offset) {
			delete(wanted, known{in.Time, in.ID}) // it comes before its repeats
		}
		return len(wanted) > 0, nil
	})
	if err != nil {
		return err
	}
	for _, at := range wanted {
		if at[0] > t.highest {
			t.giveUp() // it has not been read
			continue
		}
		return notKnown("source offset %d is in neither output, what came out later is behind it, and it repeats nothing: the group began after it (say where with --origin), or it was lost", at[0])
	}
	return nil
}

// settled returns the spans of what a recovery has to be told of.
func (b *rebuild) settled(ctx context.Context, t *retracing, s *reorder.Snapshot) ([]reorder.Span, error) {
	g := settling{t: t, s: s, held: -1}
	err := b.source(ctx, s.Low, s.Next, func(_ *kgo.Record, in sourceRecord) (bool, error) { return true, g.step(&in) })
	return g.spans, err
}

// check recovers from the position as a sidecar does, and sees that it holds just what is in
// neither output.
func (b *rebuild) check(ctx context.Context, t *retracing, s *reorder.Snapshot) error {
	laws := b.Config.Laws()
	p := reorder.NewEngine(laws, math.MaxInt64).Assign(*s, 0)
	err := b.source(ctx, s.Low, s.Next, func(r *kgo.Record, in sourceRecord) (bool, error) {
		size := 0
		if laws.Identity != nil {
			size = emit.BodySize(r)
		}
		again := reorder.Record{Offset: in.Offset, LeaderEpoch: in.LeaderEpoch, Time: in.Time, Invalid: in.Invalid && !in.Previous, Previous: in.Previous, Size: size}
		if laws.Previous {
			again.Key = pipeline.HashKey(r.Key)
		}
		v, body := p.Step(again, 0)
		if size > 0 && (v == reorder.OnTime || v == reorder.Remembered) {
			emit.PutBody(body, r)
		}
		if held := v == reorder.OnTime; held && t.out(in.Offset) {
			return false, notKnown("a recovery would put out source offset %d again", in.Offset)
		}
		return true, nil
	})
	if err != nil || s.Low == s.Next {
		return err
	}
	if loss := p.EndReplay(math.MaxInt64, false); loss != nil {
		return notKnown("a recovery would not find what is held: %w", loss)
	}
	return nil
}

// describe says in words what a rebuilt position is.
func (r Rebuilt) describe() string {
	times := ""
	switch r.since {
	case nothingBelies:
		times = "judged by TIDEMARK_EVENT_TIME as it is now, which nothing that came out contradicts; "
	case fromBelow:
		times = fmt.Sprintf("what came out of source offsets below %d had other event times; everything else is judged by TIDEMARK_EVENT_TIME as it is now; ", r.Snapshot.TimesFrom)
	case fromHere:
		times = "the position was written with another TIDEMARK_EVENT_TIME; what is held is judged by the present one, which nothing that came out contradicts; "
	}
	if r.Exact {
		return times + "what comes out next is what would have come out without the break"
	}
	return times + "the wall clock, memory or other settings have moved the watermark too, so it is taken from the headers; no record is lost or comes twice, and what is late from here on may differ from a run without the break"
}
