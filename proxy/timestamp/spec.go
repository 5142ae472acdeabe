package timestamp

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
)

// Parse reads a comma-separated list of sources, asked in this order:
//
//	header:NAME[:FORMAT]     a header of the record
//	json:PATH[:FORMAT]       a field of a value in JSON
//	avro:FIELD[:FORMAT]      a field of a value in Avro, its schema in a registry
//	protobuf:FIELD[:FORMAT]  a field of a value in Protobuf, likewise
//	timestamp                the record's own timestamp
//
// FORMAT is a known word after the last colon, so that a name may contain
// colons: unix-ms (the default), unix-s, unix-us, unix-ns, rfc3339 or int64-be.
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
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
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
		if earlier.place() == s.place() {
			return fmt.Errorf("%s is never reached, because %s comes before it", s, earlier)
		}
	}
	e.sources = append(e.sources, s)
	return nil
}

const known = "header:NAME[:FORMAT], json:PATH[:FORMAT], avro:FIELD[:FORMAT], protobuf:FIELD[:FORMAT] and timestamp"

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
	return nil, fmt.Errorf("%q is not a source: known are %s", text, known)
}

// cutFormat splits what follows the kind of a source into name and format.
func cutFormat(text, rest, what string, otherwise format) (name string, f format, err error) {
	name, f = rest, otherwise
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		word := rest[i+1:]
		if slices.Contains(formats, format(word)) {
			name, f = rest[:i], format(word)
		} else if meant, ok := misspelt(word); ok {
			return "", "", fmt.Errorf("%s: %q is not a format; %s is (a %s that is really called %q needs its format written out)", text, word, meant, what, rest)
		}
	}
	if name == "" {
		return "", "", fmt.Errorf("%s: the name of the %s is missing", text, what)
	}
	return name, f, nil
}

// misspelt finds the format that word was probably meant to be. Taken as part
// of the name, a slip of the finger would leave the header or field absent
// from every record, and the next source would be used unnoticed.
func misspelt(word string) (format, bool) {
	const slips = 2
	word = strings.ToLower(word)
	for _, f := range formats {
		if levenshtein.Distance(word, string(f), nil) <= slips {
			return f, true
		}
	}
	return "", false
}
