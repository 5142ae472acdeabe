package proxy

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// waiting is what a process waits for brokers to answer. The client asks again by
// itself for as long as it takes and says nothing of it, so whoever waits for it says
// so here first, and the process tells of what takes long: see tellWaits. The status
// shows it as well.
//
// One goroutine waits, the loop or what comes before it; others only look.
type waiting struct {
	mu    sync.Mutex
	stack []*wait // the innermost is last; the first may stay for as long as a session
}

// wait is one thing that is waited for.
type wait struct {
	what  string        // in words
	after time.Duration // it is worth a word
	hint  string        // where to look
	args  []any         // more keys for the log
	quiet bool          // whoever waits tells of it
	err   error         // that came last; the client keeps most of them to itself

	lasting bool // it goes on beside whatever else is waited for

	since time.Time
	told  time.Time
}

// begin says that something is waited for, until the function is called that it returns.
func (w *waiting) begin(next wait) (end func()) {
	next.since = time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stack = append(w.stack, &next)
	return func() { w.end(&next) }
}

func (w *waiting) end(ended *wait) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stack = slices.DeleteFunc(w.stack, func(it *wait) bool { return it == ended })
	w.movesOn()
}

// goesOn says that what is waited for is not the same as before.
func (w *waiting) goesOn() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.movesOn()
}

func (w *waiting) movesOn() {
	if n := len(w.stack); n > 0 && !w.stack[n-1].lasting {
		w.stack[n-1].since, w.stack[n-1].told, w.stack[n-1].err = time.Now(), time.Time{}, nil
	}
}

// heard takes note of what was answered instead.
func (w *waiting) heard(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.stack); n > 0 {
		w.stack[n-1].err = err
	}
}

// overdue returns the innermost of what is waited for that takes long.
func (w *waiting) overdue(now time.Time) (late wait, any bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, it := range slices.Backward(w.stack) {
		if now.Sub(it.since) >= it.after {
			return *it, true
		}
	}
	return wait{}, false
}

// due returns what is to be told of now: at once, and every 30 s.
func (w *waiting) due(now time.Time) (late wait, due bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, it := range slices.Backward(w.stack) {
		if now.Sub(it.since) < it.after {
			continue
		}
		if it.quiet || !it.told.IsZero() && now.Sub(it.told) < complainEvery {
			return wait{}, false
		}
		it.told = now
		return *it, true
	}
	return wait{}, false
}

// words tell of it in the status.
func (it wait) words(now time.Time) string {
	s := fmt.Sprintf("waits for the brokers, for %v now: %s", now.Sub(it.since).Round(time.Second), it.what)
	if it.err != nil {
		s += fmt.Sprintf(" (they answer: %v)", it.err)
	}
	return s
}

// lookAtWaits is how often it is looked whether something takes long.
const lookAtWaits = 250 * time.Millisecond

// tellWaits tells of what takes long, until the function is called that it returns. What
// goes on for half a minute needs a hand.
func (a *alarm) tellWaits() (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(lookAtWaits)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				if it, due := a.awaited.due(now); due {
					a.waitsLong(it, now)
				}
			}
		}
	}()
	return func() { cancel(); <-ended }
}

func (a *alarm) waitsLong(it wait, now time.Time) {
	level := slog.LevelWarn
	if now.Sub(it.since) >= complainEvery {
		level = slog.LevelError
	}
	args := append([]any{"waiting_for", it.what, "waited", now.Sub(it.since).Round(100 * time.Millisecond).String()}, it.args...)
	if it.err != nil {
		args = append(args, "err", it.err)
	}
	a.tell(it.what, level, cmp.Or(classify(it.err), noClass), "waiting for the brokers", append(args, hinted(it.hint)...)...)
}

// waits are what a session waits for: how long that may take when all is well, and where
// to look when it does not end.
type waits struct {
	beginning, ending, committing, loading, joining, takingUp wait
}

func newWaits(t tools) waits {
	return waits{
		beginning:  transactionWait(t, "a producer id for the next transaction", time.Second),
		ending:     transactionWait(t, "the end of our transaction", stuckAfter),
		committing: groupWait(t, "a commit of offsets", stuckAfter),
		loading:    groupWait(t, "what is committed of partitions that are taken up, and where their logs begin and end", slow),
		joining:    groupWait(t, "our place in the group, for which all other members have to join again", joinPatience),
		takingUp:   groupWait(t, "partitions of ours: to join again, or their offsets", joinPatience),
	}
}

// transactionWait has what ends a transaction that does not get on. A coordinator answers
// CONCURRENT_TRANSACTIONS until its markers are in all partitions; one that has lost track
// reads its state anew when another broker, or the same one after a restart, takes over.
func transactionWait(t tools, what string, after time.Duration) wait {
	id := t.cfg.TransactionalID()
	return wait{
		what: what, after: after, args: []any{"transactional_id", id},
		hint: "look where it is: " + t.line("kafka-transactions", "describe", "--transactional-id", id) +
			"; in PrepareCommit or PrepareAbort it waits for a leader of the partitions that are named, which has to come back; otherwise restart the broker that is named as coordinator",
	}
}

func groupWait(t tools, what string, after time.Duration) wait {
	return wait{
		what: what, after: after, args: []any{"group", t.cfg.Group},
		hint: "the group's coordinator, and its state: " + t.line("kafka-consumer-groups", "--describe", "--state", "--group", t.cfg.Group),
	}
}

// joinPatience is how long it may take to become a member: brokers wait some seconds for
// more members to come, and those that are there finish what they do.
const joinPatience = 10 * time.Second

// missing is what a session waits for beside its loop, and that the client has to bring
// about: its place in the group, or the partitions that it was assigned.
type missing struct {
	wait   *wait
	end    func()
	looked time.Time
}

// lookForPlace takes note of what is missing. The loop has nothing else to wait for at
// that moment.
func (s *session) lookForPlace() {
	m := &s.missing
	if time.Since(m.looked) < time.Second {
		return
	}
	m.looked = time.Now()
	var now *wait
	switch mine := s.owned.latest.Load(); {
	case mine == nil:
		now = &s.while.joining
	case s.lacks(*mine):
		now = &s.while.takingUp
	}
	if now == m.wait {
		return
	}
	s.placeFound()
	if m.wait = now; now != nil {
		it := *now
		it.lasting = true
		m.end = s.awaited.begin(it)
	}
}

func (s *session) placeFound() {
	if m := &s.missing; m.wait != nil {
		m.end()
		m.wait = nil
	}
}

// lacks reports whether a partition of ours has not been taken up.
func (s *session) lacks(mine map[string][]int32) bool {
	for topic, ps := range mine {
		for _, n := range ps {
			if s.find(topic, n) == nil && !s.standsStill(topic, n) {
				return true
			}
		}
	}
	return false
}
