package timestamp

import (
	"slices"
	"strings"
	"unicode"

	"github.com/agext/levenshtein"
	"github.com/tidwall/gjson"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/watermark"
)

// usual are names that an event time often has, as fold writes them.
var usual = []string{"eventtime", "eventtimestamp", "createdat", "occurredat", "timestamp", "ts", "time", "datetime", "cetime", "eventts", "creationtime", "createdtime", "updatedat"}

// mostNames is how many headers and how many fields of a record are looked at.
const mostNames = 200

// Near looks in a record for what was probably meant by a source that the record does not
// have, and returns it as a source would be written. likely says that its name is nearly that
// of the source, as Event-Time is that of event-time; else it is a name that event times
// often have.
//
// It returns no name that is unlike one that the configuration or this package has, for names
// of fields may be payload too. It is slow, for a record now and then.
func (e *Extractor) Near(source int, r *kgo.Record) (found string, likely bool) {
	if source >= len(e.sources) {
		return "", false
	}
	var headers []string
	for _, h := range r.Headers[:min(len(r.Headers), mostNames)] {
		headers = append(headers, h.Key)
	}
	fields := fieldsOf(r.Value, nil)
	switch s := e.sources[source].(type) {
	case header:
		if name, ok := nearest(headers, s.name); ok {
			return asWritten("header:"+name, s.format, r), true
		}
	case *jsonField:
		last := len(s.names) - 1
		beside := fieldsOf(r.Value, s.names[:last])
		if name, ok := nearest(beside, s.names[last]); ok && name != s.names[last] { // it may be null
			return asWritten("json:"+joinPath(append(slices.Clone(s.names[:last]), name)), s.format, r), true
		}
		if name, ok := nearest(fields, s.names[last]); ok && last > 0 {
			return asWritten("json:"+joinPath([]string{name}), s.format, r), true
		}
	default:
		return "", false
	}
	for _, word := range usual {
		for _, name := range headers {
			if fold(name) == word {
				return e.unlessAsked(asWritten("header:"+name, unixMillis, r))
			}
		}
		for _, name := range fields {
			if fold(name) == word {
				return e.unlessAsked(asWritten("json:"+joinPath([]string{name}), unixMillis, r))
			}
		}
	}
	return "", false
}

// Near looks in a record for a header of nearly the same name, and returns its name; empty: there
// is none.
func (h Header) Near(r *kgo.Record) string {
	var names []string
	for _, other := range r.Headers[:min(len(r.Headers), mostNames)] {
		if other.Key != h.of.name {
			names = append(names, other.Key)
		}
	}
	name, _ := nearest(names, h.of.name)
	return name
}

// Instead returns the setting that reads another header in the same way.
func (h Header) Instead(name string) string { return withFormat(name, h.of.format) }

func withFormat(place string, f format) string {
	if f == unixMillis {
		return place
	}
	return place + ":" + string(f)
}

// Instead returns the sources as Parse reads them, with another one in the place of one.
func (e *Extractor) Instead(source int, other string) string {
	names := make([]string, len(e.sources))
	for i, s := range e.sources {
		names[i] = strings.TrimSuffix(s.String(), ":"+string(unixMillis))
	}
	names[source] = other
	return strings.Join(names, ",")
}

// unlessAsked returns a source, unless it is asked already.
func (e *Extractor) unlessAsked(name string) (string, bool) {
	for _, s := range e.sources {
		if s.place() == name || strings.HasPrefix(name, s.place()+":") {
			return "", false
		}
	}
	return name, false
}

// fieldsOf returns the names in an object of a value in JSON.
func fieldsOf(value []byte, path []string) (names []string) {
	value = behindID(value)
	if tooDeep(value, deepestJSON) || !gjson.ValidBytes(value) {
		return nil
	}
	text := string(value)
	for _, name := range path {
		text = member(text, name)
	}
	gjson.Parse(text).ForEach(func(key, _ gjson.Result) bool {
		if key.Type == gjson.String {
			names = append(names, key.Str)
		}
		return len(names) < mostNames
	})
	return names
}

// asWritten returns a source with the format in which the record has it: the one that is
// configured, unless another fits and that does not.
func asWritten(place string, configured format, r *kgo.Record) string {
	as := withFormat(place, configured)
	x, err := Parse(as)
	if err != nil {
		return as
	}
	t, _, err := x.ExtractFrom(r)
	if err != nil {
		if f, ok := fitting(err); ok {
			return withFormat(place, f)
		}
		if strings.Contains(err.Error(), whyNoZone) {
			return place + ":" + localPrefix + "UTC"
		}
		return as
	}
	for factor := int64(1000); factor <= 1_000_000_000; factor *= 1000 {
		if _, right, _ := configured.tooSmall(place, factor); right != "" && t >= firstLikely/watermark.Time(factor) && t < lastLikely/watermark.Time(factor) {
			return withFormat(place, right)
		}
	}
	return as
}

// nearest returns the name that is nearest to the one that is wanted, if one is near.
func nearest(names []string, wanted string) (string, bool) {
	best, slips := "", len(wanted)/4+1
	for _, name := range names {
		if !isPlain(name) {
			continue
		}
		d := levenshtein.Distance(fold(name), fold(wanted), nil)
		if d < slips {
			best, slips = name, d
		}
	}
	return best, best != ""
}

// fold leaves out what is often written in several ways: created_at, createdAt, Created-At.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '-' || r == '.' || r == ' ' || r == '@' {
			return -1
		}
		return unicode.ToLower(r)
	}, name)
}

// isPlain reports whether a name can be shown as it is.
func isPlain(name string) bool {
	return len(name) <= 64 && !strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII || !unicode.IsPrint(r) || r == ',' })
}

// joinPath writes names as splitPath reads them.
func joinPath(names []string) string {
	escaped := make([]string, len(names))
	for i, n := range names {
		var b strings.Builder
		for _, c := range []byte(n) {
			if strings.IndexByte(`\.*?#|[`, c) >= 0 {
				b.WriteByte('\\')
			}
			b.WriteByte(c)
		}
		escaped[i] = b.String()
	}
	return strings.Join(escaped, ".")
}
