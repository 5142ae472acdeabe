package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// progress is how far the story and its readers are.
type progress struct {
	since        time.Duration
	sent, total  int
	raw, ordered tally
	late         int
}

func (p *progress) out() int   { return p.ordered.events + p.late }
func (p *progress) held() int  { return max(0, p.raw.events-p.out()) }
func (p *progress) done() bool { return p.raw.events == p.total && p.out() == p.total }

// tell produces the events when their time has come, and returns when they
// have all come out, or nothing has come out for too long.
func (d *demo) tell(ctx context.Context, cl *kgo.Client) error {
	const patience = 20 * time.Second
	ticks := time.NewTicker(20 * time.Millisecond)
	defer ticks.Stop()
	p := progress{total: len(d.events)}
	refused := make(chan error, 1)
	start := time.Now()
	for moved := start; !p.done() && time.Since(moved) < patience; {
		select {
		case <-ctx.Done():
			return stopped(ctx)
		case err := <-refused:
			return fmt.Errorf("produce to %s: %w", storyTopic, err)
		case <-ticks.C:
		}
		before := p.sent + p.out()
		for ; p.sent < p.total && d.events[p.sent].arrives <= time.Since(start); p.sent++ {
			produce(ctx, cl, d.events[p.sent].record(start), refused)
		}
		p.since, p.raw, p.ordered, p.late = time.Since(start), d.raw.sofar(), d.ordered.sofar(), d.witness.lateCount()
		if p.sent+p.out() > before {
			moved = time.Now()
		}
		d.screen.progress(p)
	}
	d.seen = p
	d.screen.finish(p)
	return nil
}

// produce sends a record, and the first refusal to refused.
func produce(ctx context.Context, cl *kgo.Client, r *kgo.Record, refused chan<- error) {
	cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
		if err == nil {
			return
		}
		select {
		case refused <- err:
		default:
		}
	})
}
