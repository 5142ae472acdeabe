package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/watermark"
)

// A source that is absent gives way to the next one. Where a source is absent from all records
// of a topic, its name is probably misspelt or the producers do not write it, and another
// clock orders the records without anybody knowing. So it is counted which source decides,
// and a source that nearly no record has is reported, once for each topic; so is one that
// disappears later on.
//
// It is reported as information where nobody has configured event times and nothing else in
// the records looks like one: to order by the records' own timestamps is what many want.

// Records that a share is taken of: so many, or fewer after a minute.
const (
	sourceWindow      = 1000
	sourceWindowLeast = 20
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
	words   []string            // by source: that it is absent
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
			known: make([]presence, n), last: make([]watermark.Instant, n), words: make([]string, n),
		}
	}
	return l.sources[topic]
}

// countSource counts which source decided about the event time of the record under way.
func (p *Partition) countSource(r *kgo.Record) {
	l, s := p.line, p.sources
	p.Ledger.Decided(p.source, len(s.decided))
	s.decided[p.source]++
	if s.records++; s.records < sourceWindow && (s.records < sourceWindowLeast || l.now.Sub(s.began) < time.Minute) {
		return
	}
	asked, last := s.records, len(s.decided)-1
	for i := range last {
		had := s.decided[i]
		served := asked - had - s.decided[last] // by those behind it
		switch {
		case had*mostlyAbsent < asked && served*mostlyPresent > asked:
			if i < p.source { // this record does not have it
				p.reportAbsent(r, i, asked, had)
			}
		case had*mostlyPresent > asked:
			s.known[i], s.last[i], s.words[i] = present, l.now, ""
		}
		if asked -= had; asked == 0 {
			break
		}
	}
	clear(s.decided)
	s.records, s.began = 0, l.now
}

// reportAbsent reports a source that records do not have. r is one of them.
func (p *Partition) reportAbsent(r *kgo.Record, source, asked, had int) {
	l, s := p.line, p.sources
	vanished := s.known[source] == present
	if s.known[source] == absent || vanished && l.now.Sub(s.last[source]) < absentFor {
		return
	}
	s.known[source] = absent
	names := l.Config.EventTime.Sources()
	name, fallback := names[source], names[p.source]
	found, likely := l.Config.EventTime.Near(source, r)
	words := fmt.Sprintf("%d of %d records have %s; %s decides for the others", had, asked, name, fallback)
	args := []any{"topic", p.Topic, "source", name, "records", asked - had, "fallback", fallback}
	if found != "" {
		words += fmt.Sprintf(" (there is %s)", found)
		args = append(args, "similar", found)
	}
	hint := ""
	switch {
	case vanished:
		hint = "find out what changed in the producers; records are ordered by another clock than before"
	case l.Config.EventTimeIsDefault() && found == "":
		hint = "set TIDEMARK_EVENT_TIME=timestamp if that is meant, or else the place where event times are"
	case likely:
		hint = "set TIDEMARK_EVENT_TIME=" + l.Config.EventTime.Instead(source, found) + ": the name may be misspelt, and names are compared exactly, capitals too"
	case found != "":
		hint = "set TIDEMARK_EVENT_TIME=" + l.Config.EventTime.Instead(source, found) + " if that is the event time; to keep to the fallback, set TIDEMARK_EVENT_TIME=" + fallback
	default:
		hint = "check the name; if the fallback is meant, leave the source out of TIDEMARK_EVENT_TIME"
	}
	s.words[source] = words + "; " + hint
	args = append(args, "hint", hint)
	about := p.Topic + "\x00" + name
	switch {
	case vanished:
		l.Reporter.Logger.Warn("records do not have a source of event times any more that they had before", append(args, "partition", p.Partition, "offset", r.Offset)...)
	case l.Config.EventTimeIsDefault() && found == "":
		l.Reporter.InfoOnce(about, "no header event-time in these records; their own timestamps are their event times", args...)
	default:
		l.Reporter.WarnOnce(about, absentSource, args...)
	}
}

const absentSource = "records do not have the source of event times that is configured; a fallback decides"

// Sources says, in words, which source of event times is absent from the records of the
// partition's topic; empty: none.
func (p *Partition) Sources() string {
	return strings.Join(slices.DeleteFunc(slices.Clone(p.sources.words), func(w string) bool { return w == "" }), "; ")
}
