package timestamp

import (
	"errors"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Cure says what to set so that a record like r has an event time, if that is known: err is
// what ExtractFrom returned of it, and source which source decided. Where no source did, it is
// as slow as Near.
func (e *Extractor) Cure(source int, r *kgo.Record, err error) string {
	if source < len(e.sources) {
		s := e.sources[source]
		if f, ok := fitting(err); ok {
			return "if that is what producers write, " + Change(e.Instead(source, s.place()+":"+string(f)))
		}
		if strings.Contains(err.Error(), whyNoZone) {
			return Change(e.Instead(source, s.place()+":"+localPrefix+"UTC") + ", or the zone whose clock it is (" + localPrefix + "Europe/Paris)")
		}
		return ""
	}
	if ms, is := errors.AsType[outsideError](err); is {
		cure := "have producers set the timestamps of records in milliseconds"
		if unixMicros.fits(strconv.AppendInt(nil, int64(ms), 10)) {
			cure += ", not microseconds"
		}
		return cure
	}
	if !errors.Is(err, errAbsent) {
		return ""
	}
	at, meant := 0, ""
	for i := range e.sources {
		found, likely := e.Near(i, r)
		if found != "" && (meant == "" || likely) {
			at, meant = i, found
		}
		if likely {
			break
		}
	}
	if meant != "" {
		return "if " + meant + ", which this record has, is the event time, " + Change(e.Instead(at, meant))
	}
	return "check the name (capitals count); a source behind it decides where it is absent, like timestamp; to change it, " + Change("")
}

// Cure says how to have the watermark read, if that is known: err is what Time returned.
func (h Header) Cure(err error) string {
	if f, ok := fitting(err); ok {
		return "set TIDEMARK_WATERMARK_HEADER=" + h.of.name + ":" + string(f) + " if that is what producers write"
	}
	return ""
}

// fitting returns the format that would fit, by the words of a refusal.
func fitting(err error) (f format, ok bool) {
	before, behind, _ := strings.Cut(wouldFit, "%s")
	_, rest, _ := strings.Cut(err.Error(), before)
	word, _, ok := strings.Cut(rest, behind)
	return format(word), ok
}
