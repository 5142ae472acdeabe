package proxy

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// reader is a consumer of committed records that watches the clock: what it
// has to wait for is what the consumer behind Tidemark has to wait for.
type reader struct {
	cl    *kgo.Client
	mu    sync.Mutex
	last  map[int32]time.Time
	flows map[int32]time.Time // since when there has been no gap
	gaps  []gap
	done  chan struct{}
}

// gap is a time in which a partition had nothing to read.
type gap struct {
	partition int32
	from, to  time.Time
}

func (g gap) length() time.Duration { return g.to.Sub(g.from) }

const (
	notable = 50 * time.Millisecond  // the shortest gap that is kept
	broken  = 500 * time.Millisecond // the shortest that interrupts a flow
)

func (c *cluster) lookOn(topic string, partitions ...int32) *reader {
	at := map[int32]kgo.Offset{}
	for _, n := range partitions {
		at[n] = kgo.NewOffset().AtStart()
	}
	r := &reader{
		last: map[int32]time.Time{}, flows: map[int32]time.Time{}, done: make(chan struct{}),
		cl: c.client(append(eager(), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
			kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: at}))...),
	}
	go r.read()
	return r
}

// eager are the options of a client that loses no time of its own where time
// is measured.
func eager() []kgo.Opt {
	return []kgo.Opt{
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }),
		kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.RequestRetries(1000),
		kgo.DialTimeout(2 * time.Second),
	}
}

func (r *reader) read() {
	defer close(r.done)
	for {
		fetches := r.cl.PollFetches(context.Background())
		if fetches.IsClientClosed() {
			return
		}
		r.take(fetches, time.Now())
	}
}

func (r *reader) take(fetches kgo.Fetches, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if len(p.Records) == 0 {
			return
		}
		last, ok := r.last[p.Partition]
		if ok && now.Sub(last) >= notable {
			r.gaps = append(r.gaps, gap{p.Partition, last, now})
		}
		if !ok || now.Sub(last) >= broken {
			r.flows[p.Partition] = now
		}
		r.last[p.Partition] = now
	})
}

// flowed reports whether so many partitions have had records all the time for
// that long, and until now.
func (r *reader) flowed(partitions int, long time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for partition, from := range r.flows {
		if time.Since(from) > long && time.Since(r.last[partition]) < broken {
			n++
		}
	}
	return n >= partitions
}

// since returns the greatest measure of the gaps that ended after a moment.
func (r *reader) since(moment time.Time, measure func(gap) time.Duration) (most time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.gaps {
		if g.to.After(moment) {
			most = max(most, measure(g))
		}
	}
	return most
}

// leave ends the reader and returns the longest time that a partition was
// without a record, from one record to the next.
func (r *reader) leave() time.Duration {
	r.cl.Close()
	<-r.done
	if len(r.gaps) == 0 {
		return 0
	}
	return slices.MaxFunc(r.gaps, func(a, b gap) int { return int(a.length() - b.length()) }).length()
}
