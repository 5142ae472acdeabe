package pipeline

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/watermark"
)

// What records say about the clocks they come from is gathered on the side. It
// decides nothing and goes into no output; so a sample of the records will do,
// and of a producer that is known to be off the log is told once.

// PromptPoll is how long records may have been waiting in the client for the
// loop to be done with others.
const PromptPoll = 500 * time.Millisecond

// Polled takes note of whether what was read of a partition had been in the log for long:
// not if everything before it had been read when it came, for the client asks all the time.
func (p *Partition) Polled(records []*kgo.Record, highWatermark int64) {
	n := len(records)
	p.fresh = p.AtEnd && p.line.prompt
	p.AtEnd = records[n-1].Offset+1 >= highWatermark
	p.Clocks.Poll(p.line.now, n)
}

// gatherClock takes the times of one record into account.
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

// producerReports bounds what is logged of producers: where all are off there may be
// thousands.
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
		l.Reporter.Logger.Info("the clock of a producer is right again", args...)
		return
	}
	hint := "mend its clock (NTP), or see what it writes as event time: records behind by more than the bound are late"
	if j.Finding == clocks.Ahead {
		hint = "mend its clock (NTP), or see what it writes as event time: it makes records of others late, and is refused beyond TIDEMARK_MAX_FUTURE"
	}
	if j.Everybody {
		hint = "all producers judged so far are off, so it may be the clock of this machine; else " + hint
	}
	args = append(args, "finding", j.Finding.String(), "off_by", j.Lead.Abs().Round(100*time.Millisecond).String(), "hint", hint)
	l.Reporter.Logger.Warn("the clock of a producer is off", args...)
}
