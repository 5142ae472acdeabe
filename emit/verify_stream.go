package emit

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

// stretch is what there is to read of one partition: [start, end).
type stretch struct {
	topic      string
	partition  int32
	start, end int64
}

func (s stretch) len() int64 { return s.end - s.start }

// stream reads a stretch, committed records only. It asks for records with
// its own fetch requests rather than as a consumer: a consumer does not tell
// how far it has come where there is nothing to deliver (aborted records,
// control records and holes at the end), and cannot be read from one
// partition at a time.
type stream struct {
	stretch
	next    int64 // the first offset that is not in hand
	recs    []*kgo.Record
	ended   bool
	answers chan answer
	cancel  context.CancelFunc
	count   func(offsets int64)
	holed   func() // if set, it is told that records are missing in the midst
}

// answer is what one fetch brought: all records in [.., next), and whether some are
// missing.
type answer struct {
	recs  []*kgo.Record
	next  int64
	holed bool
	err   error
}

const (
	fetchBytes   = 4 << 20 // per fetch; compressed, as on the wire
	fetchRetries = 60      // in a row
)

// open starts reading a stretch. It ends with the context.
func (v *verification) open(ctx context.Context, s stretch) *stream {
	ctx, cancel := context.WithCancel(ctx)
	unzip, _ := v.cl.OptValue(kgo.WithDecompressor).(kgo.Decompressor) // it has the client's bound
	f := &fetcher{cl: v.cl, stretch: s, next: s.start, leader: -1, unzip: unzip}
	st := &stream{
		stretch: s, next: s.start, ended: s.start >= s.end,
		answers: make(chan answer, 1), cancel: cancel, count: v.progress,
	}
	go f.run(ctx, st.answers)
	return st
}

// peek returns the next record, or nil at the end of the stretch.
func (s *stream) peek() (*kgo.Record, error) {
	for len(s.recs) == 0 && !s.ended {
		a, ok := <-s.answers
		if !ok {
			return nil, context.Canceled
		}
		if a.err != nil {
			return nil, a.err
		}
		if a.holed && s.holed != nil {
			s.holed()
		}
		s.count(min(a.next, s.end) - s.next)
		s.recs, s.next = a.recs, min(a.next, s.end)
		s.ended = a.next >= s.end
	}
	if len(s.recs) == 0 {
		return nil, nil
	}
	return s.recs[0], nil
}

func (s *stream) pop() { s.recs = s.recs[1:] }

// fetcher asks the leader of a partition for one stretch, fetch by fetch.
type fetcher struct {
	stretch
	cl      *kgo.Client
	next    int64
	leader  int32 // -1: unknown
	topicID [16]byte
	unzip   kgo.Decompressor
	holed   bool // the last fetch found records missing
}

func (f *fetcher) run(ctx context.Context, answers chan<- answer) {
	defer close(answers)
	for f.next < f.end {
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
		return nil, fmt.Errorf("read %s partition %d: retention has deleted offset %d meanwhile", f.topic, f.partition, f.next)
	}
	return nil, fmt.Errorf("read %s partition %d at offset %d: %w", f.topic, f.partition, f.next, err)
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
		Offset: f.next, IsolationLevel: kgo.ReadCommitted(), Topic: f.topic, Partition: f.partition,
	}
	got, next := kgo.ProcessFetchPartition(opts, part, f.unzip, nil)
	if got.Err != nil {
		return nil, got.Err
	}
	if len(part.RecordBatches) == 0 && got.LastStableOffset >= f.end {
		next = f.end // a broker sends a batch if there is one: the rest is a hole
		f.holed = f.holed || f.next < f.end
	}
	f.next = next
	for n := len(got.Records); n > 0 && got.Records[n-1].Offset >= f.end; n-- {
		got.Records = got.Records[:n-1]
	}
	return got.Records, nil
}

func (f *fetcher) request() *kmsg.FetchRequest {
	part := kmsg.NewFetchRequestTopicPartition()
	part.Partition, part.FetchOffset, part.PartitionMaxBytes = f.partition, f.next, fetchBytes
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.TopicID = f.topic, f.topicID
	topic.Partitions = append(topic.Partitions, part)
	req := kmsg.NewPtrFetchRequest()
	// There is one partition, so its bound is the one that counts.
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.IsolationLevel = 500, 1, 2*fetchBytes, 1
	req.Topics = append(req.Topics, topic)
	return req
}

func (f *fetcher) findLeader(ctx context.Context) error {
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = kmsg.StringPtr(f.topic)
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
			if p.Partition != f.partition {
				continue
			}
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return err
			}
			f.leader, f.topicID = p.Leader, t.TopicID
			return nil
		}
	}
	return fmt.Errorf("no metadata of %s partition %d", f.topic, f.partition)
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
