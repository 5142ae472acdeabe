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
	found := lastHeader(r.Headers, h.name)
	if found == nil {
		return watermark.None, false, nil
	}
	t, why := h.format.time(found.Value)
	if why != "" {
		return watermark.None, true, fmt.Errorf("%w: header %q with %s %s (read as %s)", ErrInvalid, h.name, quoted(found.Value), why, h.format)
	}
	return t, true, nil
}

func lastHeader(headers []kgo.RecordHeader, name string) *kgo.RecordHeader {
	for i := len(headers) - 1; i >= 0; i-- {
		if headers[i].Key == name {
			return &headers[i]
		}
	}
	return nil
}
