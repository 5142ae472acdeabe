package pipeline

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Evidence about producers' clocks is gathered from the times in records. It decides
// nothing and goes into no output, so a sample of the records is enough. A producer whose
// clock is off is logged, and again, less and less often, while it is.

// PromptPoll is how long records may have waited in the client while the loop worked on
// others, and still count as just fetched.
const PromptPoll = 500 * time.Millisecond

// Polled records whether the records just polled are fresh: not in the log for long. They
// are if reading had reached the end of the log before, because the client fetches all the
// time.
func (p *Partition) Polled(records []*kgo.Record, highWatermark int64) {
	n := len(records)
	p.fresh = p.AtEnd && p.line.prompt
	p.AtEnd = records[n-1].Offset+1 >= highWatermark
	p.Clocks.Poll(p.line.now, n)
}

// gatherClock adds the times of one record to the evidence. sampled: it belongs to the sample;
// the first records are looked at only for whether their event times fit.
func (p *Partition) gatherClock(r *kgo.Record, event watermark.Time, sampled bool) {
	l, reading := p.line, p.reading(r, event)
	if p.Ledger.Fitting.Add(reading) || p.Ledger.Misfit != "" && l.now.Sub(p.misfitLooked) >= remindEvery {
		p.reportMisfit(r)
	}
	if !sampled {
		return
	}
	p.Clocks.Add(reading)
	if l.Config.ClockHeader == "" {
		return
	}
	for i := len(r.Headers) - 1; i >= 0; i-- {
		if h := &r.Headers[i]; h.Key == l.Config.ClockHeader {
			if judged, ok := l.Producers.Add(p.Topic, h.Value, reading, l.Config.ClockSlack()); ok {
				p.reportProducer(judged)
			}
			return
		}
	}
}

// reading returns a time that a record has, and the other times that are known of it.
func (p *Partition) reading(r *kgo.Record, event watermark.Time) clocks.Reading {
	return clocks.Reading{Event: event, Timestamp: timestamp.Own(r), Read: p.line.polled, Appended: timestamp.IsArrival(r), Fresh: p.fresh}
}

// reportMisfit reports that what is known of how event times fit has changed, and again, less
// and less often, that they do not fit. It is told of the topic, however many partitions find
// it out.
func (p *Partition) reportMisfit(r *kgo.Record) {
	l, found := p.line, p.Ledger.Fitting.Found()
	p.misfitLooked = l.now
	names := l.Config.EventTime.Sources()
	args := []any{"topic", p.Topic, "partition", p.Partition, "offset", r.Offset, "source", names[p.source]}
	about := "event times of " + p.Topic
	switch {
	case found.Factor > 0:
		what, cure := l.Config.EventTime.TooSmall(p.source, found.Factor)
		p.Ledger.Misfit = what + "; " + cure
		l.Reporter.Changed(about, what, slog.LevelWarn, "event times have the wrong unit; records are ordered by times of 1970, and held far too long",
			append(args, "finding", what, "hint", cure)...)
	case found.Apart > 0:
		years := int(found.Apart.Hours() / 24 / 365)
		what := fmt.Sprintf("event times of %s are %d years before the records' own timestamps", names[p.source], years)
		p.Ledger.Misfit = what
		l.Reporter.Changed(about, "years", slog.LevelWarn, "event times are years before the records that have them",
			append(args, "finding", what, "off_by", clocks.Span(found.Apart), "hint", "check that "+names[p.source]+" is when the record's event happened, and its format; nothing is wrong if such old data is being written anew; to change it, "+timestamp.Change(""))...)
	default:
		p.Ledger.Misfit = ""
		l.Reporter.Changed(about, "", slog.LevelInfo, "event times are plausible again", args...)
	}
}

// producerReports bounds the log lines about producers: thousands may be off at once.
type producerReports struct {
	began      watermark.Instant
	lines      int
	suppressed int
}

// mostReports is how many producers are logged in a minute.
const mostReports = 10

func (t *producerReports) may(now watermark.Instant) (suppressed int, ok bool) {
	if now.Sub(t.began) >= time.Minute {
		t.began, t.lines = now, 0
	}
	if t.lines++; t.lines > mostReports {
		t.suppressed++
		return 0, false
	}
	suppressed, t.suppressed = t.suppressed, 0
	return suppressed, true
}

func (p *Partition) reportProducer(j clocks.Judgement) {
	l := p.line
	suppressed, ok := l.reports.may(l.now)
	if !ok {
		return
	}
	args := []any{"topic", p.Topic, "partition", p.Partition, "header", l.Config.ClockHeader, "producer", j.Name}
	if suppressed > 0 {
		args = append(args, "suppressed", suppressed)
	}
	if j.Finding == clocks.Right {
		l.Reporter.Logger.Info("a producer's clock is right again", args...)
		return
	}
	hint := "set its clock (NTP), or check what it writes as event time: records behind by more than the bound are late"
	if j.Finding == clocks.Ahead {
		hint = "set its clock (NTP), or check what it writes as event time: its records make those of others late, and are late themselves beyond TIDEMARK_MAX_FUTURE"
	}
	if j.Everybody {
		hint = "all producers judged so far are off, so check the clock of this machine first; otherwise " + hint
	}
	args = append(args, "finding", j.Finding.String(), "off_by", clocks.Span(j.Lead.Abs().Round(100*time.Millisecond)), "hint", hint)
	l.Reporter.Logger.Warn("a producer's clock is off", args...)
}

// countInvalid counts a record without a usable event time, and keeps what is wrong with it.
func (p *Partition) countInvalid(r *kgo.Record, err error) {
	sources := p.line.Config.EventTime
	p.line.Invalid.Times++
	absent := p.source == len(p.sources.decided)-1
	hint := p.absentHint
	if !absent || hint == "" || !p.Ledger.Reports(reorder.InvalidTime) { // to find what may be meant is slow
		hint = sources.Cure(p.source, r, err)
	}
	if absent {
		p.absentHint = hint
	}
	p.Ledger.Invalid = status.Invalid{Offset: r.Offset, Err: err, Hint: hint}
}
