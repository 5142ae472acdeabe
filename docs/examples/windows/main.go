// Windows adds up the values of a topic's records by key, in the windows that
// Tidemark says they are in, and writes every sum once its window is closed:
//
//	go run ./docs/examples/windows BROKERS TOPIC FAMILY OUTPUT
//	go run ./docs/examples/windows localhost:9092 payments tumbling:1m payments.sums
//
// Tidemark runs with TIDEMARK_WINDOWS=FAMILY, a tumbling or hopping one. Values
// are whole numbers, as text. A row of the output has the key "PARTITION EPOCH
// START END LATE KEY", where LATE is the source offset of a late record, and else
// "-": the sum of a window is that of its rows, of each the latest. Why this is
// right is in docs/windows.md; windows.py and Windows.java do the same.
package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

type window struct{ start, end int64 }

// sums are those of an open window.
type sums struct {
	first int64 // offset of its first record
	byKey map[string]int64
}

// partition is what is known of a partition of TOPIC.ordered.
type partition struct {
	number int32
	epoch  int64
	closed int64 // the watermark: what ends at or before it is written
	open   map[window]*sums
	next   int64 // offset; -1 before the first record
}

// take adds a record to its windows, and writes those that it closes.
func (p *partition) take(r *kgo.Record, in []window, write func(key string, sum int64)) error {
	amount, err := strconv.ParseInt(string(r.Value), 10, 64)
	if err != nil {
		return err
	}
	if epoch := number(r, "tidemark-epoch", 0); epoch != p.epoch { // no more comes of the one before
		p.close(math.MaxInt64, write)
		p.epoch, p.closed = epoch, math.MinInt64
	}
	for _, w := range in {
		if w.end-1 <= p.closed {
			continue // read again after a restart; it is written
		}
		if p.open[w] == nil {
			p.open[w] = &sums{r.Offset, map[string]int64{}}
		}
		p.open[w].byKey[string(r.Key)] += amount
	}
	p.close(number(r, "tidemark-watermark", p.closed), write)
	p.next = r.Offset + 1
	return nil
}

func (p *partition) close(watermark int64, write func(key string, sum int64)) {
	for w, s := range p.open {
		if w.end-1 <= watermark {
			for key, sum := range s.byKey {
				write(row(p.number, p.epoch, w, "-", key), sum)
			}
			delete(p.open, w)
		}
	}
	p.closed = max(p.closed, watermark) // what is read again says less
}

// commit returns where to go on after a restart, and what to know there: from
// the first record of the oldest open window, with all that is written left out.
func (p *partition) commit() (offset int64, metadata string) {
	offset = p.next
	for _, s := range p.open {
		offset = min(offset, s.first)
	}
	return offset, fmt.Sprint(p.epoch, p.closed)
}

// restart reads the metadata of a commit; there is none before the first.
func restart(number int32, metadata string) *partition {
	p := &partition{number: number, closed: math.MinInt64, open: map[window]*sums{}, next: -1}
	_, _ = fmt.Sscan(metadata, &p.epoch, &p.closed)
	return p
}

func row(partition int32, epoch int64, w window, late, key string) string {
	return fmt.Sprintf("%d %d %d %d %s %s", partition, epoch, w.start, w.end, late, key)
}

// header returns the last header of a name, which is Tidemark's.
func header(r *kgo.Record, name string) (value string, ok bool) {
	for i := len(r.Headers) - 1; i >= 0; i-- {
		if r.Headers[i].Key == name {
			return string(r.Headers[i].Value), true
		}
	}
	return "", false
}

func number(r *kgo.Record, name string, otherwise int64) int64 {
	text, _ := header(r, name)
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	return otherwise
}

// windows reads the windows that a record is in.
func windows(r *kgo.Record, family string) (in []window, err error) {
	text, ok := header(r, "tidemark-window-"+family)
	if !ok { // too large for it; or Tidemark runs without
		return nil, fmt.Errorf("%s partition %d offset %d is in no window of %s", r.Topic, r.Partition, r.Offset, family)
	}
	for pair := range strings.FieldsSeq(text) {
		var w window
		if _, err := fmt.Sscanf(pair, "%d,%d", &w.start, &w.end); err != nil {
			return nil, err
		}
		in = append(in, w)
	}
	return in, nil
}

// consumer is one member of a group that reads TOPIC.ordered and TOPIC.late.
type consumer struct {
	cl             *kgo.Client
	group          string
	ordered, late  string // topics
	family, output string
	open           map[int32]*partition  // of the ordered topic
	corrected      map[int32]int64       // next offsets of the late topic
	failed         atomic.Pointer[error] // to write
}

func run(ctx context.Context, brokers, topic, family, output string, opts ...kgo.Opt) error {
	c := &consumer{
		group: "windows-" + topic, ordered: topic + ".ordered", late: topic + ".late", family: family, output: output,
		open: map[int32]*partition{}, corrected: map[int32]int64{},
	}
	var err error
	c.cl, err = kgo.NewClient(append(opts,
		kgo.SeedBrokers(strings.Split(brokers, ",")...),
		kgo.ConsumerGroup(c.group), kgo.ConsumeTopics(c.ordered, c.late),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.SessionTimeout(6*time.Second),
		kgo.OnPartitionsAssigned(c.assigned), kgo.OnPartitionsRevoked(c.revoked), kgo.OnPartitionsLost(c.revoked),
	)...)
	if err != nil {
		return err
	}
	defer c.cl.CloseAllowingRebalance()
	for {
		fetches := c.cl.PollFetches(ctx)
		err := errors.Join(fetches.Err(), c.failure())
		for records := fetches.RecordIter(); err == nil && !records.Done(); {
			err = c.take(ctx, records.Next())
		}
		if err == nil {
			err = c.commit(ctx)
		}
		if err != nil {
			return err
		}
		c.cl.AllowRebalance()
	}
}

func (c *consumer) take(ctx context.Context, r *kgo.Record) error {
	if r.Topic == c.ordered {
		in, err := windows(r, c.family)
		if err != nil {
			return err
		}
		return c.open[r.Partition].take(r, in, func(key string, sum int64) { c.write(ctx, key, sum) })
	}
	c.corrected[r.Partition] = r.Offset + 1
	return c.correct(ctx, r)
}

// correct writes what a late record adds to its windows as rows of its own. So it
// does not matter whether they are closed, or how often it is done.
func (c *consumer) correct(ctx context.Context, r *kgo.Record) error {
	switch reason, _ := header(r, "tidemark-late-reason"); reason {
	case "future", "invalid-time", "duplicate":
		return nil // it is not its lateness that is wrong
	}
	in, err := windows(r, c.family)
	if err != nil {
		return err
	}
	amount, err := strconv.ParseInt(string(r.Value), 10, 64)
	if err != nil {
		return err
	}
	source, _ := header(r, "tidemark-source-offset")
	for _, w := range in {
		c.write(ctx, row(r.Partition, number(r, "tidemark-epoch", 0), w, source, string(r.Key)), amount)
	}
	return nil
}

func (c *consumer) write(ctx context.Context, key string, sum int64) {
	r := &kgo.Record{Topic: c.output, Key: []byte(key), Value: strconv.AppendInt(nil, sum, 10)}
	c.cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
		if err != nil {
			c.failed.CompareAndSwap(nil, &err)
		}
	})
}

func (c *consumer) failure() error {
	if err := c.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// commit comes after everything that was written is there to stay: what is
// written again after a restart replaces itself.
func (c *consumer) commit(ctx context.Context) error {
	if err := errors.Join(c.cl.Flush(ctx), c.failure()); err != nil {
		return err
	}
	offsets := map[string]map[int32]kgo.EpochOffset{}
	metadata := map[string]map[int32]string{}
	add := func(topic string, partition int32, at int64, text string) {
		if offsets[topic] == nil {
			offsets[topic], metadata[topic] = map[int32]kgo.EpochOffset{}, map[int32]string{}
		}
		offsets[topic][partition] = kgo.EpochOffset{Epoch: -1, Offset: at}
		metadata[topic][partition] = text
	}
	for n, p := range c.open {
		if p.next >= 0 {
			at, text := p.commit()
			add(c.ordered, n, at, text)
		}
	}
	for n, at := range c.corrected {
		add(c.late, n, at, "")
	}
	if len(offsets) == 0 {
		return nil
	}
	ctx = kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		for _, t := range req.Topics {
			for i := range t.Partitions {
				text := metadata[t.Topic][t.Partitions[i].Partition]
				t.Partitions[i].Metadata = &text
			}
		}
		return nil
	})
	var failed error
	c.cl.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		if failed = err; err != nil {
			return
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				failed = errors.Join(failed, kerr.ErrorForCode(p.ErrorCode))
			}
		}
	})
	return failed
}

// assigned begins where the last commit says, whoever made it.
func (c *consumer) assigned(ctx context.Context, cl *kgo.Client, parts map[string][]int32) {
	commits, err := kadm.NewClient(cl).FetchOffsets(ctx, c.group)
	if err != nil {
		c.failed.CompareAndSwap(nil, &err)
		return
	}
	for _, n := range parts[c.ordered] {
		at, _ := commits.Lookup(c.ordered, n)
		c.open[n] = restart(n, at.Metadata)
	}
}

func (c *consumer) revoked(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	for _, n := range parts[c.ordered] {
		delete(c.open, n)
	}
	for _, n := range parts[c.late] {
		delete(c.corrected, n)
	}
}

func main() {
	if len(os.Args) != 5 || strings.HasPrefix(os.Args[3], "sliding") {
		fmt.Fprintln(os.Stderr, "usage: windows BROKERS TOPIC FAMILY OUTPUT")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "windows:", err)
		os.Exit(1)
	}
}
