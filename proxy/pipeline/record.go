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

// Kind is what the path of a record asks the caller to do; Partition.Asked has the rest.
type Kind int

// The kinds of outcome. After any but Done, Seek and Fail, the caller goes on with Continue
// or Release, unless it has suspended the partition.
const (
	Done       Kind = iota // nothing more is due
	Write                  // write the record
	Dropped                // a duplicate was released, and goes to no output
	Checkpoint             // commit first
	Halt                   // the partition may have to be suspended before the offset: see Gate
	Suspend                // suspend the partition until a schema is known
	Seek                   // seek to the partition's position, which has changed
	Fail                   // the session ends
)

// Outcome is what a Kind is about.
type Outcome struct {
	Record *kgo.Record // to be written
	Offset int64       // of the source record
	Held   bool        // the record was in the buffer
	Schema *Wanted     // of Suspend
	Err    error       // of Fail
}

// stage is how far the record under way has come.
type stage int

const (
	atRest      stage = iota
	arriving          // a replay may have to end before it
	waiting           // to be judged
	remembering       // room has to be made to remember that its schema is unknown
	flushed           // a new epoch begins: everything of the last one is released first
	judged            // a replay may have to end behind it
	seeking           // records were lost: reading continues at another position
)

// judging is a record whose verdict had to wait for a release.
type judging struct {
	in      reorder.Record
	invalid error
	first   bool
}

// Process processes the next record of the partition, which must not be below its position.
// The pipeline owns the record from here on.
func (p *Partition) Process(ctx context.Context, r *kgo.Record) Kind {
	p.record, p.stage = r, arriving
	return p.Continue(ctx)
}

// Continue continues with the record under way, after the caller has done what the last
// Kind asked for.
//
//	arriving -> waiting -> judged -> at rest
//	               \-> flushed -/
//
// Between two stages everything that is due is released.
func (p *Partition) Continue(ctx context.Context) Kind {
	for {
		if p.releasing {
			if k := p.Release(); k != Done {
				return k
			}
			p.releasing = false
		}
		switch p.stage {
		case atRest:
			p.record = nil // or it would keep its batch in memory
			return Done
		case seeking:
			p.record, p.stage = nil, atRest
			return Seek
		case arriving:
			p.stage = waiting
			if err := p.endReplayAt(p.record.Offset); err != nil {
				return p.fail(err)
			}
		case waiting:
			if k := p.judge(ctx); k != Done {
				return k
			}
		case remembering:
			if k := p.rememberUnknown(); k != Done {
				return k
			}
		case flushed:
			if k := p.judgeInNewEpoch(); k != Done {
				return k
			}
		case judged:
			p.stage, p.releasing = atRest, true
			if err := p.endReplayAt(p.State.Position()); err != nil {
				return p.fail(err)
			}
		}
	}
}

// fail has the session end.
func (p *Partition) fail(err error) Kind {
	p.Asked = Outcome{Err: err}
	return Fail
}

// endReplayAt ends the replay if position has reached its end.
func (p *Partition) endReplayAt(position int64) error {
	if end, replaying := p.State.Replaying(); !replaying || position < end {
		return nil
	}
	lost, err := p.EndReplay(math.MaxInt64)
	if err != nil {
		return err
	}
	if p.releasing = true; lost {
		p.stage = seeking
	}
	return nil
}

// judge gives the record its verdict, and holds it or makes a late record of it.
func (p *Partition) judge(ctx context.Context) Kind {
	r, l := p.record, p.line
	if r.Attrs.IsControl() {
		p.State.Skip(r.Offset+1, r.LeaderEpoch)
		r.Recycle()
		p.stage = judged
		return Done
	}
	if p.halts(false, r.Offset) {
		p.Asked = Outcome{Offset: r.Offset}
		return Halt
	}
	if l.timestamps && !p.arrivals && timestamp.IsArrival(r) {
		if err := p.onArrivalTime(r); err != nil {
			return p.fail(err)
		}
	}
	if l.Schemas != nil {
		return p.judgeBySchema(ctx)
	}
	t, source, invalid := l.Extract.ExtractFrom(r)
	p.source = source
	return p.step(t, invalid)
}

// step judges a record whose event time, or why it has none, is known.
func (p *Partition) step(t watermark.Time, invalid error) Kind {
	r, l := p.record, p.line
	in := reorder.Record{
		Offset: r.Offset, LeaderEpoch: r.LeaderEpoch, Time: t, Size: emit.BodySize(r),
		Invalid: invalid != nil, Outside: errors.Is(invalid, timestamp.ErrUnknownSchema),
	}
	if l.previous {
		in.Key, in.Previous = l.hashKey(r.Key), errors.Is(invalid, timestamp.ErrPrevious)
		in.Invalid = in.Invalid && !in.Previous
	}
	first, newest := in.Offset >= p.State.NextOffset(), p.State.Newest()
	p.before = p.State.Watermark()
	verdict, body := p.State.Step(in, l.wall)
	if due := p.Clocks.Due(); (due || p.Ledger.Fitting.Early()) && invalid == nil && verdict != reorder.Settled {
		p.gatherClock(r, t, due)
	}
	if verdict == reorder.Flush {
		p.judging = judging{in, invalid, first}
		p.stage, p.releasing = flushed, true
		return Done
	}
	return p.conclude(&judging{in, invalid, first}, newest, verdict, body)
}

// judgeInNewEpoch judges a record again, after the epoch before it is released.
func (p *Partition) judgeInNewEpoch() Kind {
	p.reportEpoch(p.record)
	j := p.judging
	p.judging = judging{}
	p.before = p.State.Watermark()
	verdict, body := p.State.Step(j.in, p.line.wall)
	return p.conclude(&j, watermark.None, verdict, body)
}

// conclude carries out the verdict on a record.
func (p *Partition) conclude(j *judging, newest watermark.Time, verdict reorder.Verdict, body []byte) Kind {
	r, l, t := p.record, p.line, j.in.Time
	p.stage = judged
	switch {
	case !j.first:
	case j.in.Previous:
		p.Ledger.JudgedUntimed(verdict)
	default:
		p.Ledger.Judged(newest, t, verdict)
		p.watchLeap(newest, t, r.Offset, verdict)
	}
	if j.first {
		p.countSource(r)
	}
	w := p.before // judged by it; the record may have moved it since
	if l.Config.Watermark == config.Punctuated {
		p.mark(r)
	}
	switch verdict {
	case reorder.OnTime, reorder.Remembered:
		emit.PutBody(body, r)
		r.Recycle()
		return Done
	case reorder.Settled:
		r.Recycle()
		return Done
	}
	why := emit.Lateness{Verdict: verdict, Time: t, Watermark: w, Epoch: p.State.Epoch(), AtMs: l.wall.Millis()}
	if verdict == reorder.InvalidTime {
		p.countInvalid(r, j.invalid)
		why.Schema, why.SchemaID = schemaOf(j.invalid)
	}
	if l.released.repeats(p, verdict, t, r) {
		why.Verdict = reorder.Duplicate
	}
	p.Ledger.Late(why.Verdict, j.in.Offset, off(why.Verdict, t, w, l.wall))
	late := l.Outbox().Late(p.Source, r, why)
	r.Recycle()
	p.Asked = Outcome{Record: late, Offset: j.in.Offset}
	return Write
}

// halts reports whether the partition may have to be suspended before a record.
func (p *Partition) halts(held bool, offset int64) bool {
	return p.Gate != nil && p.Gate.MayHalt() && p.Gate.HaltsAt(held, offset)
}

// Release returns the next record that is due; Done: there is none. The caller calls it after
// anything that happens to a partition. Without transactions it asks for a checkpoint first,
// even if nothing is due, when a decision might come out differently after a crash: see
// reorder.Partition.CommitFirst.
func (p *Partition) Release() Kind {
	if l := p.line; !l.Atomic && !p.passed && p.State.CommitFirst() {
		p.passed = true
		return Checkpoint
	}
	p.passed = false
	if p.Gate != nil && p.Gate.MayHalt() {
		if at, due := p.State.Peek(); due && p.Gate.HaltsAt(true, at.Offset) {
			p.passed = true // do not ask for that checkpoint again
			p.Asked = Outcome{Offset: at.Offset, Held: true}
			return Halt
		}
	}
	if !p.State.Next(&p.due) {
		p.due.Body = nil // or it would keep its chunk in memory
		return Done
	}
	return p.release(&p.due)
}

// release returns where a released record goes.
func (p *Partition) release(due *reorder.Release) Kind {
	l := p.line
	kind, o := Write, Outcome{Offset: due.Offset, Held: true}
	switch {
	case !due.Duplicate:
		if !due.Previous {
			l.released.add(p, due)
		}
		p.Ledger.Pending.Ordered++
		l.Latency.Released()
		o.Record = l.Outbox().Ordered(p.Source, due)
	case l.Config.Duplicates == config.DropDuplicates:
		p.Dropped++
		p.Ledger.Pending.Dropped++
		kind = Dropped
	default:
		p.Ledger.Late(reorder.Duplicate, due.Offset, 0)
		o.Record = l.Outbox().Duplicate(p.Source, due, p.State.Watermark(), l.wall.Millis())
	}
	p.Asked = o
	return kind
}
