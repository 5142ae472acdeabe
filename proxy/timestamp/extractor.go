// Package timestamp finds the event time of a Kafka record: in a header, or in
// the timestamp that Kafka keeps with every record.
package timestamp

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/watermark"
)

// ErrInvalid says that a record has no usable event time. What is wrapped
// around it names the source that was asked, its value and the reason.
var ErrInvalid = errors.New("no usable event time")

// parserVersion is part of the fingerprint. Raise it whenever the same bytes
// come to mean another time, or become valid or invalid.
const parserVersion = "1"

// Extractor reads event times from an ordered list of sources. It is
// immutable, and safe for use by several goroutines.
type Extractor struct {
	sources []source
}

// source is one place to look. A source without a header name is the record's
// own timestamp.
type source struct {
	header string
	format format
}

func (s source) isTimestamp() bool { return s.header == "" }

// String returns the source as Parse reads it, with its format written out.
func (s source) String() string {
	if s.isTimestamp() {
		return "timestamp"
	}
	return "header:" + s.header + ":" + string(s.format)
}

// Extract returns the event time of r. The first source that is present
// decides: one that is absent gives way to the next, one that is present and
// unusable is an error that wraps ErrInvalid, for to take another clock in
// silence would put the record in the wrong place. Of repeated headers the
// last counts, as it does for Kafka's own clients.
//
// r must be as the client fetched it: a timestamp with a fraction of a
// millisecond, which Kafka cannot hold, is refused.
func (e *Extractor) Extract(r *kgo.Record) (watermark.Time, error) {
	for i := range e.sources {
		s := &e.sources[i]
		if s.isTimestamp() {
			if t, present, err := recordTime(r); present {
				return t, err
			}
			continue
		}
		if h := lastHeader(r.Headers, s.header); h != nil {
			return s.headerTime(h.Value)
		}
	}
	return watermark.None, fmt.Errorf("%w: the record has none of %s", ErrInvalid, e)
}

func (s *source) headerTime(value []byte) (watermark.Time, error) {
	t, why := s.format.time(value)
	if why != "" {
		return watermark.None, fmt.Errorf("%w: header %q with %s %s (read as %s)", ErrInvalid, s.header, quoted(value), why, s.format)
	}
	return t, nil
}

func lastHeader(headers []kgo.RecordHeader, name string) *kgo.RecordHeader {
	for i := len(headers) - 1; i >= 0; i-- {
		if headers[i].Key == name {
			return &headers[i]
		}
	}
	return nil
}

// quoted returns a value as an error can show it: whole if it is short, never
// with bytes that could upset a terminal.
func quoted(value []byte) string {
	const longest = 40
	if len(value) > longest {
		return fmt.Sprintf("%q...", value[:longest])
	}
	return fmt.Sprintf("%q", value)
}

// String returns the sources in order, as Parse reads them and with every
// format written out: the same meaning gives the same text.
func (e *Extractor) String() string {
	names := make([]string, len(e.sources))
	for i, s := range e.sources {
		names[i] = s.String()
	}
	return strings.Join(names, ",")
}

// Fingerprint identifies what turns bytes into event times: the sources, their
// order and formats, and the version of the parser. Two extractors with the
// same fingerprint give every record the same event time.
func (e *Extractor) Fingerprint() [4]byte {
	sum := sha256.Sum256([]byte("event time " + parserVersion + " " + e.String()))
	return [4]byte(sum[:4])
}

// UsesTimestamp reports whether the record's own timestamp is among the
// sources. On a topic with LogAppendTime that is the broker's clock.
func (e *Extractor) UsesTimestamp() bool {
	return slices.ContainsFunc(e.sources, source.isTimestamp)
}

// UsesOnlyTimestamp reports whether there is no other source than the record's
// own timestamp.
func (e *Extractor) UsesOnlyTimestamp() bool {
	return !slices.ContainsFunc(e.sources, func(s source) bool { return !s.isTimestamp() })
}
