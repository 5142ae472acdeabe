package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// A record whose schema is not known yet cannot be judged, nor can any record behind it.
// The registry usually answers within some milliseconds, and the loop waits that long. If
// it does not, the partition is suspended: what came before is committed, its state in
// memory is dropped, it is not read, and the others go on. When the answer comes, it is
// taken up again from its commit.
//
// Rejected: waiting in the loop, which would stop all partitions, and rebalances with them;
// and keeping the partition's state while it is not read, which would need a second way to
// suspend and resume, for an outage that ends in seconds or needs an operator anyway.
//
// That the registry does not have a schema decides a verdict, and may be different on a
// replay. So the offset of such a record is in the commit (reorder.Partition.Settles), and a
// replay does not ask for its schema again. The reverse cannot be remembered: if the
// registry has lost a schema by which a record was judged, the partition waits for it to
// come back.

// SchemaPatience is how long the loop waits for a schema. Rebalances and transactions have
// timeouts of at least a second.
const SchemaPatience = 250 * time.Millisecond

// Wanted is the schema that a partition waits for before the record at an offset: for an
// answer from the registry or, if the schema is Lost, for it to be registered again.
type Wanted struct {
	ID     timestamp.SchemaID
	Lost   bool
	Offset int64
	Why    error
	Hint   string
}

// suspend has the partition suspended until the registry has answered.
func (p *Partition) suspend(want *Wanted) Kind {
	p.Asked = Outcome{Offset: want.Offset, Schema: want}
	return Suspend
}

// judgeBySchema judges the record once its schema is known, or known to be unknown.
func (p *Partition) judgeBySchema(ctx context.Context) Kind {
	r := p.record
	if p.State.Recalls(r.Offset, r.LeaderEpoch) {
		return p.step(watermark.None, errRecalled)
	}
	for {
		t, source, invalid := p.line.Extract.ExtractFrom(r)
		p.source = source
		if invalid == nil {
			return p.step(t, nil)
		}
		if pending, ok := errors.AsType[*timestamp.Pending](invalid); ok {
			if k := p.awaitSchema(ctx, r.Offset, pending.ID); k != Done {
				return k
			}
			continue
		}
		if schema, ok := errors.AsType[*timestamp.SchemaError](invalid); ok && schema.Unknown() {
			p.judging, p.stage = judging{in: reorder.Record{Time: t}, invalid: invalid}, remembering
			return Done
		}
		return p.step(t, invalid)
	}
}

// errRecalled stands in for the event time of a record whose verdict is in the commit.
var errRecalled = errors.New("settled before")

// rememberUnknown puts the offset of a record whose schema the registry does not have into
// the commit, and has the record judged. If there is no room left for it, it first releases
// records early, and is called again.
func (p *Partition) rememberUnknown() Kind {
	j, offset := p.judging, p.record.Offset
	schema, _ := errors.AsType[*timestamp.SchemaError](j.invalid)
	if _, replaying := p.State.Replaying(); replaying {
		return p.suspend(&Wanted{
			ID: schema.ID, Lost: true, Offset: offset, Why: fmt.Errorf("%w %s", errLostSchema, schema.ID),
			Hint: "register it again under its id (mode IMPORT), or point TIDEMARK_SCHEMA_REGISTRY to a registry that has it; no record is lost meanwhile",
		})
	}
	if !p.State.Settles(offset) {
		p.line.Reporter.Throttle(fmt.Sprint(p.Topic, p.Partition), slog.LevelWarn, fault.None,
			"too many held records have schemas that the registry does not have; releasing some early",
			"topic", p.Topic, "partition", p.Partition, "offset", offset, "schema", schema.ID.String(), "hint", "register the schema, or stop the producer that uses it")
		p.State.MakeRoom()
		p.releasing = true
		return Done
	}
	p.judging = judging{}
	return p.step(j.in.Time, j.invalid)
}

// errLostSchema says that the registry has lost a schema.
var errLostSchema = fault.NewError(fault.Broker, "the record needs its schema again, but the schema registry no longer has schema")

// schemaOf returns what a late record says of its schema.
func schemaOf(invalid error) (emit.Schema, string) {
	schema, ok := errors.AsType[*timestamp.SchemaError](invalid)
	switch {
	case !ok:
		return emit.NoSchema, ""
	case schema.Unknown():
		return emit.UnknownSchema, schema.ID.String()
	}
	return emit.KnownSchema, schema.ID.String()
}

// awaitSchema waits for a schema for SchemaPatience, then asks to suspend the partition.
func (p *Partition) awaitSchema(ctx context.Context, offset int64, id timestamp.SchemaID) Kind {
	wait, cancel := context.WithTimeout(ctx, SchemaPatience)
	why := p.line.Schemas.Wait(wait, id)
	cancel()
	p.line.Waited()
	if why == nil {
		return Done
	}
	if ctx.Err() != nil {
		return p.fail(ctx.Err())
	}
	return p.suspend(&Wanted{
		ID: id, Offset: offset, Why: why,
		Hint: "check that the schema registry is up, and that TIDEMARK_SCHEMA_REGISTRY and its login are right; no record is lost meanwhile",
	})
}
