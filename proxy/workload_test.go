package proxy

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// workload is what a disorderly source writes: most records within 20 ms of
// their place, 5 % up to 2 s behind, 0.1 % up to a minute; event times that are
// unusable or a day ahead; and records of every odd shape. It is a function of
// its seed.
type workload struct {
	seed         uint64
	records      int
	partitions   int32
	step         time.Duration // of event time, from a record to the next of all
	base         time.Time     // of event time
	transactions bool          // also write in transactions, some of them aborted
	plain        bool          // no unusable and no future event times
	drains       bool          // the clock may move the watermark where nothing is written: more is late then
	unjudged     bool          // by another law than that of the fixed bound
	pause        time.Duration // between batches, on average
	over         time.Duration // instead: write evenly over this time, as far as brokers allow
	chunk        int           // most records of a batch
	bound        time.Duration // of the sidecar that reads it; testBound unless told otherwise
	payload      int           // bytes that every value has more
	markers      bool          // some records carry a watermark
	untimed      bool          // some records have no event time, and most of these the key of the one before

	invalid int64 // how many records were written of each kind
	future  int64
	late    int64 // behind the watermark, by a reading of the law that is a few lines long
	newest  []int64
	keys    [][]byte // of the last record of each partition that has an event time
}

// defaults fills in what was not told: an hour ago is where event time begins.
func (w *workload) defaults() {
	if w.step == 0 {
		w.step = time.Millisecond
	}
	if w.partitions == 0 {
		w.partitions = 1
	}
	if w.chunk == 0 {
		w.chunk = 100
	}
	if w.base.IsZero() {
		w.base = time.Now().Add(-time.Hour).Truncate(time.Second)
	}
	if w.bound == 0 {
		w.bound = testBound
	}
	w.newest, w.keys = make([]int64, w.partitions), make([][]byte, w.partitions)
}

const testBound = 500 * time.Millisecond // of sidecars, unless told otherwise

// write produces the workload to a topic, in the order of its making.
func (c *cluster) write(topic string, w *workload) {
	c.t.Helper()
	w.defaults()
	rnd := rand.New(rand.NewPCG(w.seed, 1))
	var tx *transactor
	if w.transactions {
		tx = c.transactor(topic)
		defer func() { tx.cl.Close() }()
	}
	began := time.Now()
	for n := 0; n < w.records; {
		if w.over > 0 {
			due := float64(w.over) * float64(n) / float64(w.records)
			time.Sleep(time.Until(began.Add(time.Duration(due))))
		} else {
			time.Sleep(time.Duration(rnd.Int64N(int64(2*w.pause) + 1)))
		}
		size := min(1+rnd.IntN(w.chunk), w.records-n)
		switch pick := rnd.IntN(10); {
		case w.transactions && pick < 3:
			var ghosts []*kgo.Record // aborted: nobody ever sees them
			for range size {
				ghosts = append(ghosts, w.ghost(topic, rnd))
			}
			tx.transact(ghosts, kgo.TryAbort)
		case w.transactions && pick < 6:
			tx.transact(w.batch(topic, rnd, n, size), kgo.TryCommit)
			n += size
		default:
			c.produce(c.cl, w.batch(topic, rnd, n, size)...)
			n += size
		}
	}
}

// writing writes while the test goes on; the channel tells the end of it.
func (c *cluster) writing(topic string, w *workload) (written <-chan struct{}) {
	done := make(chan struct{})
	c.writers.Go(func() {
		defer close(done)
		c.write(topic, w)
	})
	return done
}

// transactor writes to a source in transactions.
type transactor struct {
	c     *cluster
	topic string
	cl    *kgo.Client
}

func (c *cluster) transactor(topic string) *transactor {
	tx := &transactor{c: c, topic: topic}
	tx.open()
	return tx
}

func (tx *transactor) open() {
	opts := []kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID("source-" + tx.topic)}
	if tx.c.fake == nil {
		opts = append(opts, eager()...)
	}
	tx.cl = tx.c.client(opts...)
}

// transact writes records in one transaction. Brokers that fail may leave open
// what became of it; then the transactional id is taken anew, which settles it,
// and the log is asked.
func (tx *transactor) transact(records []*kgo.Record, end kgo.TransactionEndTry) {
	tx.c.t.Helper()
	for {
		err := tx.try(records, end)
		if err == nil {
			return
		}
		if tx.c.fake != nil || tx.c.ctx.Err() != nil {
			tx.c.wrote(err)
		}
		tx.c.t.Logf("a transaction upstream: %v", err)
		tx.renew()
		if end == kgo.TryAbort || tx.c.landed(records) {
			return
		}
	}
}

func (tx *transactor) try(records []*kgo.Record, end kgo.TransactionEndTry) error {
	if err := tx.cl.BeginTransaction(); err != nil {
		return err
	}
	if err := tx.cl.ProduceSync(tx.c.ctx, records...).FirstErr(); err != nil {
		return err
	}
	return tx.cl.EndTransaction(tx.c.ctx, end)
}

func (tx *transactor) renew() {
	for {
		tx.cl.Close()
		tx.open()
		if _, _, err := tx.cl.ProducerID(tx.c.ctx); err == nil {
			return
		}
		if tx.c.ctx.Err() != nil {
			tx.c.wrote(tx.c.ctx.Err())
		}
	}
}

// landed reports whether the last transaction of a source, which began with
// these records, was committed.
func (c *cluster) landed(records []*kgo.Record) bool {
	c.t.Helper()
	first := records[0]
	var end int64
	c.await("the end of "+first.Topic, func() bool {
		ends, err := c.adm.ListEndOffsets(c.ctx, first.Topic)
		stable, err2 := c.adm.ListCommittedOffsets(c.ctx, first.Topic)
		if err != nil || err2 != nil {
			return false
		}
		e, _ := ends.Lookup(first.Topic, first.Partition)
		s, _ := stable.Lookup(first.Topic, first.Partition)
		end = e.Offset
		return e.Err == nil && s.Err == nil && s.Offset == end
	})
	// Behind it is at most what a batch of the same size was before it.
	from := max(end-2*int64(len(records))-10, 0)
	if from == end {
		return false
	}
	cl := c.client(append(eager(), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{first.Topic: {first.Partition: kgo.NewOffset().At(from)}}))...)
	defer cl.Close()
	found, ended := false, false
	for !ended && c.ctx.Err() == nil {
		cl.PollFetches(c.ctx).EachRecord(func(r *kgo.Record) {
			// No two records of a workload have the same timestamp.
			found = found || !r.Attrs.IsControl() && r.Timestamp.UnixMilli() == first.Timestamp.UnixMilli()
			ended = ended || r.Offset >= end-1
		})
	}
	return found
}

func (c *cluster) produce(cl *kgo.Client, records ...*kgo.Record) {
	c.t.Helper()
	c.wrote(cl.ProduceSync(c.ctx, records...).FirstErr())
}

// wrote ends a writer whose scenario has ended, and the scenario of one that
// cannot write.
func (c *cluster) wrote(err error) {
	c.t.Helper()
	switch {
	case c.ctx.Err() != nil:
		runtime.Goexit()
	case err != nil:
		c.t.Fatalf("write to the source: %v", err)
	}
}

func (w *workload) batch(topic string, rnd *rand.Rand, n, size int) []*kgo.Record {
	rs := make([]*kgo.Record, size)
	for i := range rs {
		rs[i] = w.record(topic, rnd, n+i)
	}
	return rs
}

func (w *workload) ghost(topic string, rnd *rand.Rand) *kgo.Record {
	at := w.base.Add(time.Hour).UnixMilli() // would move the watermark, were it seen
	return record(topic, rnd.Int32N(w.partitions), at, "ghost")
}

// record makes the nth record.
func (w *workload) record(topic string, rnd *rand.Rand, n int) *kgo.Record {
	at := w.base.Add(time.Duration(n) * w.step).UnixMilli()
	switch pick := rnd.IntN(1000); {
	case pick == 0:
		at -= 5000 + rnd.Int64N(55_000)
	case pick <= 50:
		at -= rnd.Int64N(2000)
	default:
		at -= rnd.Int64N(20)
	}
	r := record(topic, rnd.Int32N(w.partitions), at, fmt.Sprintf("%d-%d", w.seed, n))
	r.Timestamp = w.base.Add(time.Duration(n) * time.Millisecond)
	if w.payload > 0 {
		r.Value = append(r.Value, make([]byte, w.payload)...)
	}
	odd(r, rnd)
	if w.markers && rnd.IntN(5) == 0 {
		mark := w.base.Add(time.Duration(n)*w.step - w.bound).UnixMilli()
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: "watermark", Value: strconv.AppendInt(nil, mark, 10)})
	}
	switch pick := rnd.IntN(500); {
	case !w.plain && pick == 0:
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: "event-time", Value: []byte("noon")})
		w.invalid++
	case !w.plain && pick == 1:
		day := w.base.Add(25 * time.Hour).UnixMilli()
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: "event-time", Value: strconv.AppendInt(nil, day, 10)})
		w.future++
	case w.untimed && n%7 == 3 && w.newest[r.Partition] != 0:
		r.Headers = slices.DeleteFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == "event-time" })
		if n%5 != 0 {
			r.Key = w.keys[r.Partition]
		}
	default:
		w.judge(r.Partition, at)
		w.keys[r.Partition] = r.Key
	}
	return r
}

// judge is the law of the bounded watermark once more, in ms.
func (w *workload) judge(partition int32, at int64) {
	if newest := w.newest[partition]; newest != 0 && at <= newest-w.bound.Milliseconds()-1 {
		w.late++
	}
	w.newest[partition] = max(w.newest[partition], at)
}

// record returns a record with its event time (ms) in the header.
func record(topic string, partition int32, at int64, value string) *kgo.Record {
	return &kgo.Record{
		Topic: topic, Partition: partition, Key: []byte("k-" + value), Value: []byte(value),
		Headers: []kgo.RecordHeader{{Key: "event-time", Value: strconv.AppendInt(nil, at, 10)}},
	}
}

// odd gives a record one of the shapes that have to survive byte for byte.
func odd(r *kgo.Record, rnd *rand.Rand) {
	add := func(key string, value []byte) {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: key, Value: value})
	}
	switch rnd.IntN(40) {
	case 0:
		r.Key = nil
	case 1:
		r.Value = nil
	case 2:
		r.Key, r.Value = []byte{}, []byte{}
	case 3:
		add("twice", []byte("1"))
		add("twice", []byte("2"))
	case 4:
		add("null", nil)
		add("", []byte{})
	case 5:
		add("tidemark-watermark", []byte("9999999999999"))
		add("tidemark-source-offset", []byte("x"))
	case 6:
		add("tidemark-epoch", []byte("7"))
		add("tidemark-late-reason", nil)
	case 7:
		r.Value = make([]byte, rnd.IntN(20_000))
	}
}
