package emit

import (
	"context"
	"iter"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Read yields the committed records of a partition in [start, end), which has to
// lie below its last stable offset. It asks the leader itself, with one fetch
// ahead, across changes of the leader; the client need not be a consumer. After an
// error it ends. A record is not to be kept: it would keep the batch it came in.
func Read(ctx context.Context, cl *kgo.Client, topic string, partition int32, start, end int64) iter.Seq2[*kgo.Record, error] {
	return func(yield func(*kgo.Record, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		v := &verification{cl: cl}
		s := v.open(ctx, stretch{topic, partition, start, end})
		for {
			r, err := s.peek()
			if r == nil && err == nil {
				return
			}
			if !yield(r, err) || err != nil {
				return
			}
			s.pop()
		}
	}
}
