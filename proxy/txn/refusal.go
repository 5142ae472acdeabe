package txn

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// What becomes of records that brokers refuse; docs/design/refusals.md has the reasons. A
// refusal is about
//
//	size        the limits are learnt: see size.go
//	a record    refused for good (RefusedForGood): the record is found, and its partition
//	            suspended before it; see suspect.go
//	partition   an output partition accepts no records for now (AboutPartition): Tidemark
//	            retries from the commit; if that does not help, or the brokers say why,
//	            the source partition is suspended; see closed.go
//	all else    the topic, our permissions, the producer: see permanent, and run.go

// failure is a record that was not acknowledged.
type failure struct {
	topic     string
	partition int32
	size      int // of the record, in a batch of its own before compression
	err       error
}

// failures are the records refused since the last commit, the first of each output
// partition. The client adds them, from its own goroutines.
type failures struct {
	some  atomic.Bool
	mu    sync.Mutex
	first []*failure
}

func (fs *failures) any() bool { return fs.some.Load() }

func (fs *failures) add(f *failure) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, q := range fs.first {
		if q.topic == f.topic && q.partition == f.partition {
			return
		}
	}
	fs.first = append(fs.first, f)
	fs.some.Store(true)
}

// take returns and clears them.
func (fs *failures) take() []*failure {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.some.Store(false)
	taken := fs.first
	fs.first = nil
	return taken
}

// RefusedForGood reports whether brokers refuse a record itself, and will every time.
func RefusedForGood(err error) bool {
	return errors.Is(err, kerr.InvalidTimestamp) || errors.Is(err, kerr.InvalidRecord)
}

// AboutPartition reports whether the cause is the output partition, as far as the error
// tells, and not the record or our producer.
func AboutPartition(err error) bool {
	if errors.Is(err, kgo.ErrRecordRetries) {
		return true // it could not even be sent
	}
	answer, ok := errors.AsType[*kerr.Error](err)
	if !ok {
		return false
	}
	switch answer {
	case kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.RequestTimedOut,
		kerr.LeaderNotAvailable, kerr.NotLeaderForPartition, kerr.ReplicaNotAvailable, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch,
		kerr.KafkaStorageError, kerr.CorruptMessage, kerr.UnknownServerError,
		kerr.UnsupportedForMessageFormat, kerr.UnsupportedCompressionType, kerr.PolicyViolation:
		return true
	}
	return false
}

// onFailures decides what to do about refused records, before everything goes back to the
// last commit. They may be refused again as long as the cause persists, so the pause before
// each retry grows; see Pause.
func (w *Writer) onFailures(ctx context.Context, all []*failure) error {
	for _, f := range all {
		if TooLarge(f.err) && !errors.Is(f.err, errKnown) {
			return w.tooLarge(f)
		}
		if f := w.permanent(f); f != nil {
			return f
		}
	}
	var partitions []*failure
	for _, f := range all {
		if errors.Is(f.err, errKnown) {
			continue // its partition will be suspended when it reaches the record again
		}
		if fault.IsExpired(f.err) {
			w.Reporter.Info(Expired, f.err, "transactional_id", w.Config.TransactionalID())
			w.retry.pending = true
			continue
		}
		w.Reporter.Warn("a record was refused; going back to the last commit", f.err, "topic", f.topic, "partition", f.partition)
		w.retry.pending = true
		if RefusedForGood(f.err) {
			w.suspectWriterOf(f)
		} else {
			partitions = append(partitions, f)
		}
	}
	return w.tryAgainOrClose(ctx, partitions)
}

// Expired is logged when our transactional id has expired at the brokers.
const Expired = "the transactional id had no transaction for transactional.id.expiration.ms and has expired; registering it again"

// writerOf returns the source partition whose records go to an output partition.
func (w *Writer) writerOf(f *failure) *Source {
	for _, s := range w.sources {
		if s.Partition == f.partition && (s.Ordered == f.topic || s.Source.Late == f.topic) {
			return s
		}
	}
	return nil
}

// tries is how often everything went back to the commit because of a source partition,
// until it gets past the refused record.
type tries struct {
	n   int
	low int64 // L at the last of them
}

// clearRetries clears the refusals of partitions that have got past the refused record.
func (w *Writer) clearRetries() {
	waiting := false
	for _, s := range w.sources {
		if s.tries.n > 0 && s.Low > s.tries.low {
			s.tries = tries{}
		}
		waiting = waiting || s.tries.n > 0
	}
	if !waiting {
		w.retry.backoff = firstRetry
	}
}

// permanent returns a fault if no partition could write after a retry either.
func (w *Writer) permanent(f *failure) *fault.Fault {
	t := fault.CommandsFor(w.Config)
	err := fmt.Errorf("write to %s partition %d: %w", f.topic, f.partition, f.err)
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return fault.Usage(err, "allow it: "+t.Allow("--topic", f.topic, kadm.OpWrite, kadm.OpDescribe, kadm.OpRead))
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		return fault.Failed(err, "the topic was deleted; restart: it is created again, or, if both outputs are gone, the start says how to go on")
	}
	return fault.Permanent(w.Config, err)
}

// Refused says that brokers do not accept a record, and that its source partition has to be
// suspended before it. Nothing else of the partition is uncommitted: its state in memory
// can be dropped, and all other partitions go on.
type Refused struct {
	Source *Source
	Record Record
	Halt
}

// Halt is why a partition is suspended, and how to fix it.
type Halt struct {
	Why  error
	Hint string
}

// Error implements error.
func (r *Refused) Error() string { return r.Why.Error() }

// Unwrap returns the brokers' answer.
func (r *Refused) Unwrap() error { return r.Why }

// refusedRecord is a record that brokers refuse: it does not fit, or is refused for good.
type refusedRecord struct {
	offset int64
	held   bool // it was being released from the buffer
	halt   Halt
	retry  bool // try it again

	oversized bool // it does not fit
}

// refuse records that a source partition has to be suspended before a record: at once (drop)
// if the partition has written no other record since the last commit, else when it reaches
// the record again.
func (w *Writer) refuse(s *Source, h *Handed, drop bool) error {
	s.suspect = nil
	kind := ErrForGood
	if TooLarge(h.Err) {
		kind = errBare
	}
	s.refused = &refusedRecord{offset: h.Offset, held: h.Held, oversized: TooLarge(h.Err), halt: Halt{
		Why:  fmt.Errorf("write the record at offset %d to %s: %w: %w", h.Offset, h.Topic, kind, SizeError(h.Err)),
		Hint: fmt.Sprintf("%s partition %d offset %d: %s", s.Topic, s.Partition, h.Offset, Cure(fault.CommandsFor(w.Config), h.Record.Record, h.Err, w.sizes(h.Topic))),
	}}
	if !drop {
		w.failures.add(&failure{topic: h.Topic, partition: h.Partition, err: fmt.Errorf("%w: %w", errKnown, h.Err)})
		return ErrRollback
	}
	w.unwrite(s)
	return &Refused{Source: s, Record: h.Record, Halt: s.refused.halt}
}

// errKnown says that the record at which a partition will be suspended is known.
var errKnown = errors.New("its partition is suspended before it")

// ErrForGood says that a record is refused every time.
var ErrForGood = errors.New("the brokers refuse the record for good")

// Halt returns why a source partition has to be suspended before the record that it has
// reached. again: the record is to be tried again instead, written alone once everything
// before it is committed.
func (w *Writer) Halt(s *Source) (halt Halt, again bool) {
	if s.refused.retry {
		// If it is refused again, nothing else has to be aborted.
		s.suspect = &suspect{left: 1, alone: true, oversized: s.refused.oversized}
		s.refused = nil
		return halt, true
	}
	return s.refused.halt, false
}

// HaltsAt reports whether the partition has to be suspended before the record at an offset:
// before it is released if held, else before it is judged.
func (s *Source) HaltsAt(held bool, offset int64) bool {
	return s.refused != nil && s.refused.held == held && s.refused.offset == offset
}

// MayHalt reports whether HaltsAt is true for any record.
func (s *Source) MayHalt() bool { return s.refused != nil }

// Oversized reports whether the partition is suspended before a record that does not fit.
func (s *Source) Oversized() bool { return s.refused != nil && s.refused.oversized }

// TryAgain has the record before which a partition is suspended tried again.
func (s *Source) TryAgain() {
	if s.refused != nil {
		s.refused.retry = true
	}
}

// Sizes are the values of max.message.bytes of a topic: what it has, and what it needs for
// every record of its source to fit. 0: not known.
type Sizes struct{ Has, Needs int }

func (w *Writer) sizes(topic string) Sizes {
	return Sizes{Has: w.MaxBatch(topic), Needs: w.NeededBatch(topic)}
}

// Raise returns the command that has the topic accept a record. Brokers count what they get,
// which may be compressed; the limit is enough in any case, with the headers that had to be
// left out, and it is the one that is asked for at the start, unless the record needs more.
func (z Sizes) Raise(t fault.Commands, r *kgo.Record) string {
	return t.Set(r.Topic, fault.MaxMessageBytes, fmt.Sprint(max(emit.WireSize(r)+shedRoom, z.Needs)))
}

// Cure says how to get a record accepted that was refused for its size or for good, by the
// setting of its topic that is in the way.
func Cure(t fault.Commands, r *kgo.Record, err error, sizes Sizes) string {
	switch size := emit.WireSize(r); {
	case errors.Is(err, kerr.RecordListTooLarge):
		return fmt.Sprintf("it has %d bytes before compression, more than %s accepts; raise the limit: %s", size, r.Topic, t.Set(r.Topic, fault.SegmentBytes, fmt.Sprint(size+shedRoom)))
	case TooLarge(err):
		most := ""
		if sizes.Has > 0 && sizes.Has < size {
			most = fmt.Sprintf("the %d that ", sizes.Has)
		}
		return fmt.Sprintf("it has %d bytes before compression, more than %s%s accepts; raise the limit: %s", size, most, r.Topic, sizes.Raise(t, r))
	case errors.Is(err, kerr.InvalidTimestamp):
		key, where := fault.TimestampBefore, "in the past"
		if r.Timestamp.After(time.Now()) {
			key, where = fault.TimestampAfter, "in the future"
		}
		return fmt.Sprintf("its timestamp %s is too far %s for %s, which its source does not mind; raise the limit: %s (before Kafka 3.6 it is %s)",
			r.Timestamp.UTC().Format(time.RFC3339), where, r.Topic, t.Set(r.Topic, key, "9223372036854775807"), fault.TimestampEither)
	case r.Key == nil:
		return "it has no key, and a compacted topic accepts no such record: " + t.Set(r.Topic, fault.CleanupPolicy, "delete") +
			"; if " + r.Topic + " is not compacted, see the brokers' logs for the reason"
	}
	return "see the brokers' logs for the reason, and remove it, such as a schema validation on " + r.Topic
}

// shedRoom is room for the headers that a record had to go without, in bytes.
const shedRoom = 4 << 10
