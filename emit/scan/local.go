package scan

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Local reports whether a broker itself has the log from the offset on. Of what is in remote
// storage (KIP-405) it answers a fetch with nothing, and without an error, when that storage
// is slow. Where its own log begins only moves up, so one that begins at or below the offset
// now did so when an earlier fetch was answered.
func (f *Fetch) Local(ctx context.Context, broker *kgo.Broker) (bool, error) {
	const earliestLocal = -4 // brokers that do not know it have nothing elsewhere
	part := kmsg.NewListOffsetsRequestTopicPartition()
	part.Partition, part.CurrentLeaderEpoch, part.Timestamp = f.Partition, f.LeaderEpoch, earliestLocal
	topic := kmsg.NewListOffsetsRequestTopic()
	topic.Topic, topic.Partitions = f.Topic, append(topic.Partitions, part)
	req := kmsg.NewPtrListOffsetsRequest()
	req.Topics = append(req.Topics, topic)
	resp, err := broker.RetriableRequest(ctx, req)
	if err != nil {
		return false, err
	}
	answer := resp.(*kmsg.ListOffsetsResponse)
	if len(answer.Topics) != 1 || len(answer.Topics[0].Partitions) != 1 {
		return false, &AnswerError{len(answer.Topics)}
	}
	first := answer.Topics[0].Partitions[0]
	switch err := kerr.ErrorForCode(first.ErrorCode); {
	case errors.Is(err, kerr.UnsupportedVersion):
		return true, nil
	case err != nil:
		return false, err
	}
	return first.Offset <= f.Offset, nil
}
