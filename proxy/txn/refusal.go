package txn

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// What becomes of records that brokers refuse; docs/design/refusals.md has the reasons. A
// refusal is about
//
//	size        the limits are learnt: see size.go
//	a record    refused for good (RefusedForGood): the record is found, and its partition
//	            suspended before it; see suspect.go
//	partition   an output partition that takes nothing for now (AboutPartition): it is
//	            tried again from the commit, and when that does not help, or the brokers
//	            say why, the source partition is suspended; see closed.go
//	all else    the topic, our rights, the producer: see permanent, and run.go

// failure is a record that was not acknowledged.
type failure struct {
	topic     string
	partition int32
	size      int // of the record, in a batch of its own before compression
	err       error
}

// failures are those since the last commit, the first of each output partition. The client
// adds them, from goroutines of its own.
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

// take returns them, and forgets them.
func (fs *failures) take() []*failure {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.some.Store(false)
	taken := fs.first
	fs.first = nil
	return taken
}

// RefusedForGood reports that brokers find fault with a record, and will each time.
func RefusedForGood(err error) bool {
	return errors.Is(err, kerr.InvalidTimestamp) || errors.Is(err, kerr.InvalidRecord)
}

// AboutPartition reports that the output partition is to blame, as far as one can tell, and
// neither the record nor our producer.
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

// onFailures decides what is done after refusals, when everything goes back to the last
// commit. What is written again may be refused again as long as the cause is there, so the
// pause before that grows; see Pause.
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
			continue // its partition is suspended when it comes to the record again
		}
		if fault.IsExpired(f.err) {
			w.Reporter.Info(Expired, f.err, "transactional_id", w.Config.TransactionalID())
			w.retry.pending = true
			continue
		}
		w.Reporter.Warn("a record was not accepted; going back to the last commit", f.err, "topic", f.topic, "partition", f.partition)
		w.retry.pending = true
		if RefusedForGood(f.err) {
			w.suspectWriterOf(f)
		} else {
			partitions = append(partitions, f)
		}
	}
	return w.tryAgainOrClose(ctx, partitions)
}

// Expired is what is logged when the brokers have forgotten our transactional id.
const Expired = "the brokers have forgotten our transactional id, which had no transaction for transactional.id.expiration.ms; taking it again"

// writerOf returns the source partition whose records go to an output partition.
func (w *Writer) writerOf(f *failure) *Source {
	for _, s := range w.sources {
		if s.Partition == f.partition && (s.Ordered == f.topic || s.Source.Late == f.topic) {
			return s
		}
	}
	return nil
}

// tries is how often everything went back to the commit for a source partition, until it
// gets past the record that was refused.
type tries struct {
	n   int
	low int64 // L at the last of them
}

// forgive forgets the refusals that partitions have got past.
func (w *Writer) forgive() {
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

// permanent returns a fault if trying again would be no use to any partition.
func (w *Writer) permanent(f *failure) *fault.Fault {
	t := fault.CommandsFor(w.Config)
	err := fmt.Errorf("write to %s partition %d: %w", f.topic, f.partition, f.err)
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return fault.Usage(err, "allow it: "+t.Allow("--topic", f.topic, kadm.OpWrite, kadm.OpDescribe, kadm.OpRead))
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		return fault.Failed(err, "the topic is gone; start again, and it is created")
	}
	return fault.Permanent(w.Config, err)
}

// Refused says that brokers do not take a record, and that its source partition has to be
// suspended before it.
type Refused struct {
	Source *Source
	Record Record
	Halt
	// Drop says that of the partition nothing else is uncommitted: what is in memory of it
	// can be dropped, and all other partitions go on. Otherwise everything has to go back
	// to the last commit, and the partition is suspended when it comes to the record again.
	Drop bool
}

// Halt is why a partition is suspended, and what mends it.
type Halt struct {
	Why  error
	Hint string
}

// Error implements error.
func (r *Refused) Error() string { return r.Why.Error() }

// Unwrap returns the brokers' answer.
func (r *Refused) Unwrap() error { return r.Why }

// refusedRecord is a record that brokers do not take: it does not fit, or is refused for good.
type refusedRecord struct {
	offset  int64
	held    bool // it had been judged, and was on its way out
	topic   string
	keyless bool
	err     error
	retry   bool // it is to be tried again
}

// refuse notes that a source partition has to be suspended before a record: at once, if
// that is the only one of the partition since the last commit, else when it comes to the
// record again.
func (w *Writer) refuse(s *Source, h *Handed, drop bool) error {
	s.suspect = nil
	kind := ErrForGood
	if TooLarge(h.Err) {
		kind = errBare
	}
	s.refused = &refusedRecord{offset: h.Offset, held: h.Held, topic: h.Topic, keyless: h.Key == nil, err: fmt.Errorf("%w: %w", kind, h.Err)}
	if !drop {
		w.failures.add(&failure{topic: h.Topic, partition: h.Partition, err: fmt.Errorf("%w: %w", errKnown, h.Err)})
		return ErrRollback
	}
	w.unwrite(s)
	return &Refused{Source: s, Record: h.Record, Halt: w.haltAt(s.refused), Drop: true}
}

// errKnown says that the record at which a partition will be suspended is known.
var errKnown = errors.New("its partition is suspended before it")

// ErrForGood says that a record is refused each time.
var ErrForGood = errors.New("the brokers refuse the record for good")

// Halt says why a source partition has to be suspended before the record that it has come
// to. If that is to be tried again, it is written alone, once everything before it is
// committed: again.
func (w *Writer) Halt(s *Source) (halt Halt, again bool) {
	if s.refused.retry {
		// If it is refused again, nothing else is undone with it.
		s.refused = nil
		s.suspect = &suspect{left: 1, alone: true}
		return halt, true
	}
	return w.haltAt(s.refused), false
}

// HaltsAt reports whether it is the record at an offset before which the partition has to
// be suspended, before that is judged or, held, released.
func (s *Source) HaltsAt(held bool, offset int64) bool {
	return s.refused != nil && s.refused.held == held && s.refused.offset == offset
}

// MayHalt reports whether there is a record before which the partition has to be suspended.
func (s *Source) MayHalt() bool { return s.refused != nil }

// TryAgain has the record at which a partition is suspended be tried again.
func (s *Source) TryAgain() {
	if s.refused != nil {
		s.refused.retry = true
	}
}

// haltAt returns why a partition is suspended at a record.
func (w *Writer) haltAt(at *refusedRecord) Halt {
	t := fault.CommandsFor(w.Config)
	h := Halt{Why: fmt.Errorf("write the record at offset %d to %s: %w", at.offset, at.topic, at.err)}
	switch {
	case RefusedForGood(at.err):
		h.Hint = Cure(t, at.topic, at.err, at.keyless)
	case errors.Is(at.err, kerr.RecordListTooLarge):
		h.Hint = "raise the limit: " + t.Set(at.topic, "segment.bytes", "BYTES")
	default:
		h.Hint = "raise the limit: " + t.Set(at.topic, fault.MaxMessageBytes, "BYTES")
	}
	return h
}

// Cure says what has a record taken that is refused for good.
func Cure(t fault.Commands, topic string, err error, keyless bool) string {
	switch {
	case errors.Is(err, kerr.InvalidTimestamp):
		return "the topic refuses times that its source has let in: " +
			t.Set(topic, fault.TimestampBefore, "9223372036854775807") + "; and " + t.Set(topic, fault.TimestampAfter, "9223372036854775807")
	case keyless:
		return "a compacted topic takes no record without a key: " + t.Set(topic, "cleanup.policy", "delete") +
			"; if it is not compacted, the brokers' logs say what they find fault with"
	}
	return "the brokers' logs say what they find fault with; change what makes them refuse it, such as a validation of schemas on " + topic
}
