package status

import (
	"fmt"
	"time"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Hold is what keeps the next record of a partition from being released.
type Hold struct {
	Words string         // what it waits for
	Event watermark.Time // the event time of the next record; None when nothing is held
	Lacks time.Duration  // how far the watermark is from it
	// At is when it will be due by the wall clock, supposing that event times advance as
	// fast as the clock or, on a quiet partition, that no new record comes. Zero if unknown.
	At time.Time
}

// HoldOf returns what holds a partition back at the wall clock's now. slowest is the
// watermark that faster partitions wait for.
func HoldOf(cfg config.Config, p *Partition, slowest watermark.Time, now time.Time) Hold {
	h := Hold{Event: p.Density.From}
	if h.Event != watermark.None && p.Watermark != watermark.None {
		h.Lacks = max(h.Event.Since(p.Watermark), 0)
	}
	silence := cfg.IdleTimeout - p.Quiet
	switch {
	case p.Waiting:
		h.Words = fmt.Sprintf("waits for memory (TIDEMARK_MEMORY) until other partitions are replayed; then replays what was held at the last commit, %d offsets", p.Next-p.Low)
	case p.State == Recovering:
		h.Words = fmt.Sprintf("replays what was held at the last commit: %d of %d offsets to go", p.Next-p.Again, p.Next-p.Low)
	case h.Event == watermark.None && p.Uncommitted > 0:
		h.Words = fmt.Sprintf("%d records are released and wait for the commit", p.Uncommitted)
	case h.Event == watermark.None && p.State == Paused:
		h.Words = pausedWords(cfg, p, slowest)
	case h.Event == watermark.None && p.Next == p.Stable && p.Stable < p.End:
		h.Words = "nothing is held; new records cannot be read until a producer ends its transaction"
	case h.Event == watermark.None && p.End < 0:
		h.Words = "nothing is held; the end of the log is not known yet"
	case h.Event == watermark.None:
		h.Words = "nothing is held"
	case p.State == Draining:
		h.At = now.Add(h.Lacks)
		h.Words = fmt.Sprintf("nothing new for %s; what is held is released by the clock", rounded(p.Quiet))
	case p.State == Paused:
		h.Words = pausedWords(cfg, p, slowest)
	case p.Quiet > 0 && cfg.IdleTimeout == 0:
		h.Words = "waits for newer records without limit: there is no idle timeout"
	case p.Quiet > 0:
		h.At = now.Add(silence + h.Lacks)
		h.Words = fmt.Sprintf("waits for newer records, or for the idle timeout of %s, which ends in %s", cfg.IdleTimeout, rounded(silence))
	case cfg.Watermark == config.Punctuated:
		h.Words = "waits for a record that carries a watermark of its event time"
	case p.Watermark == watermark.None:
		h.Words = "waits for a watermark"
	case h.Lacks < 10*time.Millisecond:
		h.At = now.Add(h.Lacks)
		h.Words = "is released as soon as the watermark moves"
	default:
		h.At = now.Add(h.Lacks)
		h.Words = fmt.Sprintf("waits for the watermark, which has %s to go", rounded(h.Lacks))
	}
	return h
}

func pausedWords(cfg config.Config, p *Partition, slowest watermark.Time) string {
	return fmt.Sprintf("is %s of event time ahead of the slowest partition and waits for it (TIDEMARK_MAX_DRIFT=%s)",
		rounded(p.Watermark.Since(slowest)), cfg.MaxDrift)
}

func rounded(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
