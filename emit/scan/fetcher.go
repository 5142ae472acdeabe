package scan

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ErrDeleted says that offsets of the stretch were deleted while it was read.
var ErrDeleted = errors.New("deleted meanwhile")

// What may pass, and is asked again for as long as errors of brokers are.
var (
	// ErrShort: a leader whose log ends before the stretch does, for now or for good.
	ErrShort = errors.New("the leader's last stable offset is lower than it was")
	// ErrRemote: a leader whose remote storage does not answer.
	ErrRemote = errors.New("the leader has nothing yet from its remote storage")
)

const (
	fetchBytes   = 4 << 20
	fetchWait    = 500 * time.Millisecond
	fetchRetries = 60 // in a row
)

// fetcher asks the leader of a partition for one stretch, fetch by fetch.
type fetcher struct {
	Stretch
	cl      *kgo.Client
	next    int64
	leader  int32 // -1: unknown
	topicID [16]byte
	unzip   kgo.Decompressor
	holed   bool // the last fetch found records missing
}

func newFetcher(cl *kgo.Client, s Stretch) *fetcher {
	unzip, _ := cl.OptValue(kgo.WithDecompressor).(kgo.Decompressor) // it has the client's bound
	return &fetcher{cl: cl, Stretch: s, next: s.Start, leader: -1, unzip: unzip}
}

func (f *fetcher) run(ctx context.Context, answers chan<- answer) {
	defer close(answers)
	for f.next < f.End {
		recs, err := f.patiently(ctx)
		select {
		case answers <- answer{recs, f.next, f.holed, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// patiently fetches until there is an answer, across changes of the leader.
func (f *fetcher) patiently(ctx context.Context) (recs []*kgo.Record, err error) {
	for try := range fetchRetries {
		if recs, err = f.fetch(ctx); err == nil {
			return recs, nil
		}
		var refused *kerr.Error
		if ctx.Err() != nil || errors.As(err, &refused) && !refused.Retriable {
			break
		}
		f.leader = -1
		select {
		case <-ctx.Done():
		case <-time.After(min(time.Duration(try+1)*50*time.Millisecond, time.Second)):
		}
	}
	if errors.Is(err, kerr.OffsetOutOfRange) {
		return nil, fmt.Errorf("read %s partition %d: offset %d was %w, by retention most likely", f.Topic, f.Partition, f.next, ErrDeleted)
	}
	return nil, fmt.Errorf("read %s partition %d at offset %d: %w", f.Topic, f.Partition, f.next, err)
}

func (f *fetcher) fetch(ctx context.Context) ([]*kgo.Record, error) {
	if f.leader < 0 {
		if err := f.findLeader(ctx); err != nil {
			return nil, err
		}
	}
	ask := Fetch{
		Topic: f.Topic, TopicID: f.topicID, Partition: f.Partition, Offset: f.next, LeaderEpoch: -1,
		Wait: fetchWait, Bytes: fetchBytes,
	}
	got, err := ask.From(ctx, f.cl.Broker(int(f.leader)), f.unzip)
	if err != nil {
		return nil, err
	}
	f.holed = holed(got.Batches, f.next)
	if len(got.Batches) > 0 {
		f.next = got.Next
	} else if err := f.passHole(ctx, &ask, got.Stable); err != nil {
		return nil, err
	}
	for n := len(got.Records); n > 0 && got.Records[n-1].Offset >= f.End; n-- {
		got.Records = got.Records[:n-1]
	}
	return got.Records, nil
}

// passHole passes over the rest of the stretch, of which a broker has sent nothing. It sends
// a batch if there is one below its last stable offset and on its own disk.
func (f *fetcher) passHole(ctx context.Context, ask *Fetch, stable int64) error {
	if stable < f.End {
		return fmt.Errorf("%w: %d, and records up to %d were there before", ErrShort, stable, f.End)
	}
	local, err := ask.Local(ctx, f.cl.Broker(int(f.leader)))
	switch {
	case err != nil:
		return fmt.Errorf("ask where the leader's own log begins: %w", err)
	case !local:
		return ErrRemote
	}
	f.next, f.holed = f.End, true
	return nil
}

func (f *fetcher) findLeader(ctx context.Context) error {
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = kmsg.StringPtr(f.Topic)
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, f.cl)
	if err != nil {
		return err
	}
	for _, t := range resp.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return err
		}
		for _, p := range t.Partitions {
			if p.Partition != f.Partition {
				continue
			}
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return err
			}
			f.leader, f.topicID = p.Leader, t.TopicID
			return nil
		}
	}
	return fmt.Errorf("no metadata of %s partition %d", f.Topic, f.Partition)
}

// holed reports whether batches, fetched from an offset on, leave out offsets between
// them or inside. Control records and aborted ones stand in batches as others do;
// compaction leaves holes. Batches of before Kafka 0.11 do not tell.
func holed(batches []byte, next int64) bool {
	for len(batches) >= batchHeader {
		first, size := int64(binary.BigEndian.Uint64(batches)), int(binary.BigEndian.Uint32(batches[atLength:]))+atLength+4
		if batches[atMagic] < 2 {
			return true
		}
		last, n := int64(binary.BigEndian.Uint32(batches[atLastDelta:])), int64(binary.BigEndian.Uint32(batches[atRecords:]))
		if first > next || n != last+1 {
			return true
		}
		next = first + last + 1
		if size < batchHeader || size > len(batches) {
			break
		}
		batches = batches[size:]
	}
	return false
}
