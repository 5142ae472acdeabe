package txn

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// An output may not take what the source took: our headers were added, or its
// max.message.bytes is smaller. What brokers limit is a batch after compression, what the
// client limits is one before it, and a record that it finds too large it does not even
// send.
//
// So as long as every record fits uncompressed, the client packs batches up to the output's
// limit, and no broker can refuse one. With the first record that does not, the session is
// begun anew and size-aware: the client's limit is out of the way, the writer flushes
// before a batch could outgrow the output's limit, and a record that is larger by itself is
// sent alone. If the broker refuses it, it goes without one of our headers after the other,
// and if it is too large even bare, its partition is suspended.
//
// A batch that is refused although it was within the limit means that the limit is lower
// than we know; then half of it is assumed.

const (
	batchDefault = 1_000_012 // max.message.bytes of a broker that was told nothing

	// LeastBatch is the lowest limit of a batch that the client takes, in bytes.
	LeastBatch = 512
	// MostBatch is the highest: the client sends no larger request, and brokers take none.
	MostBatch = 100 << 20
)

// ErrLimits says that the session has to begin anew with other limits.
var ErrLimits = errors.New("larger than the output's limit allows for; going on with what was learnt")

// errBare says that a record is too large even without our headers.
var errBare = errors.New("too large even without any added header")

// TooLarge reports whether a broker refused a batch for its size.
func TooLarge(err error) bool {
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge) // larger than a segment
}

// maxBatch is the most that a batch of an output may have before compression.
func (w *Writer) maxBatch(topic string) int { return w.Limits.Batch(topic, w.MaxBatch(topic)) }

// ClientMaxBatch returns the client's limit for the batches of each of the topics. The
// client asks at any time, so it is not the one that is being learnt.
func ClientMaxBatch(l *Limits, maxBatch func(topic string) int, topics []string) func(topic string) int32 {
	if l.SizeAware {
		return func(string) int32 { return MostBatch }
	}
	limits := map[string]int32{}
	for _, topic := range topics {
		limits[topic] = int32(min(l.Batch(topic, maxBatch(topic)), MostBatch))
	}
	return func(topic string) int32 {
		if n, ok := limits[topic]; ok {
			return n
		}
		return batchDefault
	}
}

// tooLarge learns from a refusal in a batch that the client packed.
func (w *Writer) tooLarge(f *failure) error {
	limit := w.maxBatch(f.topic)
	switch {
	case f.size > limit && !w.Limits.SizeAware:
		w.Limits.SizeAware = true
	case limit == LeastBatch:
		return fault.Failed(fmt.Errorf("write to %s partition %d: a batch of %d bytes: %w", f.topic, f.partition, limit, f.err),
			"raise it: "+fault.CommandsFor(w.Config).Set(f.topic, fault.MaxMessageBytes, fmt.Sprint(batchDefault)))
	default:
		w.Limits.BatchRefused(f.topic, limit)
	}
	return fmt.Errorf("write to %s partition %d: %w: %w", f.topic, f.partition, ErrLimits, f.err)
}

// packed is what has been written to an output partition since the last flush, in bytes.
type packed struct {
	flush int
	bytes int
}

// fit writes a record in a size-aware session.
func (w *Writer) fit(ctx context.Context, s *Source, r Record) error {
	size, limit := emit.WireSize(r.Record), w.maxBatch(r.Topic)
	if size > limit {
		return w.alone(ctx, s, r)
	}
	b := &s.packed[0]
	if r.Topic == s.Late {
		b = &s.packed[1]
	}
	if b.flush == w.flushes && b.bytes+size > limit {
		if err := w.Flush(ctx); err != nil {
			return err
		}
		if w.mustRollBack() {
			return ErrRollback
		}
	}
	if b.flush != w.flushes {
		*b = packed{flush: w.flushes}
	}
	b.bytes += size
	w.send(ctx, r.Record)
	return nil
}

// alone writes a record in a batch of its own, with as many of the added headers as the
// broker takes. A refusal for its size leaves the transaction as it was.
func (w *Writer) alone(ctx context.Context, s *Source, r Record) error {
	if err := w.Flush(ctx); err != nil {
		return err
	}
	if w.mustRollBack() {
		return ErrRollback
	}
	w.batch.add(r.Record)
	for shed := 0; ; shed++ {
		w.waited = true
		err := w.writeAlone(ctx, s, r.Record)
		if errors.Is(err, errUnanswered) {
			return err
		}
		if err == nil && shed > 0 {
			w.Reporter.Shed.Add(int64(shed))
			w.Reporter.Logger.Debug("headers left out, for the record would be too large with them",
				"topic", r.Topic, "partition", r.Partition, "source_offset", r.Offset, "steps", shed)
		}
		if !TooLarge(err) || !w.Limits.SizeAware {
			return w.answeredAlone(s, r, err)
		}
		if !w.batch.outbox.Shed(r.Record) {
			w.batch.onAck(r.Record, nil)
			return w.refuse(s, &Handed{Record: r, Err: err}, s.written == 1)
		}
	}
}

// writeAlone sends a record and waits for the answer. The client itself waits for as long
// as it takes once brokers may have the record.
func (w *Writer) writeAlone(ctx context.Context, s *Source, r *kgo.Record) error {
	patience := w.Config.TransactionTimeout // later it is of no use
	if s.suspect != nil && s.suspect.closed != nil {
		patience = reopenPatience
	}
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r.Context = nil // the client has left that of the last try in it
	answer := make(chan error, 1)
	go func() { answer <- w.Client.ProduceSync(wait, r).FirstErr() }()
	late := time.NewTimer(w.Config.TransactionTimeout + time.Second)
	defer late.Stop()
	select {
	case err := <-answer:
		return err
	case <-late.C:
		return fmt.Errorf("write to %s partition %d: %w within %v: %w", r.Topic, r.Partition, errUnanswered, w.Config.TransactionTimeout, context.DeadlineExceeded)
	}
}

// reopenPatience is how long an output partition may take that took nothing before.
const reopenPatience = time.Second

// errUnanswered says that a record was neither taken nor refused.
var errUnanswered = errors.New("not acknowledged")
