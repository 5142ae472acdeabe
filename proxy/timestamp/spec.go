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
//	header:NAME[:FORMAT]   a header of the record
//	timestamp              the record's own timestamp
//
// FORMAT is a known word after the last colon, so that a header's name may
// contain colons: unix-ms (the default), unix-s, unix-us, unix-ns, rfc3339 or
// int64-be. The error joins one error for every source that is wrong.
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
	return &e, nil
}

// add appends a source. A second look at the same place could never be
// reached, so whoever wrote it meant something else.
func (e *Extractor) add(s source) error {
	for _, earlier := range e.sources {
		if earlier.header == s.header {
			return fmt.Errorf("%s is never reached, for %s comes before it", s, earlier)
		}
	}
	e.sources = append(e.sources, s)
	return nil
}

func parseSource(text string) (source, error) {
	kind, rest, _ := strings.Cut(text, ":")
	switch {
	case text == "":
		return source{}, errors.New("a source in the list is empty")
	case text == "timestamp":
		return source{}, nil
	case kind == "header":
		return parseHeader(text, rest)
	case kind == "json" || kind == "avro" || kind == "protobuf":
		return source{}, fmt.Errorf("%s: sources of kind %s are not supported yet, only header:NAME[:FORMAT] and timestamp", text, kind)
	}
	return source{}, fmt.Errorf("%q is not a source: known are header:NAME[:FORMAT] and timestamp", text)
}

func parseHeader(text, rest string) (source, error) {
	s := source{header: rest, format: unixMillis}
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		word := rest[i+1:]
		if slices.Contains(formats, format(word)) {
			s = source{header: rest[:i], format: format(word)}
		} else if meant, ok := misspelt(word); ok {
			return source{}, fmt.Errorf("%s: %q is not a format; %s is (a header that is really called %q needs its format written out)", text, word, meant, rest)
		}
	}
	if s.header == "" {
		return source{}, fmt.Errorf("%s: the name of the header is missing", text)
	}
	return s, nil
}

// misspelt finds the format that word was probably meant to be. Taken as part
// of the header's name, a slip of the finger would leave the header absent
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
