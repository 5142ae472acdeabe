package timestamp

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/agext/levenshtein"

	"github.com/tidemarkhq/tidemark/emit/zone"
)

// Parse reads a comma-separated list of sources, asked in this order:
//
//	header:NAME[:FORMAT]     a header of the record
//	json:PATH[:FORMAT]       a field of a value in JSON
//	avro:FIELD[:FORMAT]      a field of a value in Avro, its schema in a registry
//	protobuf:FIELD[:FORMAT]  a field of a value in Protobuf, likewise
//	timestamp                the record's own timestamp
//	previous                 that of the record before it; see ErrPrevious
//
// FORMAT is a known word after the last colon, so that a name may contain
// colons: unix-ms (the default), unix-s, unix-us, unix-ns, rfc3339, int64-be, or
// local:ZONE with a zone of the time zone database.
// The error joins one error for every source that is wrong.
func Parse(spec string) (*Extractor, error) {
	var e Extractor
	var faults []error
	for text := range strings.SplitSeq(spec, ",") {
		s, err := parseSource(strings.TrimSpace(text))
		if err == nil {
			err = e.add(s)
		}
		if err != nil {
			faults = append(faults, err)
		}
	}
	if len(faults) == 0 {
		faults = append(faults, e.checkPrevious())
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if len(e.sources) == 1 && isTimestamp(e.sources[0]) {
		e.sources[0] = recordTimestamp{alone: true}
	}
	return &e, nil
}

// add appends a source. A second look at the same place could never be
// reached, so whoever wrote it meant something else.
func (e *Extractor) add(s source) error {
	for _, earlier := range e.sources {
		switch {
		case earlier.place() != s.place():
		case earlier.String() == s.String():
			return fmt.Errorf("%s is in the list twice", s.place())
		default:
			return fmt.Errorf("%s is in the list twice: %s is never reached, because %s comes before it", s.place(), s, earlier)
		}
	}
	e.sources = append(e.sources, s)
	return nil
}

const known = "header:NAME[:FORMAT], json:PATH[:FORMAT], avro:FIELD[:FORMAT], protobuf:FIELD[:FORMAT], timestamp and previous"

func parseSource(text string) (source, error) {
	kind, rest, _ := strings.Cut(text, ":")
	switch kind {
	case "":
		if text == "" {
			return nil, errors.New("a source in the list is empty")
		}
	case "timestamp":
		if text == kind {
			return recordTimestamp{}, nil
		}
	case "previous":
		if text == kind {
			return previous{}, nil
		}
	case "header":
		name, f, err := cutFormat(text, rest, "header", unixMillis)
		return header{name, f}, err
	case "json":
		path, f, err := cutFormat(text, rest, "field", unixMillis)
		if err != nil {
			return nil, err
		}
		return parseJSON(text, path, f)
	case string(avroFamily), string(protobufFamily):
		path, f, err := cutFormat(text, rest, "field", unwritten)
		if err != nil {
			return nil, err
		}
		return parseField(text, family(kind), path, f)
	}
	return nil, fmt.Errorf("%q is not a source%s; known are %s", text, nearSource(kind, rest), known)
}

// nearSource says what may have been meant by a source of an unknown kind.
func nearSource(kind, rest string) string {
	for _, k := range []string{"header", "json", string(avroFamily), string(protobufFamily)} {
		if rest != "" && levenshtein.Distance(strings.ToLower(kind), k, nil) <= 1 {
			return "; " + k + ":" + rest + " may be meant"
		}
	}
	switch {
	case strings.EqualFold(kind, "timestamp"):
		return "; timestamp may be meant, which has neither name nor FORMAT"
	case rest == "":
		return "; header:" + kind + " or json:" + kind + " may be meant"
	}
	return ""
}

// cutFormat splits what follows the kind of a source into name and format.
func cutFormat(text, rest, what string, otherwise format) (name string, f format, err error) {
	name, f = rest, otherwise
	at := strings.LastIndexByte(rest, ':')
	word := rest[at+1:]
	local := strings.LastIndex(":"+rest, ":"+localPrefix)
	switch {
	case at >= 0 && slices.Contains(formats, format(word)):
		name, f = rest[:at], format(word)
	case local >= 0:
		name, word = (":" + rest)[:local], rest[local+len(localPrefix):]
		name, f = strings.TrimPrefix(name, ":"), format(localPrefix+word)
		if zoneNamed(word) == nil {
			return "", "", fmt.Errorf("%s: %q is not a time zone; %s", text, word, zoneHint(word))
		}
	case at >= 0:
		err = notAFormat(text, rest, what, word)
	default:
		err = spacedFormat(text, rest, what)
	}
	if err != nil {
		return "", "", err
	}
	if name == "" {
		return "", "", fmt.Errorf("%s: the name of the %s is missing", text, what)
	}
	return name, f, nil
}

// notAFormat refuses what was probably meant for a format: taken as a part of the name, it
// would leave the header or field absent from every record, and the next source would be
// used unnoticed. Whoever means the name writes a format behind it.
func notAFormat(text, rest, what, word string) error {
	wayOut := fmt.Sprintf("a %s that is really called %q needs its format written out: %s:%s", what, rest, text, unixMillis)
	if first, _, _ := strings.Cut(rest, ":"); slices.Contains(formats, format(first)) {
		return fmt.Errorf("%s: the format %s stands before the name and belongs behind it (%s)", text, first, wayOut)
	}
	_, behind, _ := strings.Cut(rest, ":") // a pattern or an offset may have colons itself
	switch {
	case word == "":
		return fmt.Errorf("%s: there is no format behind the last colon; leave the colon out (%s)", text, wayOut)
	case pattern.MatchString(behind):
		return fmt.Errorf("%s: patterns are not formats; %s reads text that says its time zone, %sZONE text that does not (%s)", text, rfc3339, localPrefix, wayOut)
	case offset.MatchString(behind):
		return fmt.Errorf("%s: %q is not a format; %s (%s)", text, behind, zoneHint(behind), wayOut)
	case vagueHint(word) != "":
		return fmt.Errorf("%s: %q is not a format; %s (%s)", text, word, vagueHint(word), wayOut)
	}
	if zone, ok := zoneCalled(word); ok {
		return fmt.Errorf("%s: %q is not a format; %s%s is (%s)", text, word, localPrefix, zone, wayOut)
	}
	if meant := misspelt(word); len(meant) > 0 {
		return fmt.Errorf("%s: %q is not a format; %s is (%s)", text, word, strings.Join(meant, " or "), wayOut)
	}
	return nil
}

// spacedFormat refuses a format behind a space, which would become part of the name.
func spacedFormat(text, rest, what string) error {
	at := strings.LastIndexByte(rest, ' ')
	if at < 0 {
		return nil
	}
	meant := foreign(rest[at+1:])
	if slices.Contains(formats, format(rest[at+1:])) {
		meant = []string{rest[at+1:]}
	}
	if len(meant) == 0 {
		return nil
	}
	return fmt.Errorf("%s: a format stands behind a colon, not behind a space: %s:%s (a %s that is really called %q needs its format written out: %[1]s:%[6]s)",
		text, strings.TrimSpace(text[:strings.LastIndexByte(text, ' ')]), strings.Join(meant, " or "), what, rest, unixMillis)
}

var (
	// pattern finds what other programs describe the layout of text by.
	pattern = regexp.MustCompile(`(?i)yyyy|%[ymdhst]|hh?:mm|2006-01|dd[./]mm|mm[./]dd`)
	// offset finds a difference from UTC.
	offset = regexp.MustCompile(`^[+-]\d{1,2}(:?\d\d)?$`)
)

// vague are words for what is no point in time, or that leave open how one is written.
var vague = []struct {
	words []string
	hint  string
}{
	{
		[]string{"date", "dates", "day", "date32", "date64", "localdate"},
		"a date alone is no point in time, and no format reads it",
	},
	{
		[]string{"time", "times", "time32", "time64", "timemillis", "timemicros", "timeofday"},
		"a time of day alone is no point in time; for one with its date write " + howWritten,
	},
	{
		[]string{"timestamp", "timestamps", "number", "numeric", "int", "int32", "integer", "uint64", "float", "float64", "double", "decimal", "auto"},
		"write " + howWritten,
	},
	{
		[]string{"string", "str", "text"},
		"text that says its time zone is " + string(rfc3339) + ", and text that does not is " + localPrefix + "ZONE",
	},
}

const howWritten = "the unit of the number (unix-s, unix-ms, unix-us, unix-ns), or rfc3339 for text"

// vagueHint says what to write in the place of such a word, if it is one.
func vagueHint(word string) string {
	word = plainWord(word)
	for _, v := range vague {
		if slices.Contains(v.words, word) {
			return v.hint
		}
	}
	return ""
}

// zoneCalled returns the time zone of a name, whatever its capitals.
func zoneCalled(word string) (string, bool) {
	for _, name := range zone.Names() {
		if strings.EqualFold(name, word) {
			return name, true
		}
	}
	return "", false
}

// misspelt finds the formats that word was probably meant to be: the nearest of ours, or
// those for which others use it.
func misspelt(word string) (meant []string) {
	word = strings.ToLower(word)
	if meant = foreign(word); meant != nil {
		return meant
	}
	const slips = 2
	fewest := slips
	word = strings.NewReplacer("_", "-", " ", "-").Replace(word)
	for _, f := range formats {
		switch d := levenshtein.Distance(word, string(f), nil); {
		case d < fewest:
			meant, fewest = []string{string(f)}, d
		case d == fewest:
			meant = append(meant, string(f))
		}
	}
	return meant
}

// units are what others call the units of a number.
var units = map[format][]string{
	unixSeconds: {"s", "sec", "secs", "second", "seconds"},
	unixMillis:  {"ms", "msec", "msecs", "milli", "millis", "millisecond", "milliseconds"},
	unixMicros:  {"us", "µs", "μs", "usec", "usecs", "micro", "micros", "microsecond", "microseconds"},
	unixNanos:   {"ns", "nsec", "nsecs", "nano", "nanos", "nanosecond", "nanoseconds"},
}

// others are what else stands for a format elsewhere.
var others = map[string][]string{
	string(rfc3339): {
		"iso", "iso8601", "isoinstant", "isodatetime", "isooffsetdatetime", "rfc3339nano", "rfc9557", "datetime", "instant",
		"offsetdatetime", "zoneddatetime", "timestamptz", "w3cdtf", "xsddatetime",
	},
	string(int64BE): {"int64", "int64be", "long", "longbe", "be", "bigendian", "longserializer", "uint64be"},
	localPrefix + "ZONE (like " + localPrefix + "Europe/Paris)": {"local", "localtime", "localdatetime", "localtimestamp"},
}

// plainWord leaves out what is written in several ways.
func plainWord(word string) string {
	return strings.NewReplacer("_", "", "-", "", " ", "", ".", "").Replace(strings.ToLower(word))
}

// foreign finds the formats that others call so: epoch_millis, seconds, ISO-8601.
func foreign(word string) (meant []string) {
	word = plainWord(word)
	for name, words := range others {
		if slices.Contains(words, word) {
			return []string{name}
		}
	}
	unit := word
	for _, since := range []string{"unix", "epoch", "posix"} {
		unit = strings.TrimPrefix(unit, since)
	}
	if long, is := strings.CutPrefix(strings.TrimPrefix(unit, "time"), "stamp"); is && len(long) > 1 { // "timestamps" are none
		unit = long
	}
	for f, words := range units {
		if slices.Contains(words, unit) {
			return []string{string(f)}
		}
	}
	if slices.Contains([]string{"unix", "epoch", "posix", "unixtime", "unixepoch", "epochtime", "posixtime", "unixtimestamp", "epochtimestamp"}, word) {
		return []string{string(unixSeconds), string(unixMillis)} // seconds to most, but not to all
	}
	return nil
}

// zoneHint says what may have been meant for a time zone.
func zoneHint(word string) string {
	best, fewest := "", 1+len(word)/4
	for _, name := range zone.Names() {
		d := levenshtein.Distance(strings.ToLower(word), strings.ToLower(name), nil)
		if d == 0 {
			return name + " is" // UTC, rather than Etc/UTC
		}
		if _, city, _ := strings.Cut(name, "/"); word != "" && strings.EqualFold(city, word) {
			d = 0
		}
		if d < fewest {
			best, fewest = name, d
		}
	}
	switch {
	case best != "":
		return best + " is"
	case word != "" && strings.ContainsAny(word[:1], "+-0123456789"):
		return "a fixed offset has a name with the sign turned round: " + localPrefix + "Etc/GMT-1 is one hour ahead of UTC"
	}
	return "it takes a name of the time zone database, like " + localPrefix + "Europe/Berlin"
}
