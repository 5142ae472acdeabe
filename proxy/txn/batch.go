package txn

import (
	"context"
	"slices"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
)

// The memory of a record must not change until the record is acknowledged; after that it is
// free, because an abort makes everything anew from the source. So records go in batches of
// a thousand, and the memory of a batch is reused once all its records, and those of the
// batches before, are acknowledged. A transaction may thus be of any length, and the memory
// reused next is still in the processor's cache.

// BatchObserver follows batches, because their records may lie in memory that it owns.
type BatchObserver interface {
	Flight(number uint64) // from here on records go into this batch
	Landed(number uint64) // the client no longer needs the records of this batch
}

// batch is a number of records that are handed to the client together with the memory they
// live in.
type batch struct {
	number uint64
	outbox *emit.Outbox
	n      int64        // records handed over
	bytes  int          // in their keys and values
	acked  atomic.Int64 // records acknowledged or refused
	onAck  func(*kgo.Record, error)
}

// A batch is full with so many records, or with more than so many bytes.
const (
	batchRecords = 1024
	batchBytes   = 1 << 20
)

// add counts a record that is handed over now. A record that is counted but not handed over
// would never be acknowledged, and would keep its batch and all later ones from being
// reused.
func (b *batch) add(r *kgo.Record) {
	b.n++
	b.bytes += len(r.Key) + len(r.Value)
}

// full reports whether the batch takes no more records.
func (b *batch) full() bool { return b.n >= batchRecords || b.bytes > batchBytes }

// batches are the batches of a writer.
type batches struct {
	batch    *batch   // being filled
	inFlight []*batch // full, and not all acknowledged
	free     []*batch // for reuse
}

// Outbox returns where output records are made until the next Write.
func (bs *batches) Outbox() *emit.Outbox { return bs.batch.outbox }

// InFlight returns how many batches are full and not all acknowledged.
func (bs *batches) InFlight() int { return len(bs.inFlight) }

// send hands a record to the client.
func (w *Writer) send(ctx context.Context, r *kgo.Record) {
	w.batch.add(r)
	w.Client.Produce(ctx, r, w.batch.onAck)
}

func (w *Writer) newBatch() *batch {
	b := &batch{outbox: emit.NewOutbox(w.Config.OutputHeaders())}
	b.onAck = func(r *kgo.Record, err error) {
		if err != nil {
			w.failures.add(&failure{r.Topic, r.Partition, emit.WireSize(r), err})
		}
		b.acked.Add(1)
	}
	return b
}

// open begins the first batch.
func (bs *batches) open(w *Writer) {
	bs.batch = w.newBatch()
	bs.batch.number = 1
	w.Batches.Flight(1)
}

// rotate begins a new batch.
func (bs *batches) rotate(w *Writer) {
	number := bs.batch.number + 1
	bs.inFlight = append(bs.inFlight, bs.batch)
	bs.reclaim(w.Batches)
	if n := len(bs.free); n > 0 {
		bs.batch, bs.free = bs.free[n-1], bs.free[:n-1]
	} else {
		bs.batch = w.newBatch()
	}
	bs.batch.number = number
	w.Batches.Flight(number)
}

// reclaim takes back the memory of batches that are acknowledged.
func (bs *batches) reclaim(observer BatchObserver) {
	n := 0
	for n < len(bs.inFlight) && bs.inFlight[n].acked.Load() == bs.inFlight[n].n {
		b := bs.inFlight[n]
		observer.Landed(b.number)
		b.outbox.Reset()
		b.n, b.bytes = 0, 0
		b.acked.Store(0)
		bs.free = append(bs.free, b)
		n++
	}
	bs.inFlight = slices.Delete(bs.inFlight, 0, n)
}
