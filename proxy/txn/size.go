package txn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// An output may refuse what the source accepted: our headers were added, or its
// max.message.bytes is smaller. Brokers limit batches after compression, the client limits
// them before, and does not even send a record that is larger than its limit.
//
// So as long as every record fits uncompressed, the client fills batches up to the output's
// limit, and no broker can refuse one. The first record that does not fit starts a new,
// size-aware session: the client's limit is raised out of the way, the writer flushes before
// a batch could exceed the output's limit, and a record that exceeds it by itself is sent
// alone. If the broker refuses it, our headers are dropped one by one; if it is too large
// even without them, its partition is suspended.
//
// If a batch within the limit is refused, the limit is lower than we know. The next session
// has looked it up again. If that does not help, it is size-aware as well, and so is one whose
// limit is below leastBatch, for the client accepts none. From then on each refusal halves the
// limit, without a new session. In the end every record is sent alone, and no refusal is left
// that says nothing of a record.

const (
	batchDefault = 1_000_012 // the brokers' default of max.message.bytes
	leastBatch   = 512       // the lowest limit of a batch that the client accepts, in bytes

	// MostBatch is the highest: the client sends no larger request, and brokers accept none.
	MostBatch = 100 << 20
)

// ErrLimits says that a new session has to begin with the limits learnt.
var ErrLimits = errors.New("a batch is larger than the output accepts; continuing with smaller ones")

// errBare says that a record is too large even without our headers.
var errBare = errors.New("too large even without any added header")

// TooLarge reports whether a broker refused a batch for its size.
func TooLarge(err error) bool {
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge) // larger than a segment
}

// SizeError returns a broker's refusal of a batch for its size without the sizes that the
// client adds: they are those of a batch, some after compression, and fit no other number.
func SizeError(err error) error {
	if answer, ok := errors.AsType[*kerr.Error](err); ok && TooLarge(err) {
		return answer
	}
	return err
}

// maxBatch is the largest batch of an output before compression, in bytes.
func (w *Writer) maxBatch(topic string) int { return w.Limits.Batch(topic, w.MaxBatch(topic)) }

// ClientMaxBatch returns the client's limit for the batches of each of the topics. The
// client may call it at any time, so later changes to l do not show in it.
func ClientMaxBatch(l *Limits, maxBatch func(topic string) int, topics []string) func(topic string) int32 {
	if l.SizeAware {
		return func(string) int32 { return MostBatch }
	}
	limits := map[string]int32{}
	for _, topic := range topics {
		limits[topic] = int32(min(max(l.Batch(topic, maxBatch(topic)), leastBatch), MostBatch))
	}
	return func(topic string) int32 {
		if n, ok := limits[topic]; ok {
			return n
		}
		return batchDefault
	}
}

// tooLarge learns from the refusal of a batch with other records. It returns ErrLimits if
// that needs a new session.
func (w *Writer) tooLarge(f *failure) error {
	limit, configured := w.maxBatch(f.topic), w.MaxBatch(f.topic)
	if w.Limits.SizeAware {
		w.Limits.BatchRefused(f.topic, configured)
		w.Reporter.Warn("a batch is larger than the output accepts; going back to the last commit and continuing with smaller ones", SizeError(f.err),
			"topic", f.topic, "partition", f.partition)
		return nil
	}
	w.Limits.SizeAware = f.size > limit || limit < leastBatch || w.Limits.batchLearnt(f.topic, configured)
	if f.size <= limit {
		w.Limits.BatchRefused(f.topic, configured)
	}
	return fmt.Errorf("write to %s partition %d: %w: %w", f.topic, f.partition, ErrLimits, SizeError(f.err))
}

// sendPacked writes a record in a session that is not size-aware. The client leaves out a
// record that is larger than its limit, and sends those behind it. Without a transaction they
// would be seen before it, so it is found first.
func (w *Writer) sendPacked(ctx context.Context, s *Source, r Record) error {
	if !w.Atomic() {
		most := &s.most[s.output(r.Topic)]
		if *most == 0 {
			*most = max(w.maxBatch(r.Topic), leastBatch)
		}
		if size := emit.WireSize(r.Record); size > *most {
			w.failures.add(&failure{topic: r.Topic, partition: r.Partition, size: size, err: kerr.MessageTooLarge})
			return ErrRollback
		}
	}
	w.send(ctx, r.Record)
	return nil
}

// output tells the outputs of a source partition apart.
func (s *Source) output(topic string) int {
	if topic == s.Source.Late {
		return 1
	}
	return 0
}

// packed counts the bytes written to an output partition since a flush.
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
	b := &s.packed[s.output(r.Topic)]
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
// broker accepts. A refusal for its size leaves the transaction intact.
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
		if err == nil && s.suspect != nil && s.suspect.oversized {
			w.Limits.ForgetBatch(r.Topic)
		}
		if err == nil && shed > 0 {
			w.Reporter.Shed.Add(int64(shed))
			w.Reporter.Throttle(fmt.Sprint(r.Topic, r.Partition), slog.LevelWarn, fault.None, "headers are left out, because records would be too large with them",
				"topic", r.Topic, "partition", r.Partition, "source_offset", r.Offset, "steps", shed, "total", w.Reporter.Shed.Load(),
				"hint", fmt.Sprintf("raise the limit: %s; what is left out first is in docs/operations.md, tidemark_headers_shed_total counts it",
					w.sizes(r.Topic).Raise(fault.CommandsFor(w.Config), r.Record)))
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

// writeAlone sends a record and waits for the answer. The client itself waits without limit
// once brokers may have the record.
func (w *Writer) writeAlone(ctx context.Context, s *Source, r *kgo.Record) error {
	patience := w.Config.TransactionTimeout // the transaction is aborted by then
	if s.suspect != nil && s.suspect.closed != nil {
		patience = reopenPatience
	}
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r.Context = nil // the client left that of the last try in it
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

// reopenPatience is how long an output partition that accepted no records may take to
// acknowledge the one it is tried with.
const reopenPatience = time.Second

// errUnanswered says that a record was neither accepted nor refused.
var errUnanswered = errors.New("not acknowledged")
