package scan

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Fetch requests the committed records of one partition from an offset on.
type Fetch struct {
	Topic       string
	TopicID     [16]byte
	Partition   int32
	Offset      int64
	LeaderEpoch int32         // the newest that is known, -1 if none is
	Wait        time.Duration // how long the broker waits for records where there are none
	Bytes       int32         // compressed, as on the wire; one batch may have more
	Control     bool          // control records are wanted, too
}

// Answer is what a broker answers to a Fetch.
type Answer struct {
	Records          []*kgo.Record // with their true timestamps, which the client's own need not be
	Next             int64         // the offset behind all that was sent, with or without records
	Batches          []byte        // as they were sent; empty if the broker has none to send
	Stable           int64         // the last stable offset
	PreferredReplica int32         // another broker that is to be asked instead, -1 if none is
}

// AnswerError says that an answer is not about the requested partition. A broker that
// throttles us answers without any partition.
type AnswerError struct {
	Topics int // how many it is about
}

func (*AnswerError) Error() string {
	return "the broker answered for another partition than the one asked for"
}

// From sends the request to a broker. The error is an AnswerError, or wraps one of kerr's if
// the broker refuses.
func (f *Fetch) From(ctx context.Context, broker *kgo.Broker, unzip kgo.Decompressor) (Answer, error) {
	resp, err := broker.Request(ctx, f.request())
	if err != nil {
		return Answer{}, err
	}
	answer := resp.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		return Answer{}, err
	}
	if len(answer.Topics) != 1 || len(answer.Topics[0].Partitions) != 1 {
		return Answer{}, &AnswerError{len(answer.Topics)}
	}
	part := &answer.Topics[0].Partitions[0]
	unzipped := &keeping{unzip, map[*byte][]byte{}}
	got, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		KeepControlRecords: f.Control, Offset: f.Offset, IsolationLevel: kgo.ReadCommitted(), Topic: f.Topic, Partition: f.Partition,
	}, part, unzipped, nil)
	if got.Err != nil {
		return Answer{}, got.Err
	}
	correctTimestamps(got.Records, part.RecordBatches, unzipped)
	return Answer{got.Records, next, part.RecordBatches, got.LastStableOffset, part.PreferredReadReplica}, nil
}

func (f *Fetch) request() *kmsg.FetchRequest {
	const readCommitted = 1
	part := kmsg.NewFetchRequestTopicPartition()
	part.Partition, part.FetchOffset, part.CurrentLeaderEpoch, part.PartitionMaxBytes = f.Partition, f.Offset, f.LeaderEpoch, f.Bytes
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.TopicID = f.Topic, f.TopicID
	topic.Partitions = append(topic.Partitions, part)
	req := kmsg.NewPtrFetchRequest()
	// With one partition its own limit is enough. An answer cut by the limit of the whole
	// request may lack its list of aborted transactions.
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.IsolationLevel = int32(f.Wait.Milliseconds()), 0, 2*f.Bytes, readCommitted
	if f.Wait > 0 {
		req.MinBytes = 1
	}
	req.Topics = append(req.Topics, topic)
	return req
}
