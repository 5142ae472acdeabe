package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Ends follows the last stable offsets of topics: up to there a consumer that
// reads committed records can see, and no further.
type Ends struct {
	topics     []string
	partitions int32
	every      time.Duration
	rises      [][]rise // by topic and partition
	total      int64
	rose       time.Time // the total, last
}

// rise is a last stable offset and when it was first seen.
type rise struct {
	end  int64
	seen time.Time
}

// FollowEnds returns the Ends of empty topics. They are asked for every 5 ms,
// and more rarely where there are so many partitions that it would cost.
func FollowEnds(topics []string, partitions int32) *Ends {
	return &Ends{
		topics: topics, partitions: partitions,
		every: max(5*time.Millisecond, time.Duration(partitions)*100*time.Microsecond),
		rises: make([][]rise, len(topics)*int(partitions)),
	}
}

// Await follows until the ends have risen by at least as many offsets as there
// are records, and then stand still. Markers of transactions are offsets, too,
// so this tells that all may be there, and Reached when they were.
func (e *Ends) Await(ctx context.Context, c *Cluster, records int64, still, patience time.Duration) error {
	e.rose = time.Now()
	for {
		if err := e.look(ctx, c); err != nil {
			return fmt.Errorf("ask for the ends of %s: %w", e.topics[0], err)
		}
		quiet := time.Since(e.rose)
		if e.total >= records && quiet > still {
			return nil
		}
		if quiet > patience {
			return fmt.Errorf("nothing has come out for %s, and only %d offsets of %d records", patience, e.total, records)
		}
		select {
		case <-time.After(e.every):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (e *Ends) look(ctx context.Context, c *Cluster) error {
	req := kmsg.NewPtrListOffsetsRequest()
	req.IsolationLevel = 1
	for _, topic := range e.topics {
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = topic
		for n := range e.partitions {
			p := kmsg.NewListOffsetsRequestTopicPartition()
			p.Partition, p.Timestamp = n, -1
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, c.cl)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return err
			}
			e.note(t.Topic, p.Partition, p.Offset, now)
		}
	}
	return nil
}

func (e *Ends) note(topic string, partition int32, end int64, now time.Time) {
	rs := &e.rises[e.index(topic, partition)]
	last := int64(0)
	if n := len(*rs); n > 0 {
		last = (*rs)[n-1].end
	}
	if end > last {
		*rs = append(*rs, rise{end, now})
		e.total += end - last
		e.rose = now
	}
}

func (e *Ends) index(topic string, partition int32) int {
	return slices.Index(e.topics, topic)*int(e.partitions) + int(partition)
}

// Reached returns when an offset was first seen to be below the last stable
// offset: at most one question later than it was.
func (e *Ends) Reached(topic string, partition int32, offset int64) (time.Time, error) {
	for _, r := range e.rises[e.index(topic, partition)] {
		if r.end > offset {
			return r.seen, nil
		}
	}
	return time.Time{}, errors.New("the record became visible only after the end")
}
