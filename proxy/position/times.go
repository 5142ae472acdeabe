package position

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// times finds what came out, in one epoch, by other event times than those of now: what its
// headers say is not true of the event time that it has now. Event times change in the midst
// of an epoch only while nothing is held, so in either output all that stands before such a
// record was made by others, too.
type times struct {
	eventTime func(*kgo.Record) (watermark.Time, error)
	asked     emit.Headers // the headers that outputs have

	top    [2]int64 // the highest source offset so far, of ordered and late
	marked bool     // an ordered record has a watermark:
	mark   int64    // the highest, ms
	last   reorder.Position
	any    bool

	others int64 // the highest source offset of what is known to be of others, -1
	// readable is that of the late records without a time of then that have one now. Nobody
	// knows why: timestamps of arrival are not told from others in the outputs.
	readable int64
}

func newTimes(eventTime func(*kgo.Record) (watermark.Time, error), asked emit.Headers) times {
	return times{eventTime: eventTime, asked: asked, top: [2]int64{-1, -1}, others: -1, readable: -1}
}

// below returns the source offset below which event times are not known to be as now; 0: all
// are.
func (s *times) below() int64 { return max(s.others, s.readable) + 1 }

// note takes the next record of an output.
func (s *times) note(which int, p *emit.Parts, source *kgo.Record) {
	before := s.top[which]
	s.top[which] = max(before, p.SourceOffset)
	t, err := s.eventTime(source)
	switch {
	case errors.Is(err, timestamp.ErrPrevious), errors.Is(err, timestamp.ErrUnknownSchema):
	case which == late:
		s.late(p, t, err)
	case err != nil:
		s.others = max(s.others, s.top[which])
	default:
		s.ordered(p, t, before)
	}
}

func (s *times) ordered(p *emit.Parts, t watermark.Time, before int64) {
	ms, at := t.Millis(), reorder.Position{Time: t, Offset: p.SourceOffset}
	w, has, err := p.Number(emit.WordWatermark)
	has = has && err == nil && s.asked.Watermark
	says, hasTime, err := p.Number(emit.WordEventTime)
	switch {
	case has && w < ms-1, s.marked && ms <= s.mark, hasTime && err == nil && s.asked.EventTime && says != ms:
		s.others = max(s.others, s.top[ordered])
	case !has && s.any && at.Before(s.last):
		s.others = max(s.others, before)
	}
	if has && (!s.marked || w > s.mark) {
		s.marked, s.mark = true, w
	}
	s.any, s.last = true, at
}

func (s *times) late(p *emit.Parts, t watermark.Time, invalid error) {
	reason := string(p.Value(emit.WordLateReason))
	w, marked, _ := p.Number(emit.WordWatermark)
	by, has, err := p.Number(emit.WordLateByMs)
	switch {
	case reason == emit.Reason(reorder.InvalidTime):
		if invalid == nil && !p.Has(emit.WordUnknownSchema) && !p.Has(emit.WordSchema) {
			s.readable = max(s.readable, s.top[late])
		}
	case invalid != nil, marked && has && err == nil && w-t.Millis() != by:
		s.others = max(s.others, s.top[late])
	}
}

// since says from where on the event times of a rebuilt position are those of now.
type since int

const (
	asCommitted   since = iota // the commit says it
	nothingBelies              // nothing says it, and nothing in the outputs speaks against it: always
	fromBelow                  // from a source offset on: what came out before speaks against it
	fromHere                   // from what is read next on: the commit is of others
)

// errOtherTimes: what came out was made by other event times than those of now.
var errOtherTimes = errors.New("TIDEMARK_EVENT_TIME is another now")

// sinceWhen says from where on the event times of a rebuilt position are those of now, and
// refuses where what is held was judged by others: an epoch has one order.
func (b *rebuild) sinceWhen(t *retracing, s *reorder.Snapshot) (since, error) {
	others, below := int64(-1), int64(0)
	for _, r := range t.run {
		others, below = max(others, r.times.others), max(below, r.times.below())
	}
	if others >= s.Low || s.Count > 0 && t.any && t.last.Offset <= others {
		return 0, notKnown("%w: source offset %d came out with another event time, as its headers show, and what is held would come out in one order with it", errOtherTimes, others)
	}
	switch known := b.timesKnown(&b.was); {
	case b.was.Earlier, errors.Is(b.was.Err, reorder.ErrFingerprint):
		s.TimesChange()
		return fromHere, nil
	case known != nil && b.was.SameTopic():
		s.TimesFrom, s.TimesEpoch = known.TimesFrom, known.TimesEpoch
		return asCommitted, nil
	}
	s.TimesFrom = below
	if t.later {
		s.TimesEpoch = t.epoch // of the epochs before nothing is known
	}
	if below > 0 {
		return fromBelow, nil
	}
	return nothingBelies, nil
}
