package fault

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/tidemarkhq/tidemark/proxy/clocks"
)

// Waits are the answers of brokers that a process is waiting for. The client retries
// silently and without end, so callers register here before they wait, and a wait that
// takes long is logged (see Reporter.ReportWaits) and shown in the status.
//
// Only one goroutine registers waits: the loop, or what runs before it. Others read.
type Waits struct {
	mu    sync.Mutex
	stack []*Wait // innermost last; the first may stay for a whole session
}

// Wait is one thing that the process waits for.
type Wait struct {
	What  string        // in words
	After time.Duration // reported if it takes longer
	hint  string        // where to look
	args  []any         // more keys for the log
	Quiet bool          // the caller logs it; only the status shows it
	Err   error         // the last error that brokers answered; the client hides most of them

	Lasting bool // other waits do not restart its clock

	since  time.Time
	logged time.Time
}

// Begin registers a wait, until the returned function is called.
func (w *Waits) Begin(next Wait) (end func()) {
	next.since = time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stack = append(w.stack, &next)
	return func() { w.end(&next) }
}

func (w *Waits) end(ended *Wait) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stack = slices.DeleteFunc(w.stack, func(it *Wait) bool { return it == ended })
	w.restart()
}

// Renew restarts the clock of the innermost wait: it made progress.
func (w *Waits) Renew() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.restart()
}

func (w *Waits) restart() {
	if n := len(w.stack); n > 0 && !w.stack[n-1].Lasting {
		w.stack[n-1].since, w.stack[n-1].logged, w.stack[n-1].Err = time.Now(), time.Time{}, nil
	}
}

// Answered records an error that brokers answered while we wait.
func (w *Waits) Answered(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.stack); n > 0 {
		w.stack[n-1].Err = err
	}
}

// Overdue returns the innermost wait that takes longer than its After.
func (w *Waits) Overdue(now time.Time) (late Wait, any bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, it := range slices.Backward(w.stack) {
		if now.Sub(it.since) >= it.After {
			return *it, true
		}
	}
	return Wait{}, false
}

// Due returns the wait that is to be logged now: once it takes long, and every
// RepeatAfter from then on.
func (w *Waits) Due(now time.Time) (late Wait, due bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, it := range slices.Backward(w.stack) {
		if now.Sub(it.since) < it.After {
			continue
		}
		if it.Quiet || !it.logged.IsZero() && now.Sub(it.logged) < RepeatAfter {
			return Wait{}, false
		}
		it.logged = now
		return *it, true
	}
	return Wait{}, false
}

// Describe returns the wait in words, for the status.
func (it Wait) Describe(now time.Time) string {
	s := fmt.Sprintf("waiting for the brokers for %s: %s", clocks.Words(now.Sub(it.since).Round(time.Second)), it.What)
	if it.Err != nil {
		s += fmt.Sprintf(" (last answer: %v)", it.Err)
	}
	return s
}

// checkWaits is how often ReportWaits looks.
const checkWaits = 250 * time.Millisecond

// ReportWaits logs waits that take long, until the returned function is called: as a
// warning at first, as an error after RepeatAfter.
func (r *Reporter) ReportWaits() (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(checkWaits)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				if it, due := r.Waits.Due(now); due {
					r.reportWait(it, now)
				}
			}
		}
	}()
	return func() { cancel(); <-ended }
}

func (r *Reporter) reportWait(it Wait, now time.Time) {
	level := slog.LevelWarn
	if now.Sub(it.since) >= RepeatAfter {
		level = slog.LevelError
	}
	args := append([]any{"waiting_for", it.What, "waited", now.Sub(it.since).Round(100 * time.Millisecond).String()}, it.args...)
	if it.Err != nil {
		args = append(args, "err", it.Err)
	}
	r.Throttle(it.What, level, cmp.Or(Classify(it.Err), None), "waiting for the brokers", append(args, HintArgs(it.hint)...)...)
}

// TransactionWait is a wait for the coordinator of our transactions, with a hint for when
// it makes no progress. A coordinator answers CONCURRENT_TRANSACTIONS until its markers are
// in all partitions. One that is stuck reloads its state when it restarts, or when another
// broker takes over.
func TransactionWait(t Commands, what string, after time.Duration) Wait {
	id := t.Config.TransactionalID()
	return Wait{
		What: what, After: after, args: []any{"transactional_id", id},
		hint: "check its state: " + t.Line("kafka-transactions", "describe", "--transactional-id", id) +
			"; in PrepareCommit or PrepareAbort, bring back a leader for the partitions listed; in any other state, restart the broker listed as coordinator",
	}
}

// GroupWait is a wait for the coordinator of the group.
func GroupWait(t Commands, what string, after time.Duration) Wait {
	return Wait{
		What: what, After: after, args: []any{"group", t.Config.Group},
		hint: "find the group's coordinator and state: " + t.Line("kafka-consumer-groups", "--describe", "--state", "--group", t.Config.Group),
	}
}

// JoinPatience is how long joining the group may take: brokers wait some seconds for more
// members, and present members first finish their work.
const JoinPatience = 10 * time.Second
