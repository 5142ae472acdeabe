package status

import (
	"cmp"
	"fmt"
	"time"

	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/watermark"
)

// NoIdleTimeoutHint is what to do about records that wait for newer ones only.
const NoIdleTimeoutHint = "leave TIDEMARK_IDLE_TIMEOUT=0 out to have such records released by the clock after 5s without new ones, or set another time"

// Hold is what keeps the next record of a partition from being released.
type Hold struct {
	Words string         // what it waits for
	Kind  string         // the same without its numbers, of waits that partitions share; else empty
	Hint  string         // what to do if it should not wait, where Words do not say it
	Event watermark.Time // the event time of the next record; None when nothing is held
	Lacks time.Duration  // how far the watermark is from it
	// At is when it will be due by the wall clock, supposing that event times advance as
	// fast as the clock or, on a quiet partition, that no new record comes. Zero if unknown.
	At time.Time
	// Unseen says that records come out and readers do not see them; At is not known then.
	Unseen bool
}

// DueNow is what is near enough for a release to be due now.
const DueNow = 50 * time.Millisecond

// Others are what partitions wait for beside their own records.
type Others struct {
	Slowest   watermark.Time // that faster partitions wait for
	Throttled string         // which requests quotas hold back, in words

	ShortOfMemory bool // records have been released early of late
}

// HoldOf returns what holds a partition back at the wall clock's now.
func HoldOf(cfg config.Config, p *Partition, others Others, now time.Time) Hold {
	h := holdOf(cfg, p, others.Slowest, now)
	switch {
	case p.State != Active && p.State != Idle || p.Uncommitted > 0 && h.Event == watermark.None:
	case p.heldOpen():
		h.At = time.Time{} // of what is behind the transaction nobody knows when it comes
		until := "until a producer ends its transaction"
		if p.Blocked != nil {
			until = p.Blocked.Until()
		}
		if h.Event == watermark.None {
			h.Words = "nothing is held; new records cannot be read " + until
		} else {
			h.Words = "waits for newer records, which cannot be read " + until
		}
	case others.Throttled != "" && p.Backlog() > 0:
		h.At = time.Time{}
		h.Words += fmt.Sprintf("; %s, %d records behind", others.Throttled, p.Backlog())
	}
	if h.Event != watermark.None && others.ShortOfMemory && !p.State.StandsStill() && p.State != Recovering && p.WrongUnit == "" {
		h.At = time.Time{}
		h.Words += "; memory is short, so it may be released earlier (TIDEMARK_MEMORY)"
	}
	if p.Hidden != nil {
		h.At, h.Unseen = time.Time{}, true
	}
	if o := cmp.Or(p.Hidden, p.LateHidden); o != nil {
		h.Words += fmt.Sprintf("; readers of %s do not see what comes out %s", o.Topic, o.Until())
	}
	return h
}

// heldOpen reports whether everything has been read that may be, and there is more.
func (p *Partition) heldOpen() bool {
	return p.Stable >= 0 && p.Next >= p.Stable && p.Stable < p.End
}

func holdOf(cfg config.Config, p *Partition, slowest watermark.Time, now time.Time) Hold {
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
	case h.Event == watermark.None && p.End < 0:
		h.Words = "nothing is held; the end of the log is not known yet"
	case h.Event == watermark.None:
		h.Words = "nothing is held"
	case p.State == Draining:
		h.At = now.Add(h.Lacks)
		h.Words = fmt.Sprintf("nothing new for %s; what is held is released by the clock", clocks.Words(p.Quiet))
	case p.State == Paused:
		h.Words = pausedWords(cfg, p, slowest)
	case p.WrongUnit != "": // times advance at another pace than any clock
		h.Words = fmt.Sprintf("waits for the watermark; nobody can tell when that comes, for %s (%s)", p.WrongUnit.words(), p.WrongUnit)
	case p.Quiet == 0 && p.Silent >= silentAfter && p.Backlog() > 0:
		h.Words = fmt.Sprintf("waits for newer records; %d are still to be read, and nothing has been read for %s", p.Backlog(), clocks.Words(p.Silent))
	case p.Silent >= silentAfter && cfg.IdleTimeout == 0 && p.Backlog() == 0:
		h.Kind, h.Hint = "no idle timeout", NoIdleTimeoutHint
		h.Words = fmt.Sprintf("waits for newer records, however long that takes: all there are have been read, the last ones %s ago, and there is no idle timeout (TIDEMARK_IDLE_TIMEOUT=0)", clocks.Words(p.Silent))
	case p.Quiet == 0 && p.Silent >= silentAfter:
		h.Words = fmt.Sprintf("waits for newer records; none has come for %s, and the brokers do not tell whether there are any", clocks.Words(p.Silent))
	case p.Quiet >= quietAfter:
		h.At = now.Add(silence + h.Lacks)
		h.Words = fmt.Sprintf("waits for newer records, or for the idle timeout of %s, which ends in %s", clocks.Words(cfg.IdleTimeout), clocks.Words(max(silence, 0)))
	case cfg.Watermark == config.Punctuated:
		h.Hint = p.NoMarkers
		h.Words = fmt.Sprintf("waits for a record with a watermark at or above its event time, in its header %q (TIDEMARK_WATERMARK_HEADER=%s)", cfg.WatermarkHeader.Name(), cfg.WatermarkHeader)
	case p.Watermark == watermark.None:
		h.Words = "waits for a watermark"
	case h.Lacks < DueNow:
		h.At = now.Add(h.Lacks)
		h.Words = "waits for the watermark, which is about to pass it"
	default:
		h.At = now.Add(h.Lacks)
		h.Words = fmt.Sprintf("waits for the watermark, which has %s to go", clocks.Words(h.Lacks))
	}
	return h
}

// silentAfter is when a partition of which nothing is read is no longer expected to go on
// as fast as the clock.
const silentAfter = 5 * time.Second

// quietAfter is when the idle timeout is the next that is expected, and not the next record.
const quietAfter = time.Second

func pausedWords(cfg config.Config, p *Partition, slowest watermark.Time) string {
	return fmt.Sprintf("is %s of event time ahead of the slowest partition and waits for it (TIDEMARK_MAX_DRIFT=%s)",
		clocks.Words(p.Watermark.Since(slowest)), cfg.MaxDrift)
}
