package timestamp

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/watermark"
)

// header is a header of the record. Of several with its name the last counts, as
// it does for Kafka's own clients.
type header struct {
	name   string
	format format
}

func (h header) String() string { return h.place() + ":" + string(h.format) }
func (h header) place() string  { return "header:" + h.name }

func (h header) time(r *kgo.Record) (t watermark.Time, present bool, err error) {
	t, present, err = h.value(r)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return t, present, err
}

// value reads the header. The error says no more than what is wrong with it.
func (h header) value(r *kgo.Record) (t watermark.Time, present bool, err error) {
	found := lastHeader(r.Headers, h.name)
	if found == nil {
		return watermark.None, false, nil
	}
	value := h.unquoted(found.Value)
	t, why := h.format.time(value)
	if why != "" {
		return watermark.None, true, fmt.Errorf("header %q %s", h.name, h.format.refusal(value, why))
	}
	return t, true, nil
}

// unquoted leaves out a pair of double quotes: serializers for JSON, as Spring has them for
// headers, put text into one.
func (h header) unquoted(value []byte) []byte {
	if n := len(value); h.format != int64BE && n >= 2 && value[0] == '"' && value[n-1] == '"' {
		return value[1 : n-1]
	}
	return value
}

func lastHeader(headers []kgo.RecordHeader, name string) *kgo.RecordHeader {
	for i := len(headers) - 1; i >= 0; i-- {
		if headers[i].Key == name {
			return &headers[i]
		}
	}
	return nil
}

// Header is a header that holds a time which is not the record's own, such as a
// watermark.
type Header struct{ of header }

// UnmarshalText reads NAME[:FORMAT], with the formats of event times.
func (h *Header) UnmarshalText(text []byte) error {
	name, f, err := cutFormat(string(text), string(text), "header", unixMillis)
	h.of = header{name, f}
	return err
}

// String returns the header as UnmarshalText reads it, with its format.
func (h Header) String() string { return h.of.name + ":" + string(h.of.format) }

// Name returns the header's name.
func (h Header) Name() string { return h.of.name }

// Time returns the time that the last such header of a record holds, and whether
// there is one. The error says why it cannot be used.
func (h Header) Time(r *kgo.Record) (t watermark.Time, present bool, err error) { return h.of.value(r) }
