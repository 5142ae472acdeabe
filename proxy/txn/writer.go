package txn

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// Options are what a Writer works with.
type Options struct {
	Config   config.Config
	Client   *kgo.Client               // the producer
	Session  *kgo.GroupTransactSession // its transactions; nil: at least once
	Admin    *kadm.Client
	Reporter *fault.Reporter
	Limits   *Limits
	Acks     *AckLimit
	Group    Membership
	Batches  BatchObserver
	// MaxBatch returns max.message.bytes of an output topic; 0: not known.
	MaxBatch func(topic string) int
	// NeededBatch returns what max.message.bytes of an output topic has to be for every
	// record of its source to fit; 0: not known.
	NeededBatch func(topic string) int
}

// Writer writes the output records of a session and commits. One goroutine, the loop, owns
// it.
type Writer struct {
	Options
	Offsets *OffsetCommitter // outside transactions

	committer Committer
	atomic    bool // see Committer.Atomic
	sources   map[emit.Source]*Source
	batches
	failures failures

	began      time.Time // when the transaction was opened, or the first record written since the last commit; zero: neither
	committed  time.Time // when the last commit ended
	flushes    int       // counted only to know which records are in one batch; see fit
	partitions int       // how many have written something since the last commit
	perOffset  int       // bytes of an offset in the last commit
	volume     volume
	most       int // how many bytes may be written until the next commit
	retry      retry
	examined   *Source // the suspect with a group under way; nil: none
	waited     bool    // it waited for brokers, or became full: see TakeWaited
}

// Source is a source partition as the writer knows it: what it has written since the last
// commit, and what brokers have refused of it.
type Source struct {
	emit.Source
	Low int64 // L: everything below it is in an output; the caller sets it before a commit

	written int       // records since the last commit
	packed  [2]packed // of each output
	most    [2]int    // bytes of a record that the client sends; 0: not looked up yet
	suspect *suspect
	closed  *closed
	refused *refusedRecord
	tries   tries
}

// New returns a writer that has written nothing.
func New(o Options) *Writer {
	t := fault.CommandsFor(o.Config)
	w := &Writer{
		Options: o, sources: map[emit.Source]*Source{}, committed: time.Now(), perOffset: OffsetBytes, most: math.MaxInt, retry: newRetry(),
		Offsets: &OffsetCommitter{
			Config: o.Config, Client: o.Client, Reporter: o.Reporter, Limits: o.Limits,
			Wait: fault.GroupWait(t, "the commit of offsets", EndPatience),
		},
	}
	if o.Session == nil {
		w.committer = &atLeastOnce{OffsetCommitter: w.Offsets, retry: &w.retry}
	} else {
		w.committer = &exactlyOnce{
			cfg: o.Config, gts: o.Session, admin: o.Admin, group: o.Group, reporter: o.Reporter, limits: o.Limits, retry: &w.retry,
			completing: fault.TransactionWait(t, "the end of the transaction before", time.Second),
			beginning:  fault.TransactionWait(t, "a producer id for the next transaction", time.Second),
			ending:     fault.TransactionWait(t, "the end of our transaction", EndPatience),
		}
	}
	w.atomic = w.committer.Atomic()
	w.batches.open(w)
	return w
}

// Source returns the writer's state of a source partition, until it is forgotten.
func (w *Writer) Source(src emit.Source) *Source {
	s := w.sources[src]
	if s == nil {
		s = &Source{Source: src}
		w.sources[src] = s
	}
	return s
}

// Forget drops the state of source partitions that are no longer ours, except for the record
// that brokers refuse: if the partition comes back, it is suspended before it again.
func (w *Writer) Forget(gone func(topic string, n int32) bool) {
	for src, s := range w.sources {
		if gone(src.Topic, src.Partition) {
			w.unwrite(s)
			if s.refused != nil {
				w.sources[src] = &Source{Source: src, refused: s.refused}
			} else {
				delete(w.sources, src)
			}
		}
	}
}

// unwrite uncounts a partition as one that has written something.
func (w *Writer) unwrite(s *Source) {
	if s.written > 0 {
		s.written = 0
		w.partitions--
	}
}

// Written returns how many records a source partition has written since the last commit.
func (s *Source) Written() int { return s.written }

// Atomic reports whether readers see records only once they are committed.
func (w *Writer) Atomic() bool { return w.atomic }

// Clean reports whether nothing was written since the last commit.
func (w *Writer) Clean() bool { return w.began.IsZero() }

// Since returns when the interval to the next commit began.
func (w *Writer) Since() time.Time {
	if w.began.IsZero() {
		return w.committed
	}
	return w.began
}

// TakeWaited reports whether the writer has waited for brokers or become full since the last
// call, so that the caller should look at the clock.
func (w *Writer) TakeWaited() bool {
	waited := w.waited
	w.waited = false
	return waited
}

// Record is an output record, made from the source record at an offset.
type Record struct {
	*kgo.Record
	Offset int64
	Held   bool // it was in the buffer
}

// Write hands a record to the client, which may wait for room. It returns a *Refused if
// brokers refuse the record, and ErrRollback if everything has to go back to the last commit
// first. While Examining, the caller has to call CloseGroup first.
func (w *Writer) Write(ctx context.Context, s *Source, r Record) error {
	if w.mustRollBack() {
		return ErrRollback
	}
	if err := w.begin(ctx, true); err != nil {
		return err
	}
	w.volume.add(r.Record)
	if s.written++; s.written == 1 {
		w.partitions++
		w.waited = w.waited || w.Full()
	} else if w.volume.open >= w.most {
		w.waited = true
	}
	switch {
	case s.suspect != nil:
		if err := w.examine(ctx, s, r); err != nil {
			return err
		}
	case w.Limits.SizeAware:
		if err := w.fit(ctx, s, r); err != nil {
			return err
		}
	default:
		if err := w.sendPacked(ctx, s, r); err != nil {
			return err
		}
	}
	if w.batch.full() && w.examined == nil {
		w.rotate(w)
	}
	return nil
}

// ErrRollback says that a record was refused, so everything has to go back to the last
// commit.
var ErrRollback = errors.New("a record was refused")

// mustRollBack reports whether a record was refused and there is no transaction to hide what
// would be written behind it.
func (w *Writer) mustRollBack() bool { return !w.Atomic() && w.failures.any() }

// begin opens a transaction if there is none.
func (w *Writer) begin(ctx context.Context, records bool) error {
	if !w.began.IsZero() {
		return nil
	}
	w.began = time.Now()
	return w.committer.Begin(ctx, records)
}

// SetMost sets how many bytes quotas allow until the next commit. Slow brokers may lower it
// further.
func (w *Writer) SetMost(bytes int) { w.most = min(bytes, w.Acks.bytes()) }

// Most returns how many bytes may be written until the next commit.
func (w *Writer) Most() int { return w.most }

// MostRecords returns about how many records Most is, capped at most.
func (w *Writer) MostRecords(most int) int {
	if w.most == math.MaxInt || w.volume.records == 0 {
		return most
	}
	size := max(w.volume.bytes/w.volume.records, 1)
	return min(max(w.most/size, 1), most)
}

// Full reports whether a commit is needed before more is written: Most bytes are written, or
// as many partitions have written as one commit can have offsets.
func (w *Writer) Full() bool {
	return w.volume.open >= w.most || w.Atomic() && w.partitions >= w.MostOffsets()
}

// MostOffsets returns how many partitions fit into a commit, if their offsets are as large as
// those of the last one. Without transactions there is no limit.
func (w *Writer) MostOffsets() int {
	if !w.Atomic() {
		return math.MaxInt
	}
	return w.Limits.Offsets(w.perOffset)
}

// Commit makes everything durable that was written since the last one, together with
// offsets, grouped by topic. The caller has called CloseGroup. After Aborted, the caller
// calls Rollback once everything is back at the commit before.
func (w *Writer) Commit(ctx context.Context, offsets []Offset) (Result, error) {
	result, err := w.commit(ctx, offsets)
	open := time.Duration(0)
	if w.Atomic() && !w.began.IsZero() {
		open = time.Since(w.began)
	}
	w.began, w.committed, w.volume.open = time.Time{}, time.Now(), 0
	if err != nil {
		return Aborted, overdue(err, open, w.Config.TransactionTimeout)
	}
	if result == Aborted {
		return Aborted, nil
	}
	w.clearRetries()
	for _, s := range w.sources {
		s.written = 0
	}
	w.partitions = 0
	if result == Committed {
		w.rotate(w)
	}
	return result, nil
}

func (w *Writer) commit(ctx context.Context, offsets []Offset) (Result, error) {
	if err := w.begin(ctx, false); err != nil { // nothing was written, but there are offsets
		return Aborted, err
	}
	waiting := time.Now()
	err := w.Flush(ctx)
	if w.Atomic() {
		w.learnAcks(time.Since(waiting))
	}
	if err != nil {
		return Aborted, err
	}
	commit := true
	if w.failures.any() {
		if err := w.onFailures(ctx, w.failures.take()); err != nil {
			return Aborted, err
		}
		commit = false
	}
	result, err := w.committer.End(ctx, offsets, commit)
	if result == Committed && err == nil && w.Atomic() && len(offsets) > 0 {
		w.perOffset = max(sizeOf(offsets, w.Config.Group)/len(offsets), 1)
	}
	return result, err
}

// ForgetRevocation keeps a revocation that was handled from aborting the next transaction.
// Nothing is open.
func (w *Writer) ForgetRevocation(ctx context.Context) error { return w.committer.Forget(ctx) }

// Rollback forgets what was written since the last commit.
func (w *Writer) Rollback() {
	for _, s := range w.sources {
		s.written, s.packed = 0, [2]packed{}
		if s.suspect != nil {
			s.suspect.group = nil
		}
	}
	w.examined, w.partitions = nil, 0
	w.failures.take()
	w.rotate(w)
}

// Pause waits after a refusal, longer each time until all partitions have got past their
// refused records. Nothing is open meanwhile.
func (w *Writer) Pause(ctx context.Context) error { return w.retry.wait(ctx) }

// retry is the pause after refusals.
type retry struct {
	backoff fault.Backoff
	pending bool // something was refused since the last pause
}

var firstRetry = fault.Backoff{First: 50 * time.Millisecond, Longest: time.Second}

func newRetry() retry { return retry{backoff: firstRetry} }

func (r *retry) wait(ctx context.Context) error {
	if !r.pending {
		return nil
	}
	r.pending = false
	return r.backoff.Wait(ctx)
}

// slow is how long brokers may take to acknowledge before that is reported.
const slow = 5 * time.Second

// Flush waits until everything that was written is acknowledged or refused. The client
// itself retries without limit; Flush gives up when the transaction has timed out. Without
// transactions, once a record is refused, records not sent yet are dropped: see
// mustRollBack.
func (w *Writer) Flush(ctx context.Context) error {
	w.flushes++
	w.waited = true
	defer w.Reporter.Waits.Begin(fault.Wait{What: "acknowledgement of records", After: slow, Quiet: true})()
	flush := w.Client.Flush
	if w.mustRollBack() {
		flush = w.Client.AbortBufferedRecords
	}
	for began := time.Now(); ; {
		wait, cancel := context.WithTimeout(ctx, slow)
		err := flush(wait)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("flush: %w", err)
		}
		if w.Atomic() && time.Since(began) >= w.Config.TransactionTimeout {
			return fmt.Errorf("%d records not acknowledged within %v: %w", w.Client.BufferedProduceRecords(), w.Config.TransactionTimeout, err)
		}
		w.Reporter.Warn("records are not acknowledged yet; waiting", err, "records", w.Client.BufferedProduceRecords())
	}
}

// volume is how much has been written.
type volume struct {
	records, bytes int // recently: both are halved now and then
	open           int // bytes since the last commit
}

func (v *volume) add(r *kgo.Record) {
	const headers = 100 // ours, and what frames a record
	size := len(r.Key) + len(r.Value) + headers
	v.records++
	v.bytes += size
	v.open += size
	if v.records > 1<<16 {
		v.records, v.bytes = v.records/2, v.bytes/2
	}
}
