// Package copyloop moves records from one topic to another as fast as the
// client can, in no order. It is the limit: what Tidemark is measured against.
package copyloop

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/bench/workload"
)

// Options of a copy.
type Options struct {
	Broker        string
	Topic         string // the source; outputs are .ordered and .late, as Tidemark's
	Group         string
	Interval      time.Duration // between commits
	Codec         string        // of the outputs
	AtLeastOnce   bool          // no transactions: commit what is acknowledged
	Split         bool          // what Tidemark would call late goes to .late
	Label         bool          // two headers more on each record, as long as Tidemark's
	PartitionSize int32         // most bytes fetched of a partition at a time
}

// Run copies until ctx is done.
//
// Records are produced as they were fetched: only the topic is changed, so
// nothing is copied and nothing allocated but what the client needs. One
// goroutine polls and produces; the client fetches ahead, compresses and sends
// in its own, and does so while a commit waits for the broker.
func Run(ctx context.Context, o Options) error {
	codec, err := workload.Codec(o.Codec)
	if err != nil {
		return err
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(o.Broker),
		kgo.ConsumerGroup(o.Group),
		kgo.ConsumeTopics(o.Topic),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxPartitionBytes(o.PartitionSize),
		kgo.FetchMaxWait(500 * time.Millisecond),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(codec),
		kgo.ProducerLinger(min(o.Interval/4, 25*time.Millisecond)), // as Tidemark
		kgo.MaxBufferedRecords(100_000),
		kgo.DisableClientMetrics(),
	}
	c := &copier{Options: o, ordered: o.Topic + ".ordered", late: o.Topic + ".late", newest: map[int32]int64{}}
	if o.AtLeastOnce {
		c.cl, err = kgo.NewClient(opts...)
	} else {
		opts = append(opts, kgo.TransactionalID(o.Group+"/copy"), kgo.TransactionTimeout(time.Minute))
		if c.session, err = kgo.NewGroupTransactSession(opts...); err == nil {
			c.cl = c.session.Client()
		}
	}
	if err != nil {
		return err
	}
	defer c.cl.CloseAllowingRebalance()
	if err := c.loop(ctx); err != nil {
		return fmt.Errorf("copy %s: %w", o.Topic, err)
	}
	return nil
}

type copier struct {
	Options
	ordered, late string
	cl            *kgo.Client
	session       *kgo.GroupTransactSession // nil at least once
	begun         time.Time                 // of what is not committed, zero if there is nothing
	newest        map[int32]int64           // event time by partition, ms
	refused       atomic.Pointer[error]
}

func (c *copier) loop(ctx context.Context) error {
	for {
		wait := time.Hour
		if !c.begun.IsZero() {
			wait = c.Interval - time.Since(c.begun)
		}
		polling, cancel := context.WithTimeout(ctx, max(wait, 0))
		fetches := c.cl.PollRecords(polling, 50_000)
		cancel()
		if err := fetches.Err0(); err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			return err
		}
		if err := c.copy(fetches); err != nil {
			return err
		}
		if done := ctx.Err() != nil; done || !c.begun.IsZero() && time.Since(c.begun) >= c.Interval {
			if err := c.commit(); err != nil || done {
				return err
			}
		}
		if c.begun.IsZero() {
			c.cl.AllowRebalance()
		}
	}
}

// copy does not end with the loop's context: what was polled goes out.
func (c *copier) copy(fetches kgo.Fetches) error {
	if fetches.NumRecords() == 0 {
		return nil
	}
	if c.begun.IsZero() {
		c.begun = time.Now()
		if c.session != nil {
			if err := c.session.Begin(); err != nil {
				return err
			}
		}
	}
	var text []byte // a new one for each poll: the client reads it later
	if c.Label {
		text = make([]byte, 0, labelBytes*fetches.NumRecords())
	}
	fetches.EachRecord(func(r *kgo.Record) {
		r.Topic = c.ordered
		if c.Label {
			text = label(r, text)
		}
		if c.Split && c.isLate(r) {
			r.Topic = c.late
		}
		c.cl.Produce(context.Background(), r, c.acknowledged)
	})
	return nil
}

// labelBytes is what the numbers in the labels need at the most.
const labelBytes = 2 * 20

// label appends the headers that Tidemark adds: one with a time in ms, and one with
// the record's offset. The first has another name, since it says nothing true.
func label(r *kgo.Record, text []byte) []byte {
	for _, h := range [...]struct {
		name string
		n    int64
	}{{workload.LabelHeader, r.Timestamp.UnixMilli()}, {"tidemark-source-offset", r.Offset}} {
		from := len(text)
		text = strconv.AppendInt(text, h.n, 10)
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.name, Value: text[from:len(text):len(text)]})
	}
	return text
}

func (c *copier) acknowledged(_ *kgo.Record, err error) {
	if err != nil {
		c.refused.CompareAndSwap(nil, &err)
	}
}

// commit ends the transaction, or commits what has been acknowledged. It also
// works after ctx is done.
func (c *copier) commit() error {
	if c.begun.IsZero() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := c.cl.Flush(ctx); err != nil {
		return err
	}
	if err := c.refused.Load(); err != nil {
		return *err
	}
	c.begun = time.Time{}
	if c.session == nil {
		return c.cl.CommitUncommittedOffsets(ctx)
	}
	committed, err := c.session.End(ctx, kgo.TryCommit)
	if err == nil && !committed {
		err = errors.New("a rebalance aborted a transaction: the copy is the only member, this should not be")
	}
	return err
}

// isLate reads the event time and judges it as Tidemark does.
func (c *copier) isLate(r *kgo.Record) bool {
	ms := int64(0)
	for i := len(r.Headers) - 1; i >= 0; i-- {
		if h := &r.Headers[i]; h.Key == workload.EventTimeHeader {
			for _, digit := range h.Value {
				ms = 10*ms + int64(digit-'0')
			}
			break
		}
	}
	newest := c.newest[r.Partition]
	if ms > newest {
		c.newest[r.Partition] = ms
	}
	return ms < newest-workload.Bound.Milliseconds()
}
