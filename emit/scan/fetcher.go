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

const (
	fetchBytes   = 4 << 20 // per fetch; compressed, as on the wire
	fetchRetries = 60      // in a row
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
		return nil, fmt.Errorf("read %s partition %d: retention has deleted offset %d meanwhile", f.Topic, f.Partition, f.next)
	}
	return nil, fmt.Errorf("read %s partition %d at offset %d: %w", f.Topic, f.Partition, f.next, err)
}

func (f *fetcher) fetch(ctx context.Context) ([]*kgo.Record, error) {
	if f.leader < 0 {
		if err := f.findLeader(ctx); err != nil {
			return nil, err
		}
	}
	resp, err := f.cl.Broker(int(f.leader)).Request(ctx, f.request())
	if err != nil {
		return nil, err
	}
	answer := resp.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		return nil, err
	}
	if len(answer.Topics) != 1 || len(answer.Topics[0].Partitions) != 1 {
		return nil, errors.New("the broker answered for other partitions than asked")
	}
	part := &answer.Topics[0].Partitions[0]
	f.holed = holed(part.RecordBatches, f.next)
	opts := kgo.ProcessFetchPartitionOpts{
		Offset: f.next, IsolationLevel: kgo.ReadCommitted(), Topic: f.Topic, Partition: f.Partition,
	}
	got, next := kgo.ProcessFetchPartition(opts, part, f.unzip, nil)
	if got.Err != nil {
		return nil, got.Err
	}
	if len(part.RecordBatches) == 0 && got.LastStableOffset >= f.End {
		next = f.End // a broker sends a batch if there is one: the rest is a hole
		f.holed = f.holed || f.next < f.End
	}
	f.next = next
	for n := len(got.Records); n > 0 && got.Records[n-1].Offset >= f.End; n-- {
		got.Records = got.Records[:n-1]
	}
	return got.Records, nil
}

func (f *fetcher) request() *kmsg.FetchRequest {
	part := kmsg.NewFetchRequestTopicPartition()
	part.Partition, part.FetchOffset, part.PartitionMaxBytes = f.Partition, f.next, fetchBytes
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.TopicID = f.Topic, f.topicID
	topic.Partitions = append(topic.Partitions, part)
	req := kmsg.NewPtrFetchRequest()
	// There is one partition, so its bound is the one that counts.
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.IsolationLevel = 500, 1, 2*fetchBytes, 1
	req.Topics = append(req.Topics, topic)
	return req
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
	const (
		length, magic, lastDelta, records = 8, 16, 23, 57 // where they stand
		header                            = 61
	)
	for len(batches) >= header {
		first, size := int64(binary.BigEndian.Uint64(batches)), int(binary.BigEndian.Uint32(batches[length:]))+length+4
		if batches[magic] < 2 {
			return true
		}
		last, n := int64(binary.BigEndian.Uint32(batches[lastDelta:])), int64(binary.BigEndian.Uint32(batches[records:]))
		if first > next || n != last+1 {
			return true
		}
		next = first + last + 1
		if size < header || size > len(batches) {
			break
		}
		batches = batches[size:]
	}
	return false
}
