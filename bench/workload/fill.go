package workload

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// start is where event time begins in a topic that is filled beforehand: fixed,
// so that its bytes are the same every time.
var start = time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC)

// Gate is a topic filled in one open transaction. Nobody who reads committed
// records sees any of them before Open, and then everybody sees all.
type Gate struct{ cl *kgo.Client }

// Fill writes a case to a topic that must be empty, at full speed, and leaves
// it behind a Gate. Each partition ends with a record an hour later than the
// others, which lets them all out.
func Fill(ctx context.Context, broker, topic string, c Case, seed uint64) (*Gate, error) {
	cl, err := producer(broker, c.Codec,
		kgo.TransactionalID("fill-"+topic), kgo.TransactionTimeout(15*time.Minute),
		kgo.ProducerLinger(20*time.Millisecond), kgo.MaxBufferedRecords(200_000), kgo.MaxBufferedBytes(256<<20))
	if err != nil {
		return nil, err
	}
	if err := fill(ctx, cl, topic, c, seed); err != nil {
		cl.Close()
		return nil, fmt.Errorf("fill %s: %w", topic, err)
	}
	return &Gate{cl}, nil
}

func producer(broker, codec string, opts ...kgo.Opt) (*kgo.Client, error) {
	compression, err := Codec(codec)
	if err != nil {
		return nil, err
	}
	return kgo.NewClient(append(opts,
		kgo.SeedBrokers(broker), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(compression))...)
}

// Codec returns the compression of a name.
func Codec(name string) (kgo.CompressionCodec, error) {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	codec, ok := codecs[name]
	if !ok {
		return codec, fmt.Errorf("no codec %q", name)
	}
	return codec, nil
}

func fill(ctx context.Context, cl *kgo.Client, topic string, c Case, seed uint64) error {
	if err := cl.BeginTransaction(); err != nil {
		return err
	}
	streams := make([]*stream, c.Partitions)
	for p := range streams {
		streams[p] = newStream(c, topic, seed, int32(p))
	}
	var failed atomic.Pointer[error]
	produce := func(r *kgo.Record) {
		offset, _ := Identity(r.Value)
		cl.Produce(ctx, r, func(r *kgo.Record, err error) {
			if err == nil && r.Offset != offset {
				err = errors.New("the topic was not empty")
			}
			if err != nil {
				failed.CompareAndSwap(nil, &err)
			}
		})
	}
	place := start
	for range c.PerPartition() {
		for _, s := range streams {
			produce(s.record(place))
		}
		place = place.Add(c.Step)
		if err := failed.Load(); err != nil {
			return *err
		}
	}
	for _, s := range streams {
		produce(s.at(place.Add(time.Hour).UnixMilli()))
	}
	if err := cl.Flush(ctx); err != nil {
		return err
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// Open lets everybody see the records, and returns the moment before which
// nobody could.
func (g *Gate) Open(ctx context.Context) (time.Time, error) {
	opened := time.Now()
	err := g.cl.EndTransaction(ctx, kgo.TryCommit)
	return opened, err
}

// Close gives the connections back. What was not opened is aborted.
func (g *Gate) Close() { g.cl.Close() }
