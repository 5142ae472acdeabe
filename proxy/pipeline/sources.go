package pipeline

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
	"github.com/tidemarkhq/tidemark/watermark"
)

// A source that is absent gives way to the next one. Where a source is absent from all records
// of a topic, its name is probably misspelt or the producers do not write it, and another
// clock orders the records without anybody knowing. So it is counted which source decides,
// and a source that nearly no record has is reported for each topic, less and less often while
// it goes on; so is one that disappears later on.
//
// It is reported as information where nobody has configured event times and nothing else in
// the records looks like one: to order by the records' own timestamps is what many want.

// Records that a share is taken of: so many, or fewer after a minute; the first time after ten
// seconds, for whoever tries it with a few records waits for what it says.
const (
	sourceWindow      = 1000
	sourceWindowLeast = 20
	sourceFirst       = 10 * time.Second
)

// A source is absent if fewer than one in mostlyAbsent records have it, and present again if
// more than one in mostlyPresent do; in between nothing changes.
const (
	mostlyAbsent  = 100
	mostlyPresent = 2
)

// sources counts which sources decide, for one topic.
type sources struct {
	began   watermark.Instant // of the window
	records int
	decided []int               // by source; the last one: none
	known   []presence          // by source
	last    []watermark.Instant // by source: when it was present last
	absent  []absence           // by source: what is said of it, if it is absent
	like    likeness            // of the first source
	judged  bool                // at least once

	// One of the records for which a fallback decided, and who did: the first window may have
	// to be judged when no more come.
	sample  *kgo.Record
	sampled int
	reader  *Partition
}

// absence is what is said of a source that records do not have.
type absence struct {
	words         string // empty: they have it
	similar, hint string // what may be meant, and what to do
	vanished      bool   // they had it before
	records       int    // that did not have it, so far

	told  watermark.Instant // when it was told last,
	pause time.Duration     // and how long not again
}

// absentFor is how long a source that was present has to be absent before it is gone: the
// partitions of a topic come by turns, and may have different producers.
const absentFor = time.Minute

// presence is what is known about a source.
type presence uint8

const (
	unknown presence = iota
	present
	absent
)

// sourcesOf returns the counts of a topic.
func (l *Pipeline) sourcesOf(topic string) *sources {
	if l.sources[topic] == nil {
		n := len(l.Config.EventTime.Sources())
		l.sources[topic] = &sources{
			began: l.now, decided: make([]int, n),
			known: make([]presence, n), last: make([]watermark.Instant, n), absent: make([]absence, n),
		}
	}
	return l.sources[topic]
}

// countSource counts which source decided about the event time of the record under way.
func (p *Partition) countSource(r *kgo.Record) {
	l, s := p.line, p.sources
	p.Ledger.Decided(p.source, len(s.decided))
	s.decided[p.source]++
	if p.source > 0 && s.records%likenessEvery == 0 && s.like.asked < likenessOf { // to look is slow
		p.askSimilar(r)
	}
	if s.records++; !s.judged && s.sample == nil && p.source > 0 && p.source < len(s.decided)-1 {
		s.sample, s.sampled, s.reader = copyOf(r), p.source, p
	}
	if s.full(l.now) {
		p.judgeSources(r, p.source)
	}
}

// full reports whether enough records came to take a share of them.
func (s *sources) full(now watermark.Instant) bool {
	least := time.Minute
	if !s.judged {
		least = sourceFirst
	}
	return s.records >= sourceWindow || s.records >= sourceWindowLeast && now.Sub(s.began) >= least
}

// JudgeSources judges the topics of which a few records came and then no more.
func (l *Pipeline) JudgeSources() {
	for _, s := range l.sources {
		if s.sample != nil && s.full(l.now) {
			s.reader.judgeSources(s.sample, s.sampled)
		}
	}
}

// copyOf copies what names are looked for in: a record keeps the whole batch that it came in.
func copyOf(r *kgo.Record) *kgo.Record {
	c := &kgo.Record{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp, Value: bytes.Clone(r.Value)}
	for _, h := range r.Headers {
		c.Headers = append(c.Headers, kgo.RecordHeader{Key: strings.Clone(h.Key), Value: bytes.Clone(h.Value)})
	}
	return c
}

// judgeSources looks which sources the records of a window had, and begins another one. r is one
// of the records; decider is the source of its event time.
func (p *Partition) judgeSources(r *kgo.Record, decider int) {
	l, s := p.line, p.sources
	asked, last := s.records, len(s.decided)-1
	for i := range last {
		had := s.decided[i]
		served := asked - had - s.decided[last] // by those behind it
		switch {
		case had*mostlyAbsent < asked && served*mostlyPresent > asked:
			if i < decider { // this record does not have it
				p.reportAbsent(r, i, decider, asked, had)
			}
		case had*mostlyPresent > asked:
			s.known[i], s.last[i], s.absent[i] = present, l.now, absence{}
		}
		if asked -= had; asked == 0 {
			break
		}
	}
	clear(s.decided)
	s.records, s.began = 0, l.now
	s.judged, s.sample, s.reader = true, nil, nil
}

// reportAbsent reports a source that records do not have, and again, less and less often, while
// they do not. r is one of them.
func (p *Partition) reportAbsent(r *kgo.Record, source, decider, asked, had int) {
	l, s := p.line, p.sources
	vanished := s.known[source] == present
	if vanished && l.now.Sub(s.last[source]) < absentFor {
		return
	}
	names := l.Config.EventTime.Sources()
	name, fallback := names[source], names[decider]
	a := &s.absent[source]
	a.records = min(a.records+asked-had, math.MaxInt32)
	if s.known[source] != absent {
		s.known[source] = absent
		a.vanished = vanished
		a.similar, a.hint = p.absentCure(r, source, decider, vanished)
		a.words = fmt.Sprintf("%d of %d records have %s; %s decides for the others", had, asked, name, fallback)
		if a.similar != "" {
			a.words += fmt.Sprintf(" (there is %s)", a.similar)
		}
		a.words += "; " + a.hint
	} else if l.now.Sub(a.told) < a.pause {
		return
	}
	a.told, a.pause = l.now, min(max(2*a.pause, fault.RepeatAfter), time.Hour)
	args := []any{"topic", p.Topic, "source", name, "records", a.records, "fallback", fallback}
	if a.similar != "" {
		args = append(args, "similar", a.similar)
	}
	args = append(args, "hint", a.hint)
	about := p.Topic + "\x00" + name
	switch {
	case a.vanished:
		l.Reporter.ThrottleMore(about, slog.LevelWarn, "records do not have a source of event times any more that they had before", append(args, "partition", p.Partition, "offset", r.Offset)...)
	case l.Config.EventTimeIsDefault() && a.similar == "":
		l.Reporter.InfoOnce(about, "no header event-time in these records; their own timestamps are their event times", args...)
	default:
		l.Reporter.ThrottleMore(about, slog.LevelWarn, absentSource, args...)
	}
}

// absentCure says what was probably meant by a source that records do not have, and what to do
// about it.
func (p *Partition) absentCure(r *kgo.Record, source, decider int, vanished bool) (found, hint string) {
	cfg := &p.line.Config
	fallback := cfg.EventTime.Sources()[decider]
	found, likely := cfg.EventTime.Near(source, r)
	switch {
	case vanished:
		hint = "find out what changed in the producers; records are ordered by another clock than before"
	case cfg.EventTimeIsDefault() && found == "":
		hint = "set TIDEMARK_EVENT_TIME=timestamp if that is meant; or else, with the place where event times are, " + timestamp.Change("")
	case likely:
		hint = "the name may be misspelt, and names are compared exactly, capitals too: " + timestamp.Change(cfg.EventTime.Instead(source, found))
	case found != "":
		hint = "if " + found + " is the event time, " + timestamp.Change(cfg.EventTime.Instead(source, found)) + "; to keep to the fallback, set " + fallback + " in the same way"
	default:
		hint = "check the name; if the fallback is meant, leave the source out of TIDEMARK_EVENT_TIME; either way, " + timestamp.Change("")
	}
	return found, hint
}

// likeness counts in how many records that do not have a source another one is that was probably
// meant.
type likeness struct{ asked, similar int }

// So many records of a topic are asked, one in so many.
const (
	likenessOf    = 40
	likenessEvery = 19 // producers may take turns
)

// most reports whether nearly all have it.
func (l likeness) most() bool { return l.asked >= likenessOf/2 && l.similar*10 >= l.asked*9 }

// askSimilar looks in a record that does not have the first source for one with nearly its name.
func (p *Partition) askSimilar(r *kgo.Record) {
	l := &p.sources.like
	l.asked++
	if _, likely := p.line.Config.EventTime.Near(0, r); likely {
		l.similar++
	}
}

const absentSource = "records do not have the source of event times that is configured; a fallback decides"

// Sources says, in words, which source of event times is absent from the records of the
// partition's topic; empty: none. similar: nearly all have another one, with nearly the name of
// the first that is configured.
func (p *Partition) Sources() (words string, similar bool) {
	var all []string
	for i := range p.sources.absent {
		if w := p.sources.absent[i].words; w != "" {
			all = append(all, w)
		}
	}
	return strings.Join(all, "; "), p.sources.like.most()
}
