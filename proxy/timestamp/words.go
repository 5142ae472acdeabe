package timestamp

import (
	"strconv"
	"strings"
)

// None is the name of the source of records that have none.
const None = "none"

// Sources returns the names of the sources in order, without their formats, and None behind
// them: the names by which it is counted which source decided.
func (e *Extractor) Sources() []string {
	names := make([]string, 0, len(e.sources)+1)
	for _, s := range e.sources {
		names = append(names, s.place())
	}
	return append(names, None)
}

// Words says which sources are asked, in which order.
func (e *Extractor) Words() string {
	all := make([]string, len(e.sources))
	for i, s := range e.sources {
		all[i] = words(s)
	}
	return strings.Join(all, ", else ")
}

func words(s source) string {
	switch s := s.(type) {
	case header:
		return "header " + strconv.Quote(s.name) + " (" + s.format.words() + ")"
	case *jsonField:
		return "field " + strconv.Quote(s.path) + " of the JSON value (" + s.format.words() + ")"
	case *field:
		name := map[family]string{avroFamily: "Avro", protobufFamily: "Protobuf"}[s.family]
		return "field " + strconv.Quote(s.path) + " of the " + name + " value (as its schema says, else " + s.format.words() + ")"
	case recordTimestamp:
		return "the record's own timestamp"
	case previous:
		return "that of the record before it, of its key if there is one"
	}
	return s.String()
}

func (f format) words() string {
	switch f {
	case unixMillis, unwritten:
		return "ms since 1970, or RFC 3339"
	case unixSeconds:
		return "seconds since 1970"
	case unixMicros:
		return "µs since 1970"
	case unixNanos:
		return "ns since 1970"
	case rfc3339:
		return "RFC 3339"
	case int64BE:
		return "8 bytes, ms since 1970"
	}
	if zone, ok := strings.CutPrefix(string(f), localPrefix); ok {
		return "RFC 3339, in " + zone + " where it has no zone"
	}
	return string(f)
}
