package timestamp

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/tidemarkhq/tidemark/watermark"
)

// A library parses the schema, another takes the fields of a message apart, and
// we look only at those on the way: to decode whole messages would cost more than
// everything else that happens to a record. The rules are Protobuf's own: the last
// of a field counts, parts of a message that come apart are one message, and a
// member of a oneof ends the others. dynamicpb is the twin in the tests.

// Why a value in Protobuf is unusable.
const (
	whyNoIndex      = "cannot be found: the value does not say correctly which message of its schema it is"
	whyNoMessage    = "is in a message that the schema does not have"
	whyNoProtobuf   = "cannot be found: the value is not in Protobuf"
	whyTimestampOff = "is no valid google.protobuf.Timestamp"
)

func compileProtobuf(s Schema, path []string, f format) (reader, error) {
	l, err := protoLayoutOf(s)
	if err != nil {
		return nil, err
	}
	return readerOf(protoMessages(l, l.main.GetPackage(), l.main.GetMessageType(), path, f)), nil
}

// protoTooDeep does for the text of a .proto file what tooDeep does for JSON.
func protoTooDeep(text string) bool {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '"', '\'':
			for i++; i < len(text) && text[i] != c && text[i] != '\n'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case '/':
			switch {
			case strings.HasPrefix(text[i:], "//"):
				i += skipPast(text[i:], "\n")
			case strings.HasPrefix(text[i:], "/*"):
				i += skipPast(text[i:], "*/")
			}
		case '{', '[', '<', '(':
			if depth++; depth > deepestSchema {
				return true
			}
		case '}', ']', '>', ')':
			depth--
		}
	}
	return false
}

func skipPast(text, end string) int {
	if n := strings.Index(text[2:], end); n >= 0 {
		return 2 + n + len(end) - 1
	}
	return len(text)
}

// protoMessage is a message type that a value may be of. A value names it by its
// place: that of a top-level message, that of one declared inside it, and so on.
type protoMessage struct {
	name   string // without what is around it
	way    *protoStep
	nested []*protoMessage
}

func protoMessages(l *protoLayout, scope string, all []*descriptorpb.DescriptorProto, path []string, f format) (made []*protoMessage) {
	for _, d := range all {
		m := l.types[fullName(d.GetName(), scope)]
		made = append(made, &protoMessage{
			name: d.GetName(), way: protoWay(l, m, path, f), nested: protoMessages(l, m.name, d.GetNestedType(), path, f),
		})
	}
	return made
}

// protoStep is one step on the way to the field.
type protoStep struct {
	number protowire.Number
	wire   protowire.Type
	rivals []protowire.Number // the other members of its oneof, sorted
	next   *protoStep         // it is a message, and the way goes on in it
	kind   protoreflect.Kind  // of the field itself
	stamp  bool               // it is a google.protobuf.Timestamp
	unit   format
	why    string // instead: what makes the field unusable
}

// protoPlace is a message that is come to with some names of the path left: a short
// schema can lead to few of them in very many ways.
type protoPlace struct {
	of   *protoType
	left int
}

// protoWay returns the way from a message to the field, or nil if it has none.
func protoWay(l *protoLayout, m *protoType, path []string, f format) *protoStep {
	at := protoPlace{m, len(path)}
	way, known := l.ways[at]
	if !known {
		way = newProtoWay(l, m, path, f)
		l.ways[at] = way
	}
	return way
}

func newProtoWay(l *protoLayout, m *protoType, path []string, f format) *protoStep {
	fd := m.field(path[0])
	if fd == nil {
		return nil
	}
	s := &protoStep{number: protowire.Number(fd.GetNumber()), unit: f, rivals: m.rivals(fd)}
	last := len(path) == 1
	of, why := l.typeOf(m, fd)
	switch {
	case of != nil:
		s.kind = of.kindOf(m, fd)
	case why == "":
		s.kind = protoreflect.Kind(fd.GetType())
	}
	switch s.kind {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		s.wire = protowire.BytesType
		if s.kind == protoreflect.GroupKind {
			s.wire = protowire.StartGroupType
		}
		s.stamp = last && of.name == "google.protobuf.Timestamp"
		if last && !s.stamp {
			s.why = "is a message (" + of.name + "), which is no time"
		}
	case protoreflect.Int64Kind, protoreflect.Uint64Kind, protoreflect.Sint64Kind,
		protoreflect.Int32Kind, protoreflect.Uint32Kind, protoreflect.Sint32Kind:
		s.wire = protowire.VarintType
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind:
		s.wire = protowire.Fixed64Type
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind:
		s.wire = protowire.Fixed32Type
	case protoreflect.StringKind:
		s.wire = protowire.BytesType
	case protoreflect.BytesKind:
		s.wire = protowire.BytesType
		if f != int64BE {
			s.why = "is of type bytes, which is no time; 8 bytes are one with the format int64-be"
		}
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		s.why = "is a " + s.kind.String() + ", which rounds: a time in it is not exact"
	case protoreflect.BoolKind, protoreflect.EnumKind:
		s.why = "is of type " + s.kind.String() + ", which is no time"
	default:
		s.why = why
	}
	if fd.GetLabel() == descriptorpb.FieldDescriptorProto_LABEL_REPEATED {
		s.why = "is repeated, and which of them is meant nobody knows"
	}
	if !last && s.why == "" {
		if of == nil {
			return nil
		}
		if s.next = protoWay(l, of, path[1:], f); s.next == nil {
			return nil
		}
	}
	return s
}

// protoReader reads one field. Nothing in it recurses deeper than the path.
type protoReader struct {
	messages []*protoMessage
	names    map[string]*protoMessage // without what is around them; the outermost of a name
}

func readerOf(messages []*protoMessage) protoReader {
	p := protoReader{messages, map[string]*protoMessage{}}
	for level := messages; len(level) > 0; {
		var next []*protoMessage
		for _, m := range level {
			if p.names[m.name] == nil {
				p.names[m.name] = m
			}
			next = append(next, m.nested...)
		}
		level = next
	}
	return p
}

func (p protoReader) read(in frame) (t watermark.Time, present bool, why string) {
	way, message, why := p.find(in)
	if why != "" {
		return watermark.None, true, why
	}
	if way == nil {
		return watermark.None, false, ""
	}
	var found protoFound
	if !found.in(message, way) {
		return watermark.None, true, whyNoProtobuf
	}
	if !found.present {
		return watermark.None, false, ""
	}
	for way.next != nil {
		way = way.next
	}
	if way.why != "" {
		return watermark.None, true, way.why
	}
	t, why = found.time(way)
	return t, true, why
}

// find reads the place of the message, a list of indexes, in front of it or in a header.
// The list is most often [0], which is written as an empty one.
func (p protoReader) find(in frame) (way *protoStep, message []byte, why string) {
	if in.apicurio {
		return p.named(in)
	}
	if in.place != nil {
		way, _, why = p.at(in.place)
		return way, in.value, why
	}
	return p.at(in.value)
}

// named finds a message as Apicurio's serializers name it: in a message of its own before
// the value, or in a header. Else the first one is meant, as for its deserializers; but
// before a value there may be a list of indexes.
func (p protoReader) named(in frame) (way *protoStep, message []byte, why string) {
	if name, rest, ok := cutName(in.value); ok && p.names[string(name)] != nil {
		return p.names[string(name)].way, rest, ""
	}
	switch {
	case in.place == nil:
		return p.at(in.value)
	case len(in.place) > 0 && p.names[string(in.place)] != nil:
		return p.names[string(in.place)].way, in.value, ""
	case len(in.place) > 0 || len(p.messages) == 0:
		return nil, nil, whyNoMessage
	}
	return p.messages[0].way, in.value, ""
}

// cutName cuts off a message that has nothing but a name, which is its first field.
func cutName(value []byte) (name, rest []byte, ok bool) {
	message, n := protowire.ConsumeBytes(value)
	if n < 0 || len(message) == 0 {
		return nil, nil, false
	}
	number, wire, field, more := cutField(message)
	if field == nil || number != 1 || wire != protowire.BytesType || len(more) > 0 {
		return nil, nil, false
	}
	name, _ = protowire.ConsumeBytes(field)
	return name, value[n:], true
}

func (p protoReader) at(value []byte) (way *protoStep, message []byte, why string) {
	count, n := binary.Varint(value)
	if n <= 0 || count < 0 {
		return nil, nil, whyNoIndex
	}
	value = value[n:]
	among := p.messages
	if count == 0 {
		if len(among) == 0 {
			return nil, nil, whyNoMessage
		}
		return among[0].way, value, ""
	}
	for ; count > 0; count-- {
		index, n := binary.Varint(value)
		if n <= 0 {
			return nil, nil, whyNoIndex
		}
		if index < 0 || index >= int64(len(among)) {
			return nil, nil, whyNoMessage
		}
		value = value[n:]
		way, among = among[index].way, among[index].nested
	}
	return way, value, ""
}

// protoFound is what has been found of the field so far.
type protoFound struct {
	present bool
	number  uint64 // as on the wire; of a Timestamp: its seconds
	nanos   uint64
	text    []byte
}

// in goes through a message and reports whether it is one.
func (f *protoFound) in(message []byte, s *protoStep) bool {
	for len(message) > 0 {
		number, wire, value, rest := cutField(message)
		if value == nil {
			return false
		}
		message = rest
		switch {
		case number == s.number && (wire == s.wire || s.why != ""):
			if !f.take(value, s) {
				return false
			}
		case len(s.rivals) > 0:
			if _, rival := slices.BinarySearch(s.rivals, number); rival {
				*f = protoFound{}
			}
		}
	}
	return true
}

// cutField cuts the first field off a message that is not empty. The value is nil if
// there is none.
func cutField(message []byte) (number protowire.Number, wire protowire.Type, value, rest []byte) {
	number, wire, tag := protowire.ConsumeTag(message)
	if tag < 0 {
		return 0, 0, nil, nil
	}
	n := protowire.ConsumeFieldValue(number, wire, message[tag:])
	if n < 0 {
		return 0, 0, nil, nil
	}
	return number, wire, message[tag : tag+n], message[tag+n:]
}

// take takes one occurrence of the field of a step.
func (f *protoFound) take(value []byte, s *protoStep) bool {
	if s.why != "" {
		f.present = true
		return true
	}
	switch s.wire {
	case protowire.VarintType:
		f.number, _ = protowire.ConsumeVarint(value)
	case protowire.Fixed64Type:
		f.number, _ = protowire.ConsumeFixed64(value)
	case protowire.Fixed32Type:
		n, _ := protowire.ConsumeFixed32(value)
		f.number = uint64(n)
	case protowire.StartGroupType:
		value, _ = protowire.ConsumeGroup(s.number, value)
	default:
		value, _ = protowire.ConsumeBytes(value)
	}
	switch {
	case s.next != nil:
		return f.in(value, s.next)
	case s.stamp:
		f.present = true
		return f.stamp(value)
	}
	f.present, f.text = true, value
	return true
}

// stamp takes a google.protobuf.Timestamp, or a part of one.
func (f *protoFound) stamp(message []byte) bool {
	const seconds, nanos = 1, 2
	for len(message) > 0 {
		number, wire, value, rest := cutField(message)
		if value == nil {
			return false
		}
		message = rest
		if wire == protowire.VarintType {
			v, _ := protowire.ConsumeVarint(value)
			switch number {
			case seconds:
				f.number = v
			case nanos:
				f.nanos = v
			}
		}
	}
	return true
}

func (f *protoFound) time(s *protoStep) (t watermark.Time, why string) {
	var n int64
	switch s.kind {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return f.timestamp()
	case protoreflect.StringKind, protoreflect.BytesKind:
		if t, why = s.unit.time(f.text); why != "" {
			why = s.unit.refusal(f.text, why)
		}
		return t, why
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		if n = int64(f.number); n < 0 {
			return watermark.None, s.unit.refusal(strconv.AppendUint(nil, f.number, 10), whyOutside)
		}
	case protoreflect.Sint64Kind:
		n = protowire.DecodeZigZag(f.number)
	case protoreflect.Sint32Kind:
		n = protowire.DecodeZigZag(f.number & 0xffffffff)
	case protoreflect.Int32Kind, protoreflect.Sfixed32Kind:
		n = int64(int32(f.number))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		n = int64(uint32(f.number))
	default:
		n = int64(f.number)
	}
	if t, why = s.unit.integer(n); why != "" {
		why = s.unit.refusalOf(n, why)
	}
	return t, why
}

// timestamp puts seconds and nanoseconds together; the latter count upwards also
// before 1970.
func (f *protoFound) timestamp() (watermark.Time, string) {
	seconds, nanos := int64(f.number), int32(f.nanos)
	if nanos < 0 || nanos > 999_999_999 {
		return watermark.None, "with nanos below 0 or above 999999999 " + whyTimestampOff
	}
	const most = 1 << 34 // s; far outside, and far from overflow
	if seconds < -most || seconds > most {
		return watermark.None, whyOutside
	}
	t, why := unixSeconds.integer(seconds)
	if seconds < 0 { // the smallest second may begin outside
		if t, why = unixSeconds.integer(seconds + 1); why == "" {
			return beforeBy(t, 1_000_000_000-int64(nanos))
		}
	}
	if why != "" || int64(t) > int64(watermark.Max)-int64(nanos) {
		return watermark.None, whyOutside
	}
	return t + watermark.Time(nanos), ""
}

func beforeBy(t watermark.Time, ns int64) (watermark.Time, string) {
	if int64(t) <= int64(watermark.None)+ns {
		return watermark.None, whyOutside
	}
	return t - watermark.Time(ns), ""
}
