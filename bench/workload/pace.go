package workload

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// tick is how often a paced producer writes. A record waits for its tick only
// in the plan: event times are those of the ticks.
const tick = 2 * time.Millisecond

// Step is a moment from which on records up to an event time can be judged:
// the maximum of a partition has risen.
type Step struct {
	Max  int64     // ms
	Sent time.Time // when the record that has it was given to the client
}

// Paced is what a paced producer has written.
type Paced struct {
	Records int64
	Steps   [][]Step // by partition; Max and Sent both rise
}

// Pace writes rate records a second to a topic that must be empty, until the
// time is up. Event times are the wall clock's, less each record's lag.
//
// A record is handed to the client and goes out at once: it does not linger.
// If the broker holds the producer up, later ticks follow without a pause, and
// Sent tells when they really went.
func Pace(ctx context.Context, broker, topic string, c Case, seed uint64, rate int, d time.Duration) (*Paced, error) {
	cl, err := producer(broker, c.Codec, kgo.ProducerLinger(0), kgo.MaxBufferedRecords(200_000))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	c.Step = time.Second * time.Duration(c.Partitions) / time.Duration(rate)
	streams := make([]*stream, c.Partitions)
	for p := range streams {
		streams[p] = newStream(c, topic, seed, int32(p))
	}
	paced := &Paced{Steps: make([][]Step, c.Partitions)}
	var failed atomic.Pointer[error]
	begun := time.Now()
	for at := time.Duration(0); at < d; at += tick {
		if err := sleep(ctx, time.Until(begun.Add(at))); err != nil {
			return nil, err
		}
		for due := int64(at+tick) * int64(rate) / int64(time.Second); paced.Records < due; paced.Records++ {
			s := streams[paced.Records%int64(len(streams))]
			r := s.record(begun.Add(at))
			paced.note(s.partition, r.Timestamp.UnixMilli())
			cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
				if err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			})
		}
		if err := failed.Load(); err != nil {
			return nil, fmt.Errorf("write to %s: %w", topic, *err)
		}
	}
	return paced, cl.Flush(ctx)
}

func (p *Paced) note(partition int32, ms int64) {
	steps := p.Steps[partition]
	if n := len(steps); n == 0 || ms > steps[n-1].Max {
		p.Steps[partition] = append(steps, Step{ms, time.Now()})
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
