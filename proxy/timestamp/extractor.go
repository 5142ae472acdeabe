// Package timestamp finds the event time of a Kafka record: in a header, in a
// field of its value, or in the timestamp that Kafka keeps with every record.
//
// Records and schemas are untrusted input: recursion, loops and allocations have bounds that
// they cannot exceed.
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

// errAbsent says that no source is present.
var errAbsent = errors.New("the record has none of")

// outsideError says that the record's own timestamp, in ms, is none that a client can write.
type outsideError int64

func (ms outsideError) Error() string {
	return fmt.Sprintf("the record's own timestamp %s (%d ms)", whyOutside, int64(ms))
}

// parserVersion is part of the fingerprint. Raise it whenever the same bytes
// come to mean another time, or become valid or invalid.
const parserVersion = "2"

// schemaVersion is the same for what only sources that need schemas make of bytes.
const schemaVersion = "2"

// Extractor reads event times from an ordered list of sources. It is
// immutable, and safe for use by several goroutines.
type Extractor struct {
	sources  []source
	registry RegistryKind
}

// source is one place to look.
type source interface {
	// String returns the source as Parse reads it, with its format written out.
	String() string
	// place is the same without the format.
	place() string
	// time returns the event time that the record has there. What is absent is
	// no error; an error, which wraps ErrInvalid or is a *Pending, has been
	// caused by something present.
	time(*kgo.Record) (t watermark.Time, present bool, err error)
}

// Extract returns the event time of r. The first source that is present
// decides: one that is absent gives way to the next; one that is present but unusable is an
// error that wraps ErrInvalid, because silently using another clock would put the record in
// the wrong place.
//
// An error that is a *Pending is no verdict: a schema has to be known first.
//
// A record whose own timestamp is outside 1678..2262 has none, whatever the sources: the
// client cannot write that timestamp, so the record cannot be put out as it is. r must be
// as the client fetched it: of the fraction of a millisecond that it leaves of such a
// timestamp, Extract knows it.
func (e *Extractor) Extract(r *kgo.Record) (watermark.Time, error) {
	t, _, err := e.ExtractFrom(r)
	return t, err
}

// ExtractFrom does what Extract does, and returns which source decided, counted from 0. If
// none did, that is the number of sources.
func (e *Extractor) ExtractFrom(r *kgo.Record) (t watermark.Time, source int, err error) {
	if ms, inside := watermark.KafkaMillis(r.Timestamp); !inside && !r.Timestamp.IsZero() {
		return watermark.None, len(e.sources), fmt.Errorf("%w: %w", ErrInvalid, outsideError(ms))
	}
	for i, s := range e.sources {
		if t, present, err := s.time(r); present || err != nil {
			return t, i, err
		}
	}
	return watermark.None, len(e.sources), fmt.Errorf("%w: %w %s", ErrInvalid, errAbsent, e)
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

// Earlier returns the fingerprints that earlier versions of the parser gave the same sources.
// What they made of bytes is another time for none; but some that were invalid are a time now,
// or the reverse.
func (e *Extractor) Earlier() [][4]byte {
	means := e.meaning()
	var all [][4]byte
	for _, version := range []string{"1"} {
		all = append(all, fingerprint(version, means))
	}
	return all
}

// Fingerprint identifies what turns bytes into event times: the sources, their
// order and formats, time zones as the database has them, and the version of the parser. Two extractors with the
// same fingerprint give every record the same event time.
func (e *Extractor) Fingerprint() [4]byte {
	means := e.meaning()
	if e.NeedsSchemas() {
		means += " schemas " + schemaVersion + registryNames[e.registry]
	}
	for _, s := range e.sources {
		if z, local := formatOf(s).zone(); local {
			means += fmt.Sprint(z.Eras) // another database may have other ones under the name
		}
	}
	return fingerprint(parserVersion, means)
}

func (e *Extractor) meaning() string {
	if e.UsesOnlyTimestamp() {
		return e.String() + " of its producer" // see recordTimestamp
	}
	return e.String()
}

func fingerprint(version, means string) [4]byte {
	sum := sha256.Sum256([]byte("event time " + version + " " + means))
	return [4]byte(sum[:4])
}

// formatOf returns the format of a source that has one.
func formatOf(s source) format {
	switch s := s.(type) {
	case header:
		return s.format
	case *jsonField:
		return s.format
	case *field:
		return s.format
	}
	return unwritten
}

// UsesTimestamp reports whether the record's own timestamp is among the
// sources. On a topic with LogAppendTime that is the broker's clock.
func (e *Extractor) UsesTimestamp() bool {
	return slices.ContainsFunc(e.sources, isTimestamp)
}

// UsesOnlyTimestamp reports whether there is no other source than the record's
// own timestamp.
func (e *Extractor) UsesOnlyTimestamp() bool {
	return !slices.ContainsFunc(e.sources, func(s source) bool { return !isTimestamp(s) })
}

// BehindTimestamp returns the first source behind the record's own timestamp, which hardly
// ever gets a turn: a record without a timestamp is of a producer before Kafka 0.10, or set
// none on purpose.
func (e *Extractor) BehindTimestamp() (source string, any bool) {
	at := slices.IndexFunc(e.sources, isTimestamp)
	if at < 0 || at == len(e.sources)-1 {
		return "", false
	}
	return e.sources[at+1].String(), true
}

func isTimestamp(s source) bool {
	_, is := s.(recordTimestamp)
	return is
}
