package suite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tidemarkhq/tidemark/bench/measure"
)

// child is a candidate at work.
type child struct {
	*measure.Process
	job
	candidate Candidate
	log       *os.File
	joined    time.Time // the group
	ready     time.Time
}

// start starts a candidate on a topic and waits until it is ready to work.
func (s *Suite) start(ctx context.Context, c Candidate, topic string, partitions int32) (_ *child, err error) {
	ch := &child{candidate: c, job: job{topic: topic, group: "group-" + topic, partitions: partitions}}
	ch.dir = filepath.Join(s.work, fmt.Sprintf("%d-%s", s.runs, c.Name))
	if err := os.MkdirAll(ch.dir, 0o755); err != nil {
		return nil, err
	}
	if ch.log, err = os.Create(filepath.Join(ch.dir, "log")); err != nil {
		return nil, err
	}
	cmd := c.command(s, ch.job)
	saysReady := &ready{said: make(chan struct{})}
	cmd.Stdout, cmd.Stderr, cmd.Dir = saysReady, ch.log, ch.dir
	if ch.Process, err = measure.Start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	waiting, cancel := ch.within(ctx, 2*time.Minute)
	defer cancel()
	if err = s.awaitReady(waiting, ch, saysReady); err == nil {
		ch.ready = time.Now()
		err = pause(waiting, s.Settle)
	}
	if err != nil {
		err = ch.explain(err)
		ch.stop()
		return nil, err
	}
	return ch, nil
}

// awaitReady waits until the child has its partitions and is about to read.
func (s *Suite) awaitReady(ctx context.Context, ch *child, saysReady *ready) (err error) {
	if !ch.candidate.Groups {
		return saysReady.await(ctx)
	}
	if ch.joined, err = s.Cluster.AwaitMember(ctx, ch.group); err != nil {
		return err
	}
	if ch.candidate.Tidemark { // it commits where it begins before it reads
		return s.Cluster.AwaitCommits(ctx, ch.group, ch.topic, ch.partitions)
	}
	return s.Cluster.AwaitStable(ctx, ch.group)
}

// within returns a context that also ends when the child does.
func (ch *child) within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeoutCause(ctx, d, fmt.Errorf("not done after %s", d))
	ctx, end := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-ch.Ended():
			end(fmt.Errorf("%s has ended: %v", ch.candidate.Name, ch.Err()))
		case <-ctx.Done():
		}
	}()
	return ctx, func() { end(nil); cancel() }
}

// explain adds what the child had to say.
func (ch *child) explain(err error) error {
	log, readErr := os.ReadFile(ch.log.Name())
	if readErr != nil || len(log) == 0 {
		return fmt.Errorf("%s: %w", ch.candidate.Name, err)
	}
	return fmt.Errorf("%s: %w; it said:\n%s", ch.candidate.Name, err, log[max(0, len(log)-4000):])
}

// stop ends the child, removes its folder, and returns its processor time.
func (ch *child) stop() float64 {
	cpu := ch.Stop(15 * time.Second)
	ch.log.Close()
	os.RemoveAll(ch.dir)
	return cpu
}

// ready looks for a line on what a child writes to its standard output.
type ready struct {
	mu   sync.Mutex
	seen []byte
	done bool
	said chan struct{}
}

func (r *ready) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen = append(r.seen, b...); !r.done && bytes.Contains(r.seen, []byte("ready\n")) {
		r.done = true
		close(r.said)
	}
	return len(b), nil
}

func (r *ready) await(ctx context.Context) error {
	select {
	case <-r.said:
		return nil
	case <-ctx.Done():
		return errors.Join(errors.New("not ready"), context.Cause(ctx))
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
