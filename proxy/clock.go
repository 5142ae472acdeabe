package proxy

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/watermark"
)

// What records say about the clocks they come from is gathered on the side. It
// decides nothing and goes into no output; so a sample of the records will do,
// and of a producer that is known to be off the log is told once.

// readAtOnce is how long records may have been waiting in the client for the
// loop to be done with others.
const readAtOnce = 500 * time.Millisecond

// look takes note of whether what was read of a partition was in the log for
// long: not if everything before it had been read when it came, for the client
// asks all the time.
func (s *session) look(p *partition, f *kgo.FetchTopicPartition) {
	if n := len(f.Records); n > 0 {
		p.fresh = p.atEnd && s.punctual
		p.atEnd = f.Records[n-1].Offset+1 >= f.HighWatermark
		p.end, p.stable, p.heard = max(p.end, f.HighWatermark), f.LastStableOffset, s.now()
		p.clocks.Poll(s.now(), n)
	}
}

// witness takes the times of one record into account.
func (s *session) witness(p *partition, r *kgo.Record, event watermark.Time) {
	const logAppendTime = 1
	reading := clocks.Reading{
		Event: event, Timestamp: watermark.None, Read: s.polled,
		Appended: r.Attrs.TimestampType() == logAppendTime, Fresh: p.fresh,
	}
	if ms := r.Timestamp.UnixMilli(); !r.Timestamp.IsZero() && ms >= 0 {
		reading.Timestamp, _ = watermark.FromMillis(ms)
	}
	p.clocks.Add(reading)
	if s.cfg.ClockHeader == "" {
		return
	}
	for i := len(r.Headers) - 1; i >= 0; i-- {
		if h := &r.Headers[i]; h.Key == s.cfg.ClockHeader {
			if judged, ok := s.producers.Add(p.Topic, h.Value, reading, s.cfg.ClockSlack()); ok {
				s.tellProducer(p, judged)
			}
			return
		}
	}
}

// telling bounds what is told of producers: where all are off there may be
// thousands.
type telling struct {
	began  watermark.Instant
	lines  int
	untold int
}

// mostTold is how many producers are told of in a minute.
const mostTold = 10

func (t *telling) may(now watermark.Instant) (untold int, ok bool) {
	if now.Sub(t.began) >= time.Minute {
		t.began, t.lines = now, 0
	}
	if t.lines++; t.lines > mostTold {
		t.untold++
		return 0, false
	}
	untold, t.untold = t.untold, 0
	return untold, true
}

func (s *session) tellProducer(p *partition, j clocks.Judgement) {
	untold, ok := s.told.may(s.now())
	if !ok {
		return
	}
	args := []any{"topic", p.Topic, "partition", p.Partition, "header", s.cfg.ClockHeader, "producer", j.Name}
	if untold > 0 {
		args = append(args, "suppressed", untold)
	}
	if j.Finding == clocks.Right {
		s.log.Info("the clock of a producer is right again", args...)
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
	s.log.Warn("the clock of a producer is off", args...)
}

// fetchTimes watches how long fetches take. Where nothing is to be had, brokers
// answer only after half a second; that is part of it.
type fetchTimes struct{ trips *clocks.Trips }

// OnBrokerE2E is told of every request and its answer.
func (f fetchTimes) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e kgo.BrokerE2E) {
	if key == kmsg.Fetch.Int16() && e.Err() == nil {
		f.trips.Add(e.DurationE2E())
	}
}
