package pipeline

import (
	"fmt"
	"time"

	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Records are behind the watermark because they are late, or because the watermark is ahead: a
// clock that is ahead has moved it. The cures are opposites, so the cause is told by numbers.
//
//	most of them would be on time without a record that leapt   its clock is ahead
//	the newest event time is ahead of the wall clock by more
//	than they are behind on average                             a clock is ahead
//	a producer's clock is behind by more than that              its clock is behind
//	the watermark is above newest event time - bound by more    it went on with the clock
//	nearly all are late                                         a clock was set back
//	else                                                        the bound is too small

// blamed is a leap, and how far it was ahead of the wall clock.
type blamed struct {
	clocks.Leap
	ahead time.Duration
}

// leastAhead is how far ahead of the wall clock means something: clocks that are kept are nearer.
const leastAhead = time.Second

// LateCause says why records are behind the watermark lately, and what to do; empty: hardly any
// are.
func (p *Partition) LateCause() string {
	recent := p.Ledger.Recent()
	if b := &recent.Behind; b.Records == 0 || b.Records*100 < b.Read {
		return ""
	}
	return p.behindHint(&recent.Behind)
}

// behindHint returns why records are behind the watermark, and what to do about it.
func (p *Partition) behindHint(b *status.Behind) string {
	cfg := &p.line.Config
	ahead := time.Duration(0)
	if newest := p.State.Newest(); newest != watermark.None {
		ahead = newest.Since(p.line.wall)
	}
	switch {
	case p.Ledger.Misfit != "":
		return p.Ledger.Misfit
	case cfg.Watermark == config.Punctuated:
		return "the producers of watermarks announce more than they keep: their records come behind their own watermarks"
	case b.Leapt:
		return p.leapWords() + ": " + p.aheadCure(p.blamed.ahead, p.blamed.By)
	case ahead > leastAhead && ahead >= b.Mean:
		return fmt.Sprintf("the newest event time is %s ahead of the clock of this machine and moved the watermark: %s", clocks.Span(rounded(ahead)), p.aheadCure(ahead, ahead))
	}
	if names := p.producersOff(clocks.Behind, b.Mean); names != "" {
		return names + ", and so are its records; set the clock right (NTP), or " + p.raise()
	}
	if by := p.drained(); by > 0 && by >= b.Mean {
		return fmt.Sprintf("the watermark went on with the clock, because nothing newer had come for TIDEMARK_IDLE_TIMEOUT=%s: raise that if such records are to be on time", cfg.IdleTimeout)
	}
	if b.Records*10 >= b.Read*9 {
		return "nearly all records are late: if a clock was set back, TIDEMARK_REANCHOR_AFTER begins anew there; if not, " + p.raise()
	}
	return p.raise()
}

// leapWords says which record, or how many, moved the watermark.
func (p *Partition) leapWords() string {
	l := &p.blamed
	by := clocks.Span(rounded(l.By))
	if l.Led == 0 {
		return fmt.Sprintf("offset %d is %s ahead of the records around it and moved the watermark", l.Offset, by)
	}
	return fmt.Sprintf("offset %d is %s ahead of the records around it and moved the watermark, and so did %d behind it, the last one at offset %d", l.Offset, by, l.Led, l.Last)
}

// aheadCure says what to do about a time that moved the watermark: it was ahead of the wall
// clock by so much, and of the others by so much. Where it was not ahead of the wall clock, no
// limit refuses it, and it is the others that are late.
func (p *Partition) aheadCure(ahead, others time.Duration) string {
	cfg := &p.line.Config
	if ahead <= leastAhead || ahead < others/2 {
		return "it is not ahead of the clock of this machine, so the others come late: " + p.raise()
	}
	cure := "set the clock of its producer" + p.namesThem()
	if names := p.producersOff(clocks.Ahead, others/2); names != "" {
		cure = names + ", set it right (NTP)"
	}
	usual := cfg.UsualMaxFuture()
	switch {
	case cfg.MaxFuture == 0:
		cure += "; TIDEMARK_MAX_FUTURE=0 let it pass, as it does every time: unset, it is " + usual.String()
	case cfg.MaxFuture > usual:
		cure += fmt.Sprintf("; TIDEMARK_MAX_FUTURE=%s let it pass: unset, it is %s", cfg.MaxFuture, usual)
	default:
		cure += "; or lower TIDEMARK_MAX_FUTURE=" + cfg.MaxFuture.String() + ", which let it pass"
	}
	if left := p.State.Watermark().Since(p.line.wall); left > 2*time.Minute {
		cure += fmt.Sprintf(". After that others stay late for about %s, for the watermark does not go back; to have it begin anew instead, %s", clocks.Span(left.Round(time.Minute)), timestamp.BeginAnew("do that"))
	}
	return cure
}

// namesThem says how to have producers named, where they are not.
func (p *Partition) namesThem() string {
	if p.line.Config.ClockHeader != "" {
		return ""
	}
	return " (TIDEMARK_CLOCK_HEADER names producers whose clocks are off)"
}

// producersOff names the producers of the topic whose clocks are off in one way, and by no less
// than so much; empty: none are.
func (p *Partition) producersOff(way clocks.Finding, least time.Duration) string {
	if p.line.Producers == nil || p.line.Config.ClockHeader == "" {
		return ""
	}
	all, _ := p.line.Producers.Off(p.Topic, clocks.MostProducers)
	n := 0
	for _, j := range all {
		if j.Finding == way && j.Lead.Abs() >= least {
			all[n] = j
			n++
		}
	}
	return clocks.Names(all[:n], n)
}

// raise says how large the bound would have to be for what came late to be on time: by the
// disorder that was measured, leaving out one in a thousand unless it is they that are late.
func (p *Partition) raise() string {
	cfg := &p.line.Config
	bound := p.bound()
	most := bound + p.Ledger.Farthest
	enough, ok := p.Ledger.Disorder.Within(0.999)
	share := "99.9 % of the records"
	if !ok || enough <= bound || enough >= most {
		enough, share = most, "all records so far"
	}
	enough = roundedUp(max(enough, bound+time.Millisecond))
	came := fmt.Sprintf(" (%s came within %s; all are then held that long)", share, enough)
	switch cfg.Watermark {
	case config.WindowMin:
		return fmt.Sprintf("raise TIDEMARK_WATERMARK_WINDOW=%s or TIDEMARK_WATERMARK_LATENESS=%s, to %s together", cfg.WatermarkWindow, cfg.WatermarkLateness, enough) + came
	case config.Adaptive:
		if enough <= cfg.MaxOutOfOrderness {
			return fmt.Sprintf("TIDEMARK_WATERMARK=adaptive is learning the bound, at present %s, and leaves a share of %v late (TIDEMARK_TARGET_LATE)", rounded(bound), cfg.TargetLate)
		}
		return fmt.Sprintf("raise TIDEMARK_MAX_OUT_OF_ORDERNESS=%s, the most that adaptive takes for the bound, to %s", cfg.MaxOutOfOrderness, enough) + came
	}
	return fmt.Sprintf("raise TIDEMARK_MAX_OUT_OF_ORDERNESS=%s to %s", bound, enough) + came + "; with TIDEMARK_WATERMARK=adaptive beside it, that is only the most, and the bound is learned"
}

// drained returns how much further the watermark is than the newest event time has brought it.
func (p *Partition) drained() time.Duration {
	newest, w := p.State.Newest(), p.State.Watermark()
	if p.line.Config.Watermark != config.Bounded || newest == watermark.None || w == watermark.None {
		return 0
	}
	return w.Since(newest.Add(-p.bound()))
}

// bound returns how far the watermark is behind the newest event time.
func (p *Partition) bound() time.Duration {
	cfg := &p.line.Config
	switch cfg.Watermark {
	case config.WindowMin:
		return cfg.WatermarkWindow + cfg.WatermarkLateness
	case config.Adaptive:
		if w := p.State.Watermark(); w != watermark.None {
			return p.State.Newest().Since(w)
		}
	}
	return cfg.MaxOutOfOrderness
}

// roundedUp rounds a duration up to what somebody would write.
func roundedUp(d time.Duration) time.Duration {
	unit := 100 * time.Millisecond
	switch {
	case d > 10*time.Minute:
		unit = time.Minute
	case d > 10*time.Second:
		unit = time.Second
	}
	return (d + unit - 1).Truncate(unit)
}
