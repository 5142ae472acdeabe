package pipeline

import (
	"context"
	"errors"
	"math"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Kind is what an Outcome asks for.
type Kind int

// The kinds of outcome. After each but Done, Seek and Fail, and unless the partition was
// suspended, the caller goes on with Continue or Release.
const (
	Done       Kind = iota // nothing more is due
	Write                  // the record is to be written
	Dropped                // a duplicate was released, and goes to no output
	Checkpoint             // what there is has to be committed first
	Halt                   // the partition may have to be suspended before the offset: see Gate
	Suspend                // it has to be suspended until a schema is known
	Seek                   // it has to be read from its position, which is another one now
	Fail                   // the session ends
)

// Outcome is what the path of a record has come to.
type Outcome struct {
	Kind   Kind
	Record *kgo.Record // to be written
	Offset int64       // of the source record that it is about
	Held   bool        // that was in the buffer
	Schema Wanted      // of Suspend
	Err    error       // of Fail
}

// stage is how far the record under way has come.
type stage int

const (
	atRest   stage = iota
	arriving       // a replay may have to end before it
	waiting        // to be judged
	flushed        // a new epoch begins: everything of the one before was released first
	judged         // a replay may have to end behind it
	seeking        // records were lost: reading goes on elsewhere
)

// judging is a record whose verdict had to wait for the end of an epoch.
type judging struct {
	in      reorder.Record
	invalid error
	first   bool
}

// Process takes the next record of the partition. A record below its position is not to be
// given. The record belongs to the pipeline from here on.
func (p *Partition) Process(ctx context.Context, r *kgo.Record) Outcome {
	p.record, p.stage = r, arriving
	return p.Continue(ctx)
}

// Continue goes on with the record under way, once what the last Outcome asked for is done.
//
//	arriving -> waiting -> judged -> at rest
//	               \-> flushed -/
//
// Between two stages everything that is due is released.
func (p *Partition) Continue(ctx context.Context) Outcome {
	for {
		if p.releasing {
			if o := p.Release(); o.Kind != Done {
				return o
			}
			p.releasing = false
		}
		switch p.stage {
		case atRest:
			return Outcome{}
		case seeking:
			p.stage = atRest
			return Outcome{Kind: Seek}
		case arriving:
			p.stage = waiting
			if o := p.endReplayAt(p.record.Offset); o.Kind != Done {
				return o
			}
		case waiting:
			if o := p.judge(ctx); o.Kind != Done {
				return o
			}
		case flushed:
			if o := p.judgeInNewEpoch(); o.Kind != Done {
				return o
			}
		case judged:
			p.stage, p.releasing = atRest, true
			if o := p.endReplayAt(p.State.Position()); o.Kind != Done {
				return o
			}
		}
	}
}

// endReplayAt ends the replay once reading has come to position.
func (p *Partition) endReplayAt(position int64) Outcome {
	if end, replaying := p.State.Replaying(); !replaying || position < end {
		return Outcome{}
	}
	lost, err := p.EndReplay(math.MaxInt64)
	if err != nil {
		return Outcome{Kind: Fail, Err: err}
	}
	if p.releasing = true; lost {
		p.stage = seeking
	}
	return Outcome{}
}

// judge has the record judged, and holds it or makes a late record of it.
func (p *Partition) judge(ctx context.Context) Outcome {
	r, l := p.record, p.line
	if r.Attrs.IsControl() {
		p.State.Skip(r.Offset+1, r.LeaderEpoch)
		r.Recycle()
		p.stage = judged
		return Outcome{}
	}
	if p.halts(false, r.Offset) {
		return Outcome{Kind: Halt, Offset: r.Offset}
	}
	if l.timestamps && !p.arrivals && timestamp.IsArrival(r) {
		if err := p.onArrivalTime(r); err != nil {
			return Outcome{Kind: Fail, Err: err}
		}
	}
	t, o, invalid := p.eventTime(ctx, r)
	if o.Kind != Done || p.releasing {
		return o // the schema is not known, or there has to be room to remember that
	}
	in := reorder.Record{
		Offset: r.Offset, LeaderEpoch: r.LeaderEpoch, Time: t, Size: emit.BodySize(r),
		Invalid: invalid != nil, Outside: errors.Is(invalid, timestamp.ErrUnknownSchema),
	}
	first, newest := in.Offset >= p.State.NextOffset(), p.State.Newest()
	verdict, body := p.State.Step(in, l.wall)
	if p.Clocks.Due() && !in.Invalid && verdict != reorder.Settled {
		p.gatherClock(r, t)
	}
	if verdict == reorder.Flush {
		p.judging = judging{in, invalid, first}
		p.stage, p.releasing = flushed, true
		return Outcome{}
	}
	return p.conclude(&judging{in, invalid, first}, newest, verdict, body)
}

// judgeInNewEpoch has a record judged again, once the epoch before it is released.
func (p *Partition) judgeInNewEpoch() Outcome {
	p.line.Reporter.Logger.Warn("event time jumped back; a new epoch begins", "topic", p.Topic, "partition", p.Partition,
		"offset", p.record.Offset, "epoch", p.State.Epoch()+1)
	verdict, body := p.State.Step(p.judging.in, p.line.wall)
	return p.conclude(&p.judging, watermark.None, verdict, body)
}

// conclude does with a record what its verdict says.
func (p *Partition) conclude(j *judging, newest watermark.Time, verdict reorder.Verdict, body []byte) Outcome {
	r, l, t := p.record, p.line, j.in.Time
	p.stage = judged
	if j.first {
		p.Ledger.Judged(newest, t, verdict)
	}
	w := p.State.Watermark()
	if l.Config.Watermark == config.Punctuated {
		p.mark(r)
	}
	switch verdict {
	case reorder.OnTime, reorder.Remembered:
		emit.PutBody(body, r)
		r.Recycle()
		return Outcome{}
	case reorder.Settled:
		r.Recycle()
		return Outcome{}
	}
	why := emit.Lateness{Verdict: verdict, Time: t, Watermark: w, Epoch: p.State.Epoch(), AtMs: l.wall.Millis()}
	if verdict == reorder.InvalidTime {
		l.Invalid.Times.add(r, j.invalid)
		why.Schema, why.SchemaID = schemaOf(j.invalid)
	}
	if l.released.repeats(p, verdict, t, r) {
		why.Verdict = reorder.Duplicate
	}
	p.Ledger.Pending.Late[why.Verdict]++
	late := l.Outbox().Late(p.Source, r, why)
	r.Recycle()
	return Outcome{Kind: Write, Record: late, Offset: j.in.Offset}
}

// halts reports whether the partition may have to be suspended before a record.
func (p *Partition) halts(held bool, offset int64) bool {
	return p.Gate != nil && p.Gate.MayHalt() && p.Gate.HaltsAt(held, offset)
}

// Release returns the next record that has come due; Done: there is none. It is called after
// whatever happens to a partition. Without transactions it asks for a checkpoint first, also
// when nothing is due, if what is decided now might be decided otherwise after a crash: see
// reorder.Partition.CommitFirst.
func (p *Partition) Release() Outcome {
	if l := p.line; !l.Atomic && !p.passed && p.State.CommitFirst() {
		p.passed = true
		return Outcome{Kind: Checkpoint}
	}
	p.passed = false
	if p.Gate != nil && p.Gate.MayHalt() {
		if at, due := p.State.Peek(); due && p.Gate.HaltsAt(true, at.Offset) {
			p.passed = true // that was asked for before
			return Outcome{Kind: Halt, Offset: at.Offset, Held: true}
		}
	}
	if !p.State.Next(&p.due) {
		return Outcome{}
	}
	return p.release(&p.due)
}

// release returns where a released record goes.
func (p *Partition) release(due *reorder.Release) Outcome {
	l := p.line
	o := Outcome{Kind: Write, Offset: due.Offset, Held: true}
	switch {
	case !due.Duplicate:
		l.released.add(p, due)
		p.Ledger.Pending.Ordered++
		l.Latency.Released()
		o.Record = l.Outbox().Ordered(p.Source, due)
	case l.Config.Duplicates == config.DropDuplicates:
		p.Dropped++
		p.Ledger.Pending.Dropped++
		o.Kind = Dropped
	default:
		p.Ledger.Pending.Late[reorder.Duplicate]++
		o.Record = l.Outbox().Duplicate(p.Source, due, p.State.Watermark(), l.wall.Millis())
	}
	return o
}
