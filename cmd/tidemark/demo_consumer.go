package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// billing is the consumer of the story, as one finds it in the wild: it keeps
// a balance per card, takes events for true in the order in which they come,
// and knows nothing of Tidemark. It counts what it does wrong by that.
type billing struct {
	mu       sync.Mutex
	balances map[string]int
	newest   map[string]int64 // event time in ms, by card
	tally    tally
	waits    []time.Duration
}

// tally is what a consumer has done.
type tally struct {
	events   int
	stale    int           // older than one that it had acted on for the same card
	declined int           // purchases, for want of money
	wait     time.Duration // median from the record's arrival in Kafka
}

func newBilling() *billing {
	return &billing{balances: map[string]int{}, newest: map[string]int64{}}
}

// run consumes a topic until ctx is done.
func (b *billing) run(ctx context.Context, broker, topic string) error {
	return consume(ctx, broker, func(r *kgo.Record) error {
		var p payment
		if err := json.Unmarshal(r.Value, &p); err != nil {
			return fmt.Errorf("%s partition %d offset %d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		b.book(p, header(r, eventTimeHeader), time.Since(r.Timestamp))
		return nil
	}, topic)
}

// book does what the consumer is there for.
func (b *billing) book(p payment, eventTime string, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waits = append(b.waits, wait)
	b.tally.events++
	if ms, err := strconv.ParseInt(eventTime, 10, 64); err == nil {
		if ms < b.newest[p.Card] {
			b.tally.stale++
		}
		b.newest[p.Card] = max(b.newest[p.Card], ms)
	}
	balance, known := b.balances[p.Card]
	if !known {
		balance = openingCents
	}
	switch {
	case p.Kind == kindTopUp:
		balance += p.Cents
	case p.Cents > balance:
		b.tally.declined++
	default:
		balance -= p.Cents
	}
	b.balances[p.Card] = balance
}

func (b *billing) sofar() tally {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.tally
	if len(b.waits) > 0 {
		waits := slices.Sorted(slices.Values(b.waits))
		t.wait = waits[len(waits)/2]
	}
	return t
}

// witness keeps all records of the outputs, so that some can be shown.
type witness struct {
	mu            sync.Mutex
	ordered, late []*kgo.Record
}

func (w *witness) run(ctx context.Context, broker, ordered, late string) error {
	return consume(ctx, broker, func(r *kgo.Record) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if r.Topic == late {
			w.late = append(w.late, r)
		} else {
			w.ordered = append(w.ordered, r)
		}
		return nil
	}, ordered, late)
}

func (w *witness) lateCount() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.late)
}

// reasons returns the late records by reason, the most frequent first.
func (w *witness) reasons() [][]*kgo.Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	var groups [][]*kgo.Record
	for _, r := range w.late {
		same := func(g []*kgo.Record) bool {
			return header(g[0], "tidemark-late-reason") == header(r, "tidemark-late-reason")
		}
		if i := slices.IndexFunc(groups, same); i >= 0 {
			groups[i] = append(groups[i], r)
		} else {
			groups = append(groups, []*kgo.Record{r})
		}
	}
	slices.SortStableFunc(groups, func(a, b []*kgo.Record) int { return len(b) - len(a) })
	return groups
}

// neighbours returns two successive records of one partition, from the middle
// of the story, that came in the other order.
func (w *witness) neighbours() []*kgo.Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	part := slices.DeleteFunc(slices.Clone(w.ordered), func(r *kgo.Record) bool { return r.Partition != 0 })
	source := func(r *kgo.Record) int {
		offset, _ := strconv.Atoi(header(r, "tidemark-source-offset"))
		return offset
	}
	for i := len(part) / 2; i+2 <= len(part); i++ {
		if source(part[i]) > source(part[i+1]) {
			return part[i : i+2]
		}
	}
	return part[:min(2, len(part))]
}

// consume reads the committed records of topics from their beginning until
// ctx is done.
func consume(ctx context.Context, broker string, each func(*kgo.Record) error, topics ...string) error {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(broker), kgo.ConsumeTopics(topics...),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	for {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err0(); err != nil {
			return err
		}
		for _, e := range fetches.Errors() {
			err = errors.Join(err, fmt.Errorf("read %s partition %d: %w", e.Topic, e.Partition, e.Err))
		}
		fetches.EachRecord(func(r *kgo.Record) { err = errors.Join(err, each(r)) })
		if err != nil {
			return err
		}
	}
}

// header returns the last header of a name, which is the one that counts.
func header(r *kgo.Record, name string) string {
	for i := len(r.Headers) - 1; i >= 0; i-- {
		if r.Headers[i].Key == name {
			return string(r.Headers[i].Value)
		}
	}
	return ""
}
