package timestamp

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/watermark"
)

// Header is a header that holds a time which is not the record's own, such as a
// watermark.
type Header struct{ source }

// UnmarshalText reads NAME[:FORMAT], with the formats of event times.
func (h *Header) UnmarshalText(text []byte) error {
	s, err := parseHeader(string(text), string(text))
	if err != nil {
		return err
	}
	h.source = s
	return nil
}

// String returns the header as UnmarshalText reads it, with its format.
func (h Header) String() string { return h.header + ":" + string(h.format) }

// Time returns the time that the last such header of a record holds, and whether
// there is one. The error says why it cannot be used.
func (h *Header) Time(r *kgo.Record) (t watermark.Time, present bool, err error) {
	found := lastHeader(r.Headers, h.header)
	if found == nil {
		return watermark.None, false, nil
	}
	t, why := h.format.time(found.Value)
	if why != "" {
		return watermark.None, true, fmt.Errorf("header %q with %s %s (read as %s)", h.header, quoted(found.Value), why, h.format)
	}
	return t, true, nil
}
