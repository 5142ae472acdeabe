package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/term"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

// screen shows the demo: on a terminal with a block of lines that is drawn
// again and again, elsewhere in plain lines.
type screen struct {
	out, err    io.Writer
	live, color bool
	width       func() int // of the terminal, in columns

	mu    sync.Mutex
	block []string // as it stands there
	last  time.Duration
}

// newScreen never draws on Windows, whose consoles show escape sequences as
// they are unless asked not to.
func newScreen(out, err io.Writer) *screen {
	s := &screen{out: out, err: err}
	terminal, ok := asTerminal(out)
	if !ok || os.Getenv("TERM") == "dumb" || runtime.GOOS == "windows" {
		return s
	}
	s.live, s.color = true, os.Getenv("NO_COLOR") == ""
	s.width = func() int {
		if w, _, err := term.GetSize(terminal); err == nil && w > 0 {
			return w
		}
		return 80
	}
	return s
}

func asTerminal(w io.Writer) (fd int, ok bool) {
	f, ok := w.(*os.File)
	if !ok {
		return 0, false
	}
	return int(f.Fd()), term.IsTerminal(int(f.Fd()))
}

// logger returns the logger of the sidecar. What it says stands above the
// block. It would warn of the record without a usable event time, which is part
// of the story.
func (s *screen) logger(verbose bool) *slog.Logger {
	cfg := config.Config{LogLevel: config.LogError, LogFormat: config.LogText}
	if verbose {
		cfg.LogLevel = config.LogInfo
	}
	_, terminal := asTerminal(s.err)
	return slog.New(newLogHandler(logWriter{s}, cfg, terminal, terminal && s.color))
}

type logWriter struct{ *screen }

func (l logWriter) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprint(l.out, l.back())
	if _, err := fmt.Fprintf(l.err, "sidecar: %s", line); err != nil {
		return 0, err
	}
	fmt.Fprint(l.out, lines(l.block))
	return len(line), nil
}

// print writes lines below all that is there.
func (s *screen) print(text ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprint(s.out, lines(text))
}

// redraw replaces the block.
func (s *screen) redraw(block []string) {
	for i := range block {
		block[i] = s.fit(block[i])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprint(s.out, s.back(), lines(block))
	s.block = block
}

// freeze leaves the block as it is. What a terminal shows of Ctrl-C gets a
// line to itself.
func (s *screen) freeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.block = nil
	if s.live {
		fmt.Fprintln(s.out)
	}
}

// back returns what takes the cursor to the start of the block and clears the
// terminal from there.
func (s *screen) back() string {
	if len(s.block) == 0 {
		return ""
	}
	return fmt.Sprintf("\r\x1b[%dA\x1b[J", len(s.block))
}

func lines(text []string) string {
	if len(text) == 0 {
		return ""
	}
	return strings.Join(text, "\n") + "\n"
}

// progress shows how far the story is: ten times a second on a terminal, else
// once.
func (s *screen) progress(p progress) {
	every := time.Second
	if s.live {
		every = 100 * time.Millisecond
	}
	if p.since-s.last < every {
		return
	}
	s.last = p.since.Truncate(every)
	state := fmt.Sprintf("%6s held %4d too late", count(p.held()), p.late)
	if s.live {
		s.redraw(append(s.tallies(p), "", fmt.Sprintf("  %s  %4.1f s %s", p.bar(), p.since.Seconds(), state)))
		return
	}
	s.print(fmt.Sprintf("  %2.0f s %6s came in %6s came out in order %s",
		p.since.Seconds(), count(p.raw.events), count(p.ordered.events), state))
}

// bar shows what is done, what is held, and what is to come.
func (p *progress) bar() string {
	const width = 24
	part := func(n int) int { return n * width / max(p.total, 1) }
	out, in := part(p.out()), part(p.out()+p.held())
	return "[" + strings.Repeat("#", out) + strings.Repeat("=", in-out) + strings.Repeat(".", width-in) + "]"
}

// finish shows the tallies as they are at the end.
func (s *screen) finish(p progress) {
	if s.live {
		s.redraw(s.tallies(p))
		s.freeze()
		return
	}
	s.print("")
	s.print(append(s.tallies(p), "")...)
}

// tallies compares what the two consumers did.
func (s *screen) tallies(p progress) []string {
	const layout = "  %-41s%14s%20s"
	mistakes := func(what string, raw, ordered int) string {
		return fmt.Sprintf("  %-41s%s%s", what, s.judged(raw, 14), s.judged(ordered, 20))
	}
	return []string{
		s.bold(fmt.Sprintf(layout, "one consumer, reading", storyTopic, storyTopic+".ordered")),
		fmt.Sprintf(layout, "events processed", count(p.raw.events), count(p.ordered.events)),
		mistakes("  after a newer one of the same card", p.raw.stale, p.ordered.stale),
		mistakes("purchases declined, all of them wrongly", p.raw.declined, p.ordered.declined),
		fmt.Sprintf(layout, "wait for an event, median", wait(p.raw), wait(p.ordered)),
	}
}

// judged shows a number of mistakes: none is good.
func (s *screen) judged(n, width int) string {
	text := fmt.Sprintf("%*s", width, count(n))
	if n == 0 {
		return s.paint("32", text)
	}
	return s.paint("31", text)
}

func wait(t tally) string {
	switch {
	case t.events == 0:
		return "-"
	case t.wait < 100*time.Millisecond:
		return fmt.Sprintf("%d ms", t.wait.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", t.wait.Seconds())
}

func count(n int) string { return humanize.Comma(int64(n)) }

func (s *screen) bold(text string) string { return s.paint("1", text) }

func (s *screen) paint(code, text string) string {
	if !s.color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// fit cuts a line that would wrap: then it could not be drawn over.
func (s *screen) fit(line string) string {
	left, escaped := s.width(), false
	for i, r := range line {
		switch {
		case r == '\x1b':
			escaped = true
		case escaped:
			escaped = r != 'm'
		case left == 0:
			return line[:i] + s.paint("0", "")
		default:
			left--
		}
	}
	return line
}
