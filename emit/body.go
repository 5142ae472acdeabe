package emit

import (
	"encoding/binary"
	"time"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A held record is one run of bytes without pointers, laid down while the
// record is still in the cache and read once, when it goes out:
//
//	timestamp ms (8)  key length (4)  value length (4)  headers (4)
//	key length (4)  value length (4)          for each header
//	key  value  header keys and values        back to back
//
// Integers are little-endian; length -1 is null, which is not the same as
// empty.
const (
	bodyFixed  = 20
	bodyHeader = 8
)

// BodySize returns the bytes that PutBody needs.
func BodySize(r *kgo.Record) int {
	n := bodyFixed + bodyHeader*len(r.Headers) + len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return n
}

// PutBody lays a record down in b, which has BodySize bytes.
func PutBody(b []byte, r *kgo.Record) {
	binary.LittleEndian.PutUint64(b, uint64(timestamp(r).UnixMilli()))
	putLength(b[8:], r.Key)
	putLength(b[12:], r.Value)
	binary.LittleEndian.PutUint32(b[16:], uint32(len(r.Headers)))
	at := bodyFixed
	for i := range r.Headers {
		binary.LittleEndian.PutUint32(b[at:], uint32(len(r.Headers[i].Key)))
		putLength(b[at+4:], r.Headers[i].Value)
		at += bodyHeader
	}
	at += copy(b[at:], r.Key)
	at += copy(b[at:], r.Value)
	for i := range r.Headers {
		at += copy(b[at:], r.Headers[i].Key)
		at += copy(b[at:], r.Headers[i].Value)
	}
}

// readBody points a record at the parts of a body. hs is room for the
// headers: as many as headerCount says, and what the caller appends.
func readBody(b []byte, r *kgo.Record, hs []kgo.RecordHeader) []kgo.RecordHeader {
	n := headerCount(b)
	at := bodyFixed + bodyHeader*n
	r.Timestamp = time.UnixMilli(int64(binary.LittleEndian.Uint64(b)))
	r.Key, at = part(b, at, b[8:])
	r.Value, at = part(b, at, b[12:])
	for i := range n {
		var key, value []byte
		lengths := b[bodyFixed+bodyHeader*i:]
		key, at = part(b, at, lengths)
		value, at = part(b, at, lengths[4:])
		hs = append(hs, kgo.RecordHeader{Key: text(key), Value: value})
	}
	return hs
}

// timestamp returns a record's timestamp, and Kafka's own word for none where
// there is none: a zero time would be sent as the time of sending.
func timestamp(r *kgo.Record) time.Time {
	if r.Timestamp.IsZero() {
		return time.UnixMilli(noTimestamp)
	}
	return r.Timestamp
}

const noTimestamp = -1

func headerCount(b []byte) int { return int(binary.LittleEndian.Uint32(b[16:])) }

func putLength(b, v []byte) {
	n := int32(len(v))
	if v == nil {
		n = -1
	}
	binary.LittleEndian.PutUint32(b, uint32(n))
}

func part(b []byte, at int, length []byte) (v []byte, next int) {
	n := int(int32(binary.LittleEndian.Uint32(length)))
	if n < 0 {
		return nil, at
	}
	return b[at : at+n : at+n], at + n
}

// text makes a string of bytes that do not change as long as it is used: a
// body stays as it is until the record is durable.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
