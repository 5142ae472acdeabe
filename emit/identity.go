package emit

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Identity says how to recognise a repeat of a record. The zero value is none.
type Identity struct {
	Kind   IdentityKind
	Header string // its name, where the identity is a header
}

// IdentityKind is where the identity of a record is.
type IdentityKind uint8

const (
	// NoIdentity: repeats are not told from originals.
	NoIdentity IdentityKind = iota
	// HeaderIdentity: the value of a header, the last of its name.
	HeaderIdentity
	// KeyIdentity: the record's key.
	KeyIdentity
	// BytesIdentity: key, value and all headers. The record's timestamp is not
	// part of it: a producer may set it anew when it tries again.
	BytesIdentity
)

// Of returns the identity in a held record, a part of it. One that is absent,
// null or empty is nothing that a record could be known by.
func (id Identity) Of(body []byte) []byte {
	switch id.Kind {
	case HeaderIdentity:
		return lastHeader(body, id.Header)
	case KeyIdentity:
		key, _ := part(body, bodyFixed+bodyHeader*headerCount(body), body[8:])
		return key
	case BytesIdentity:
		return body[8:] // all but the timestamp
	}
	return nil
}

// OfRecord returns the same of a record that is not held.
func (id Identity) OfRecord(r *kgo.Record) []byte {
	switch id.Kind {
	case HeaderIdentity:
		for _, h := range slices.Backward(r.Headers) {
			if h.Key == id.Header {
				return h.Value
			}
		}
	case KeyIdentity:
		return r.Key
	case BytesIdentity:
		body := make([]byte, BodySize(r))
		PutBody(body, r)
		return id.Of(body)
	}
	return nil
}

func lastHeader(b []byte, name string) (last []byte) {
	n := headerCount(b)
	at := bodyFixed + bodyHeader*n
	_, at = part(b, at, b[8:])
	_, at = part(b, at, b[12:])
	for i := range n {
		var key, value []byte
		lengths := b[bodyFixed+bodyHeader*i:]
		key, at = part(b, at, lengths)
		value, at = part(b, at, lengths[4:])
		if string(key) == name {
			last = value
		}
	}
	return last
}
