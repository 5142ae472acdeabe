package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
	"github.com/tidemarkhq/tidemark/watermark"
)

// A record whose schema is not known yet cannot be judged, and nothing behind it
// can. Most often the registry answers within some milliseconds, and the loop waits
// that long. If not, the partition is set aside as one is that stands still: what
// came before is committed, nothing of it stays in memory, it is not read, and the
// others go on. When the answer is there, it is taken up again from its commit.
//
// Options weighed: to have the loop wait for as long as it takes would stop all
// partitions, and rebalances with them; to keep what the partition holds and only
// stop reading it would need a second way to hold and to go on, for an outage that
// is over in seconds or needs a hand anyway.
//
// That the registry has no such schema is a verdict, and its word alone: it may have
// the schema when the record is read again. So the offset of such a record travels in
// the commit (reorder.Partition.Settles), and what stands there is not asked for
// again. The other way round nothing can be remembered: where a record was judged by a
// schema that the registry has lost since, its partition waits for it to come back.

// SchemaPatience is how long the loop waits for a schema: less than a rebalance or
// an open transaction notices, since that lasts for at least a second.
const SchemaPatience = 250 * time.Millisecond

// Wanted is what a partition waits for, before the record at an offset: to hear what the
// registry says of a schema or, if that was lost, that it is there again.
type Wanted struct {
	ID     uint32
	Lost   bool
	Offset int64
	Why    error
	Hint   string
}

// eventTime returns the event time of a record, once its schema is known. invalid is the
// verdict of one that has none. The outcome says that there is no verdict yet, and so does
// releasing.
func (p *Partition) eventTime(ctx context.Context, r *kgo.Record) (t watermark.Time, o Outcome, invalid error) {
	l := p.line
	if l.Schemas == nil {
		t, invalid = l.Extract.Extract(r)
		return t, o, invalid
	}
	if p.State.Recalls(r.Offset, r.LeaderEpoch) {
		return watermark.None, o, errRecalled
	}
	for {
		t, invalid = l.Extract.Extract(r)
		if invalid == nil {
			return t, o, nil
		}
		if pending, ok := errors.AsType[*timestamp.Pending](invalid); ok {
			if o = p.awaitSchema(ctx, r.Offset, pending.ID); o.Kind != Done {
				return t, o, nil
			}
			continue
		}
		if schema, ok := errors.AsType[*timestamp.SchemaError](invalid); ok && schema.Unknown() {
			o = p.settle(r.Offset, schema.ID)
		}
		return t, o, invalid
	}
}

// errRecalled stands for the event time of a record that needs none, for what became of it
// is known.
var errRecalled = errors.New("settled before")

// settle sees to it that the registry's word that it does not have a schema is remembered
// for as long as it has to be. If too much is remembered already, records are released
// early to make room: releasing.
func (p *Partition) settle(offset int64, id uint32) Outcome {
	if _, replaying := p.State.Replaying(); replaying {
		return Outcome{Kind: Suspend, Offset: offset, Schema: Wanted{
			ID: id, Lost: true, Offset: offset, Why: fmt.Errorf("%w %d any more", errLostSchema, id),
			Hint: "register it again under its id (mode IMPORT), or point TIDEMARK_SCHEMA_REGISTRY at a registry that has it; no record is lost meanwhile",
		}}
	}
	if !p.State.Settles(offset) {
		p.line.Reporter.Throttle(fmt.Sprint(p.Topic, p.Partition), slog.LevelWarn, fault.None,
			"too many records with schemas that the registry does not have among those held; some are released early",
			"topic", p.Topic, "partition", p.Partition, "offset", offset, "schema", id, "hint", "register the schema, or stop who writes with it")
		p.State.MakeRoom()
		p.releasing = true
	}
	return Outcome{}
}

// errLostSchema says that the registry does not have a schema that it had.
var errLostSchema = fault.NewError(fault.Broker, "the record was judged by its schema, and the schema registry does not have schema")

// schemaOf returns what a late record says of its schema.
func schemaOf(invalid error) (emit.Schema, uint32) {
	schema, ok := errors.AsType[*timestamp.SchemaError](invalid)
	switch {
	case !ok:
		return emit.NoSchema, 0
	case schema.Unknown():
		return emit.UnknownSchema, schema.ID
	}
	return emit.KnownSchema, schema.ID
}

// awaitSchema waits for a schema, and has the partition suspended if that takes long.
func (p *Partition) awaitSchema(ctx context.Context, offset int64, id uint32) Outcome {
	wait, cancel := context.WithTimeout(ctx, SchemaPatience)
	why := p.line.Schemas.Wait(wait, id)
	cancel()
	p.line.Waited()
	if why == nil {
		return Outcome{}
	}
	if ctx.Err() != nil {
		return Outcome{Kind: Fail, Err: ctx.Err()}
	}
	return Outcome{Kind: Suspend, Offset: offset, Schema: Wanted{
		ID: id, Offset: offset, Why: why,
		Hint: "look whether the schema registry is up, and TIDEMARK_SCHEMA_REGISTRY and the login right; no record is lost meanwhile",
	}}
}
