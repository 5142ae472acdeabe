package pipeline

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Evidence about producers' clocks is gathered from the times in records. It decides
// nothing and goes into no output, so a sample of the records is enough. A producer whose
// clock is off is logged once.

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

// gatherClock adds the times of one record to the evidence.
func (p *Partition) gatherClock(r *kgo.Record, event watermark.Time) {
	l := p.line
	const logAppendTime = 1
	reading := clocks.Reading{
		Event: event, Timestamp: watermark.None, Read: l.polled,
		Appended: r.Attrs.TimestampType() == logAppendTime, Fresh: p.fresh,
	}
	if ms := r.Timestamp.UnixMilli(); !r.Timestamp.IsZero() && ms >= 0 {
		reading.Timestamp, _ = watermark.FromMillis(ms)
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
	args = append(args, "finding", j.Finding.String(), "off_by", j.Lead.Abs().Round(100*time.Millisecond).String(), "hint", hint)
	l.Reporter.Logger.Warn("a producer's clock is off", args...)
}
