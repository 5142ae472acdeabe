package pipeline

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Late records are reported when they are committed: how many, from which offset on, how far
// they were off, and what is the likely cause. status.Ledger says when it is worth a line.

// lateMessages are the lines about late records.
var lateMessages = [reorder.Duplicate + 1]string{
	reorder.BehindWatermark: "records came later than the bound allows and went to the late topic",
	reorder.Overflow:        "records went to the late topic because memory is short",
	reorder.Future:          "records are ahead of the clock of this machine and went to the late topic",
	reorder.InvalidTime:     "records without a usable event time went to the late topic",
	reorder.Duplicate:       "records repeat others of the same event time and went to the late topic",
}

// off returns how far a late record was off; 0: it is not known, because it has no event time of
// its own.
func off(v reorder.Verdict, t, w, wall watermark.Time) time.Duration {
	if t == watermark.None {
		return 0
	}
	switch v {
	case reorder.BehindWatermark, reorder.Overflow:
		return w.Since(t)
	case reorder.Future:
		return t.Since(wall)
	}
	return 0
}

// ReportLate reports the late records that have been committed, if it is time.
func (p *Partition) ReportLate() {
	now := time.Now()
	for v, msg := range lateMessages {
		v := reorder.Verdict(v)
		if msg == "" {
			continue
		}
		s, ok := p.Ledger.LateToReport(v, now)
		if !ok {
			continue
		}
		if _, ok := p.line.lateReports.may(p.line.now); !ok {
			return // more partitions than anybody would read about; it is told later
		}
		p.Ledger.LateReported(v, now)
		level := slog.LevelWarn
		if v == reorder.Duplicate {
			level = slog.LevelInfo
		}
		args := []any{"topic", p.Topic, "partition", p.Partition, "records", s.Records, "first_offset", s.First, "records_read", s.Read, "total", s.Total}
		if s.Most > 0 {
			args = append(args, "off_by", clocks.Span(rounded(s.Most)))
		}
		if s.Invalid.Err != nil {
			args = append(args, "err", s.Invalid.Err, "class", fault.Record.String())
		}
		p.line.Reporter.Logger.Log(context.Background(), level, msg, append(args, fault.HintArgs(p.lateHint(v, &s))...)...)
	}
	if p.leap.Open() {
		p.reportLeap()
	}
}

// lateHint returns the likely cause of late records, and what to do about it.
func (p *Partition) lateHint(v reorder.Verdict, s *status.LateStretch) string {
	cfg := &p.line.Config
	switch v {
	case reorder.InvalidTime:
		return s.Invalid.Hint
	case reorder.Overflow:
		return "raise TIDEMARK_MEMORY, or lower the bound"
	case reorder.Duplicate:
		return "TIDEMARK_DUPLICATES=drop drops them"
	case reorder.Future:
		names := p.producersOff(clocks.Ahead, 0)
		if zone, ok := zoneOf(s.Off); ok {
			hint := fmt.Sprintf("they are ahead by about %s, a difference of time zones: check that event times are in UTC or say their offset", zone)
			if names != "" {
				hint += "; " + names
			}
			return hint
		}
		if s.Off > 48*time.Hour {
			return "clocks are hardly off by as much: check that TIDEMARK_EVENT_TIME names when the record's event happened, and its unit; to change it, " + timestamp.Change("")
		}
		if s.Records*10 >= s.Read*9 {
			return "all of them are, so check the clock of this machine first (NTP), then the unit and time zone of event times"
		}
		if names != "" {
			return names + ", set it right (NTP); TIDEMARK_MAX_FUTURE=" + cfg.MaxFuture.String() + " says how far ahead is believed"
		}
		return "set the clocks of their producers" + p.namesThem() + "; TIDEMARK_MAX_FUTURE=" + cfg.MaxFuture.String() + " says how far ahead is believed"
	}
	return p.behindHint(&s.Behind)
}

// zoneOf returns the difference of time zones that a distance looks like: whole quarters of an
// hour, to half a minute, from half an hour to 14 hours.
func zoneOf(d time.Duration) (zone time.Duration, ok bool) {
	const quarter = 15 * time.Minute
	zone = d.Round(quarter)
	return zone, zone >= 2*quarter && zone <= 14*time.Hour && (d-zone).Abs() <= 30*time.Second
}

func rounded(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// leastLeapLate is how many records a leap has to make late before it is reported.
const leastLeapLate = 10

// watchLeap looks for a record that moves the watermark by far more than its neighbours, and
// counts what it makes late. newest is the newest event time before the record.
func (p *Partition) watchLeap(newest, t watermark.Time, offset int64, v reorder.Verdict) {
	cfg := &p.line.Config
	if !p.line.leaps || v != reorder.OnTime && v != reorder.BehindWatermark {
		return // there is no one record that a watermark follows, or it has nothing to do with it
	}
	bound := cfg.MaxOutOfOrderness
	if cfg.Watermark == config.Adaptive {
		bound = p.State.Newest().Since(p.State.Watermark())
	}
	switch {
	case p.leap.Open():
		late := p.leap.Late
		over := p.leap.Add(offset, t, v == reorder.BehindWatermark, bound)
		if p.leap.Late > late {
			p.blamed = blamed{p.leap, p.leapAhead}
			p.Ledger.Leapt(off(v, t, p.before, p.line.wall))
		}
		if over {
			p.reportLeap()
		}
	case v == reorder.OnTime && clocks.Leaps(newest, t, bound):
		p.leap.Begin(offset, t, newest, p.before)
		p.leapSource, p.leapAhead = p.source, t.Since(p.line.wall)
	}
}

// reportLeap reports a record that made others late: for each partition after pauses that grow
// while it goes on, and of some partitions at a time, for a clock that is ahead is in all that its
// producer writes to.
func (p *Partition) reportLeap() {
	l, since := p.line, p.line.now.Sub(p.leapReported)
	if p.leap.Late < leastLeapLate || p.leapReported != 0 && since < p.leapPause {
		return
	}
	if _, ok := l.leapReports.may(l.now); !ok {
		return
	}
	if p.leapReported == 0 || since >= 2*p.leapPause {
		p.leapPause = fault.RepeatAfter // it is new, or has ceased and begins again
	} else {
		p.leapPause = min(2*p.leapPause, time.Hour)
	}
	p.leapReported = l.now
	l.Reporter.Logger.Warn("a record moved the watermark ahead of the records around it and made others late",
		"topic", p.Topic, "partition", p.Partition, "offset", p.leap.Offset, "source", l.Config.EventTime.Sources()[p.leapSource],
		"off_by", clocks.Span(rounded(p.leap.By)), "records", p.leap.Late,
		"hint", p.aheadCure(p.leapAhead, p.leap.By))
}

// epochs bounds the reports of new epochs, and knows how often they begin.
type epochs struct {
	began [2]watermark.Instant // the last ones
}

// often reports whether a new epoch is the third within a minute.
func (e *epochs) often(now watermark.Instant) bool {
	first := e.began[0]
	copy(e.began[:], e.began[1:])
	e.began[len(e.began)-1] = now
	return first > 0 && now.Sub(first) < time.Minute
}

// reportEpoch reports that a new epoch begins before the record under way.
func (p *Partition) reportEpoch(r *kgo.Record) {
	l := p.line
	args := []any{"topic", p.Topic, "partition", p.Partition, "offset", r.Offset, "epoch", p.State.Epoch() + 1}
	if p.epochs.often(l.now) {
		p.Ledger.EpochsOften = time.Now()
		args = append(args, "hint", fmt.Sprintf("epochs begin often, and order holds within one only: TIDEMARK_REANCHOR_AFTER=%d takes ordinary late records for a clock that was set back; raise it, or the bound", l.Config.ReanchorAfter))
	}
	l.Reporter.ThrottleMore(fmt.Sprint(p.Topic, p.Partition), slog.LevelWarn, "event time jumped back; a new epoch begins", args...)
}
