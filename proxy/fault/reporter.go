package fault

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Reporter counts the errors that Tidemark recovers from, and logs them. An error that
// goes on is logged at once and then every RepeatAfter.
type Reporter struct {
	Counters
	Logger *slog.Logger
	Waits  Waits

	Quiet atomic.Bool // the last session committed nothing: log its progress at debug level

	mu        sync.Mutex
	throttles map[string]*throttle // by message and subject
	once      map[string]bool      // by message and subject: logged by WarnOnce
	states    map[string]string    // by subject: last logged by Changed
	outage    time.Time            // when a network error was last logged
}

// throttle is the state of one kind of log line.
type throttle struct {
	seen, logged time.Time     // last
	suppressed   int           // since it was last logged
	pause        time.Duration // of ThrottleMore, until it may be logged again
}

// NewReporter returns a reporter that writes to log.
func NewReporter(log *slog.Logger) *Reporter {
	return &Reporter{Logger: log, throttles: map[string]*throttle{}, once: map[string]bool{}, states: map[string]string{}}
}

// RepeatAfter is how often an error that goes on is logged.
const RepeatAfter = 30 * time.Second

// Warn counts an error and logs a warning. The message is the kind of error: repeated
// errors of a kind are logged every RepeatAfter. Network errors of all kinds share one
// throttle, because an outage shows in many places.
func (r *Reporter) Warn(msg string, err error, args ...any) {
	r.Report("", slog.LevelWarn, msg, err, args...)
}

// Error does the same at error level, for what an operator has to fix. Each subject
// (such as a partition) has a throttle of its own.
func (r *Reporter) Error(about, msg string, err error, args ...any) {
	r.Report(about, slog.LevelError, msg, err, args...)
}

// Progress logs the start and end of sessions: at info level as long as they commit something.
func (r *Reporter) Progress(msg string, args ...any) {
	level := slog.LevelInfo
	if r.Quiet.Load() {
		level = slog.LevelDebug
	}
	r.Logger.Log(context.Background(), level, msg, args...)
}

// Info does the same as Warn, at info level, for errors that are part of normal operation.
func (r *Reporter) Info(msg string, err error, args ...any) {
	r.Report("", slog.LevelInfo, msg, err, args...)
}

// Report counts an error and logs it, throttled by message and subject.
func (r *Reporter) Report(about string, level slog.Level, msg string, err error, args ...any) {
	c := Classify(err)
	// connectionHook has counted connection errors already.
	if c != Network || TimedOut(err) {
		r.Count(c, err)
	}
	r.Throttle(about, level, c, msg, append(args, "err", err)...)
}

// Count counts an error that is logged elsewhere.
func (r *Reporter) Count(c Class, err error) {
	r.Errors[c].Add(1)
	if IsFenced(err) || errors.Is(err, kerr.FencedInstanceID) {
		r.fencings.Add(1)
	}
}

// Throttle logs a line that is not counted, throttled by message and subject.
func (r *Reporter) Throttle(about string, level slog.Level, c Class, msg string, args ...any) {
	suppressed, due := r.due(c, msg+about, time.Now())
	if !due {
		return
	}
	if c != None {
		args = append(args, "class", c.String())
	}
	r.logDue(level, msg, suppressed, args)
}

// ThrottleMore logs a line that is not counted, for what may go on for days and is no error:
// the pause until the next one begins with RepeatAfter, doubles each time up to an hour, and
// begins anew when nothing has come for that long.
func (r *Reporter) ThrottleMore(about string, level slog.Level, msg string, args ...any) {
	suppressed, due := r.dueMore(msg+about, time.Now())
	if !due {
		return
	}
	r.logDue(level, msg, suppressed, args)
}

// logDue logs a line, with how many like it were not logged before it.
func (r *Reporter) logDue(level slog.Level, msg string, suppressed int, args []any) {
	if suppressed > 0 {
		args = append(args, "suppressed", suppressed)
	}
	r.Logger.Log(context.Background(), level, msg, args...)
}

// Remind logs a line about a state that goes on, with the pauses of ThrottleMore. It is called
// again and again while it does, and does not say how often.
func (r *Reporter) Remind(about string, level slog.Level, msg string, args ...any) {
	if _, due := r.dueMore(msg+about, time.Now()); due {
		r.Logger.Log(context.Background(), level, msg, args...)
	}
}

// throttleOf returns what is remembered of a line. It is called with mu held.
func (r *Reporter) throttleOf(msg string) *throttle {
	if r.throttles[msg] == nil {
		r.throttles[msg] = new(throttle)
	}
	return r.throttles[msg]
}

// dueMore is due with growing pauses.
func (r *Reporter) dueMore(msg string, now time.Time) (suppressed int, due bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.throttleOf(msg)
	fresh := f.seen.IsZero() || now.Sub(f.seen) >= max(f.pause, RepeatAfter)
	f.seen = now
	switch {
	case fresh:
		f.pause = RepeatAfter
	case now.Sub(f.logged) < f.pause:
		f.suppressed++
		return 0, false
	default:
		f.pause = min(2*f.pause, time.Hour)
	}
	suppressed, f.suppressed, f.logged = f.suppressed, 0, now
	return suppressed, true
}

// Changed logs a line about a subject whose state has become another, as far as lines about it
// have said: many find out, one tells. At first it is "". Any other state is told again, with
// the pauses of ThrottleMore, where it is called while that goes on.
func (r *Reporter) Changed(about, state string, level slog.Level, msg string, args ...any) {
	r.mu.Lock()
	was := r.states[about]
	r.states[about] = state
	if was != state {
		delete(r.throttles, msg+about)
	}
	r.mu.Unlock()
	due := was != state
	if state != "" {
		_, due = r.dueMore(msg+about, time.Now())
	}
	if due {
		r.Logger.Log(context.Background(), level, msg, args...)
	}
}

// WarnOnce logs a warning about a subject once in the life of a process.
func (r *Reporter) WarnOnce(about, msg string, args ...any) {
	r.logOnce(about, slog.LevelWarn, msg, args...)
}

// InfoOnce does the same at info level.
func (r *Reporter) InfoOnce(about, msg string, args ...any) {
	r.logOnce(about, slog.LevelInfo, msg, args...)
}

func (r *Reporter) logOnce(about string, level slog.Level, msg string, args ...any) {
	r.mu.Lock()
	key := msg + "\x00" + about
	logged := r.once[key]
	r.once[key] = true
	r.mu.Unlock()
	if !logged {
		r.Logger.Log(context.Background(), level, msg, args...)
	}
}

// due reports whether a line is to be logged now, and how many were suppressed since
// the last one.
func (r *Reporter) due(c Class, msg string, now time.Time) (suppressed int, due bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.throttleOf(msg)
	fresh := f.seen.IsZero() || now.Sub(f.seen) >= RepeatAfter
	f.seen = now
	since := now.Sub(f.logged)
	if c == Network {
		since = min(since, now.Sub(r.outage))
	}
	if !fresh && since < RepeatAfter {
		f.suppressed++
		return 0, false
	}
	suppressed, f.suppressed, f.logged = f.suppressed, 0, now
	if c == Network {
		r.outage = now
	}
	return suppressed, true
}

// HintArgs returns a hint as log arguments: none if it is empty.
func HintArgs(hint string) []any {
	if hint == "" {
		return nil
	}
	return []any{"hint", hint}
}
