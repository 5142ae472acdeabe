package emit

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"
)

// ErrNotRouted: a record of a late topic does not say when and why it came there.
// It was too large for that, or somebody else wrote it.
var ErrNotRouted = errors.New("not a record as Tidemark writes them there")

// Late is a record of a late topic, taken apart.
type Late struct {
	Source       kgo.Record // as the source had it, timestamp included; topic, partition and offset are those of the late topic
	SourceOffset int64
	Epoch        int64
	Reason       string
	AtMs         int64 // when it was put there, by the wall clock of who did
	Corrected    bool  // it is a correction, or was made of one
}

// LateReader reads what records of a late topic say of themselves, and makes
// corrections of them. It is for one goroutine.
type LateReader struct {
	reader     *Reader
	correction string
	parts      Parts
}

// NewLateReader returns a reader for headers with a prefix.
func NewLateReader(prefix string) *LateReader {
	return &LateReader{reader: NewReader(prefix, true), correction: prefix + wordCorrection}
}

// Read takes a record apart. What it returns points into r. The error wraps ErrNotRouted;
// Corrected is set even then.
func (l *LateReader) Read(r *kgo.Record) (Late, error) {
	late := Late{Corrected: l.corrected(r)}
	p := &l.parts
	if !l.reader.Read(r, p) {
		return late, fmt.Errorf("%w: no usable header %s", ErrNotRouted, l.reader.Name(WordSourceOffset))
	}
	late.Source, late.SourceOffset, late.Epoch = p.Source, p.SourceOffset, p.Epoch
	if late.Source.Timestamp.IsZero() {
		late.Source.Timestamp = timestamp(r)
	}
	if !p.Has(WordLateReason) {
		return late, fmt.Errorf("%w: no header %s", ErrNotRouted, l.reader.Name(WordLateReason))
	}
	late.Reason = string(p.Value(WordLateReason))
	at, has, err := p.Number(WordLateAt)
	switch {
	case !has:
		return late, fmt.Errorf("%w: no header %s", ErrNotRouted, l.reader.Name(WordLateAt))
	case err != nil || at <= 0:
		return late, fmt.Errorf("%w: header %s is %s, and not a time in ms", ErrNotRouted, l.reader.Name(WordLateAt), Shown(p.Value(WordLateAt)))
	}
	late.AtMs = at
	return late, nil
}

// corrected asks for the header wherever it stands: a correction that was read as
// a source and came late once more has it among the headers of the source.
func (l *LateReader) corrected(r *kgo.Record) bool {
	for i := range r.Headers {
		if r.Headers[i].Key == l.correction {
			return true
		}
	}
	return false
}

// Correction makes the correction of a late record: the same with one header
// more. It shares no memory with r, which would else keep the batch it came in.
func (l *LateReader) Correction(r *kgo.Record, topic string) *kgo.Record {
	size := len(r.Key) + len(r.Value)
	for i := range r.Headers {
		size += len(r.Headers[i].Value)
	}
	room := make([]byte, 0, size)
	copied := func(b []byte) []byte {
		if b == nil {
			return nil
		}
		n := len(room)
		room = append(room, b...)
		return room[n:len(room):len(room)]
	}
	c := &kgo.Record{Topic: topic, Partition: r.Partition, Key: copied(r.Key), Value: copied(r.Value), Timestamp: timestamp(r)}
	c.Headers = make([]kgo.RecordHeader, 0, len(r.Headers)+1)
	for _, h := range r.Headers {
		c.Headers = append(c.Headers, kgo.RecordHeader{Key: h.Key, Value: copied(h.Value)})
	}
	c.Headers = append(c.Headers, kgo.RecordHeader{Key: l.correction, Value: correctionValue})
	return c
}

var correctionValue = strconv.AppendBool(nil, true)
