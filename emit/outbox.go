package emit

import (
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Outbox makes the records of both outputs. What it hands out lives in memory
// that is used again after Reset, so that a steady stream allocates nothing.
type Outbox struct {
	headers Headers
	names   struct {
		watermark, sourceOffset, eventTime, epoch                  string
		lateReason, lateByMs, sourceTopic, sourcePartition, lateAt string
		lateTimestamp, unknownSchema, schema                       string
		window                                                     string // what the names of windows begin with
	}
	own     int // headers of the record made last that are its source's
	records slab[kgo.Record]
	fields  slab[kgo.RecordHeader]
	bytes   slab[byte]
	mark    kgo.RecordHeader // the watermark written last, most likely the next too
	marked  int64
	tags    []tag // one for each family of windows
}

// Source is a source partition and where its records go.
type Source struct {
	Topic, Ordered, Late string
	Partition            int32
}

// maxAdded is the most headers that are added to a record, windows aside.
const maxAdded = 8

// NewOutbox returns an outbox that adds the given headers.
func NewOutbox(h Headers) *Outbox {
	o := &Outbox{headers: h, tags: newTags(h)}
	n := &o.names
	n.watermark, n.sourceOffset = h.Prefix+WordWatermark, h.Prefix+WordSourceOffset
	n.eventTime, n.epoch = h.Prefix+WordEventTime, h.Prefix+WordEpoch
	n.lateReason, n.lateByMs, n.lateAt = h.Prefix+WordLateReason, h.Prefix+WordLateByMs, h.Prefix+WordLateAt
	n.sourceTopic, n.sourcePartition = h.Prefix+WordSourceTopic, h.Prefix+WordSourcePartition
	n.lateTimestamp = h.Prefix + WordLateTimestamp
	n.unknownSchema, n.schema = h.Prefix+WordUnknownSchema, h.Prefix+WordSchema
	n.window = h.Prefix + wordWindow
	return o
}

// Ordered makes the ordered record of a release.
func (o *Outbox) Ordered(src Source, rel *reorder.Release) *kgo.Record {
	r := &o.records.take(1)[0]
	*r = kgo.Record{Topic: src.Ordered, Partition: src.Partition}
	o.own = headerCount(rel.Body)
	hs := readBody(rel.Body, r, o.fields.take(o.own + maxAdded + len(o.tags))[:0])
	if o.headers.Watermark {
		if o.mark.Value == nil || o.marked != rel.Watermark {
			hs = o.number(hs, o.names.watermark, rel.Watermark)
			o.mark, o.marked = hs[len(hs)-1], rel.Watermark
		} else {
			hs = append(hs, o.mark)
		}
	}
	if o.headers.SourceOffset {
		hs = o.number(hs, o.names.sourceOffset, rel.Offset)
	}
	if o.headers.EventTime {
		hs = o.number(hs, o.names.eventTime, rel.Time.Millis())
	}
	hs = o.epoch(hs, rel.Epoch)
	r.Headers = o.keep(o.windows(hs, rel.Time))
	return r
}

// Lateness is why a record goes to the late topic.
type Lateness struct {
	Verdict   reorder.Verdict
	Time      watermark.Time // where the verdict is about it
	Watermark watermark.Time // None when there is none yet
	Epoch     uint32
	AtMs      int64 // wall clock
	Schema    Schema
	SchemaID  string // where it has one

	outside  bool  // the source's timestamp cannot be written
	sourceMs int64 // then: what it is
}

// Schema is what the schema of a value has to do with its invalid time.
type Schema uint8

const (
	NoSchema      Schema = iota // nothing, or the value has none
	UnknownSchema               // the registry did not have it
	KnownSchema                 // by it, there is no usable time in the value
)

// Late makes the late record of a source record. It keeps nothing of that: one
// late record would keep the batch that it came in.
//
// A timestamp outside 1678..2262 cannot be written: the client would write another. Such a
// late record has no timestamp, and the source's in a header.
func (o *Outbox) Late(src Source, in *kgo.Record, why Lateness) *kgo.Record {
	r := &o.records.take(1)[0]
	*r = kgo.Record{Topic: src.Late, Partition: src.Partition, Key: o.copied(in.Key), Value: o.copied(in.Value), Timestamp: timestamp(in)}
	if ms, inside := watermark.KafkaMillis(r.Timestamp); !inside {
		r.Timestamp, why.outside, why.sourceMs = time.UnixMilli(noTimestamp), true, ms
	}
	o.own = len(in.Headers)
	hs := o.fields.take(o.own + maxAdded + len(o.tags))[:0]
	for _, h := range in.Headers {
		hs = append(hs, kgo.RecordHeader{Key: h.Key, Value: o.copied(h.Value)}) // the client makes each key a string of its own
	}
	r.Headers = o.keep(o.late(hs, src, in.Offset, why))
	return r
}

// Duplicate makes the late record of a release that repeats another.
func (o *Outbox) Duplicate(src Source, rel *reorder.Release, w watermark.Time, atMs int64) *kgo.Record {
	r := &o.records.take(1)[0]
	*r = kgo.Record{Topic: src.Late, Partition: src.Partition}
	o.own = headerCount(rel.Body)
	hs := readBody(rel.Body, r, o.fields.take(o.own + maxAdded + len(o.tags))[:0])
	why := Lateness{Verdict: reorder.Duplicate, Time: rel.Time, Watermark: w, Epoch: rel.Epoch, AtMs: atMs}
	r.Headers = o.keep(o.late(hs, src, rel.Offset, why))
	return r
}

// late appends what a late record says of itself.
func (o *Outbox) late(hs []kgo.RecordHeader, src Source, offset int64, why Lateness) []kgo.RecordHeader {
	hs = append(hs, kgo.RecordHeader{Key: o.names.lateReason, Value: []byte(Reason(why.Verdict))})
	if why.outside {
		hs = o.number(hs, o.names.lateTimestamp, why.sourceMs)
	}
	switch why.Schema {
	case UnknownSchema:
		hs = append(hs, kgo.RecordHeader{Key: o.names.unknownSchema, Value: []byte(why.SchemaID)})
	case KnownSchema:
		hs = append(hs, kgo.RecordHeader{Key: o.names.schema, Value: []byte(why.SchemaID)})
	}
	if why.Verdict == reorder.BehindWatermark || why.Verdict == reorder.Overflow {
		hs = o.number(hs, o.names.lateByMs, why.Watermark.Millis()-why.Time.Millis())
	}
	if why.Watermark != watermark.None {
		hs = o.number(hs, o.names.watermark, why.Watermark.Millis())
	}
	hs = append(hs, kgo.RecordHeader{Key: o.names.sourceTopic, Value: []byte(src.Topic)})
	hs = o.number(hs, o.names.sourcePartition, int64(src.Partition))
	hs = o.number(hs, o.names.sourceOffset, offset)
	hs = o.number(hs, o.names.lateAt, why.AtMs)
	hs = o.epoch(hs, why.Epoch)
	if why.Verdict != reorder.InvalidTime {
		hs = o.windows(hs, why.Time)
	}
	return hs
}

// keep gives back the room that headers did not take.
func (o *Outbox) keep(hs []kgo.RecordHeader) []kgo.RecordHeader {
	o.fields.giveBack(cap(hs) - len(hs))
	return slices.Clip(hs)
}

// Shed takes from the record made last, which is too large with them, the
// least needed of the headers that were added, and reports whether there was
// one. An ordered record loses its windows, event time, watermark, source offset
// and epoch, in this order; a late one its windows, then what it says of itself
// at once, and then its epoch. A header that overrules one of the source's stays:
// without it, what the source wrote would be taken for ours.
func (o *Outbox) Shed(r *kgo.Record) bool {
	own, added := r.Headers[:o.own], r.Headers[o.own:]
	overrules := func(h kgo.RecordHeader) bool {
		return slices.ContainsFunc(own, func(s kgo.RecordHeader) bool { return s.Key == h.Key })
	}
	least := []func(kgo.RecordHeader) bool{o.isWindow, o.is(o.names.eventTime), o.is(o.names.watermark), o.is(o.names.sourceOffset), o.is(o.names.epoch)}
	if len(added) > 0 && added[0].Key == o.names.lateReason {
		least = []func(kgo.RecordHeader) bool{o.isWindow, func(h kgo.RecordHeader) bool { return h.Key != o.names.epoch }, o.is(o.names.epoch)}
	}
	for _, shed := range least {
		rest := slices.DeleteFunc(added, func(h kgo.RecordHeader) bool { return shed(h) && !overrules(h) })
		if len(rest) < len(added) {
			r.Headers = r.Headers[:o.own+len(rest)]
			return true
		}
	}
	return false
}

func (o *Outbox) is(name string) func(kgo.RecordHeader) bool {
	return func(h kgo.RecordHeader) bool { return h.Key == name }
}

// HeaderFraming is the longest that the lengths of a header's key and value are.
const HeaderFraming = 10

// WireSize returns the bytes that a batch of this record alone takes before
// compression, or a few more.
func WireSize(r *kgo.Record) int {
	const batch, record = 61, 36 // with the longest of the varints
	n := batch + record + len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += HeaderFraming + len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return n
}

// Reset takes back everything handed out.
func (o *Outbox) Reset() {
	o.records.reset()
	o.fields.reset()
	o.bytes.reset()
	o.mark.Value = nil
	for i := range o.tags {
		o.tags[i].written = false
	}
}

func (o *Outbox) number(hs []kgo.RecordHeader, name string, v int64) []kgo.RecordHeader {
	const longest = 20 // digits and sign of an int64
	b := strconv.AppendInt(o.bytes.take(longest)[:0], v, 10)
	o.bytes.giveBack(longest - len(b))
	return append(hs, kgo.RecordHeader{Key: name, Value: b[:len(b):len(b)]})
}

// copied copies what belongs to a record of the source. Null stays null.
func (o *Outbox) copied(b []byte) []byte {
	switch {
	case b == nil:
		return nil
	case len(b) > slabBlock:
		return slices.Clone(b) // what is large is not kept
	}
	c := o.bytes.take(len(b))
	copy(c, b)
	return c
}

// epoch is left out in epoch 0, where nearly every record is, unless a source
// header of that name would be taken for it.
func (o *Outbox) epoch(hs []kgo.RecordHeader, epoch uint32) []kgo.RecordHeader {
	wanted := epoch != 0
	for i := 0; i < len(hs) && !wanted; i++ {
		wanted = hs[i].Key == o.names.epoch
	}
	if !wanted {
		return hs
	}
	return o.number(hs, o.names.epoch, int64(epoch))
}

// slab hands out runs of a type from blocks that are kept.
type slab[T any] struct {
	blocks [][]T
	block  int // the one in use
	used   int // of it
}

// slabBlock is about as many as there are records between two calls of Reset. The first
// blocks are smaller: many outboxes never hold more than a few records at a time.
const slabBlock = 1024

func (s *slab[T]) take(n int) []T {
	for {
		if s.block == len(s.blocks) {
			s.blocks = append(s.blocks, make([]T, max(n, slabBlock/16<<min(len(s.blocks), 4))))
		}
		if b := s.blocks[s.block]; s.used+n <= len(b) {
			s.used += n
			return b[s.used-n : s.used : s.used]
		}
		s.block, s.used = s.block+1, 0
	}
}

// giveBack returns the end of the run taken last.
func (s *slab[T]) giveBack(n int) { s.used -= n }

func (s *slab[T]) reset() { s.block, s.used = 0, 0 }
