package timestamp

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A value says which schema it was written with in front of itself, or in a header. Each
// registry's serializers have ways of their own:
//
//	Confluent  0 | id of 4 bytes | value            also Apicurio's since version 3
//	           header __value_schema_id: 1 | GUID of 16 bytes, or 0 | id of 4 bytes
//	Apicurio   0 | id of 8 bytes | value            no registry gives out the id 0, so
//	                                                4 bytes of 0 are the first half of 8
//	           header apicurio.value.globalId or .contentId: id of 8 bytes
//	AWS Glue   3 | 0, or 5 if compressed | UUID of 16 bytes | value
//
// What cannot be read is named for what it is, at the price of nothing: no registry is
// asked, and the verdict is a function of the record alone.

// SchemaID names a schema of a registry.
type SchemaID struct {
	Kind   IDKind
	Number uint64   // unless it is a GUID
	GUID   [16]byte // if it is one
}

// IDKind says what a registry is asked for.
type IDKind uint8

// Confluent's registry has numbers and GUIDs; Apicurio's has ids of versions (global)
// and of contents.
const (
	Numbered IDKind = iota
	ByGUID
	ByGlobalID
	ByContentID
)

// String returns the id as it is written elsewhere: 7, 24a9f61a-..., globalId 7 or
// contentId 7.
func (id SchemaID) String() string {
	switch id.Kind {
	case ByGUID:
		g := id.GUID
		return fmt.Sprintf("%x-%x-%x-%x-%x", g[:4], g[4:6], g[6:8], g[8:10], g[10:])
	case ByGlobalID:
		return "globalId " + strconv.FormatUint(id.Number, 10)
	case ByContentID:
		return "contentId " + strconv.FormatUint(id.Number, 10)
	}
	return strconv.FormatUint(id.Number, 10)
}

// RegistryKind is what decides the meaning of ids in values.
type RegistryKind uint8

const (
	// Confluent is a registry that speaks Confluent's protocol.
	Confluent RegistryKind = iota
	// ApicurioCompat is Apicurio's, asked by Confluent's protocol for ids of 4 bytes, and
	// for global ids by its own.
	ApicurioCompat
	// ApicurioGlobal is Apicurio's, for serializers of version 2: ids are global.
	ApicurioGlobal
	// ApicurioContent is Apicurio's, for serializers of version 3: ids are of contents.
	ApicurioContent
)

var registryNames = [...]string{Confluent: "", ApicurioCompat: " Apicurio, compatible", ApicurioGlobal: " Apicurio, global ids", ApicurioContent: " Apicurio, content ids"}

// frame is a value without what stands in front of it.
type frame struct {
	id    SchemaID
	value []byte
	// place is, for Protobuf, the place of the message, if that is not before the value: a
	// list of indexes, or Apicurio's name of the message, which is empty for the first.
	place    []byte
	apicurio bool
}

// Headers with the id of the value's schema.
const (
	guidHeader      = "__value_schema_id"
	globalHeader    = "apicurio.value.globalId"
	contentHeader   = "apicurio.value.contentId"
	encodingHeader  = "apicurio.value.encoding"
	messageHeader   = "apicurio.protobuf.type"
	apicurioMissing = "point TIDEMARK_SCHEMA_REGISTRY to Apicurio's API, like http://apicurio:8080/apis/registry/v2"
)

// frameOf takes a value apart, or says why there is no schema that it could be read by.
func (k RegistryKind) frameOf(r *kgo.Record) (f frame, why string) {
	if len(r.Headers) > 0 {
		if f, found, why := k.frameInHeaders(r); found {
			return f, why
		}
	}
	return k.frameInValue(r.Value)
}

func (k RegistryKind) frameInHeaders(r *kgo.Record) (f frame, found bool, why string) {
	if h := lastHeader(r.Headers, guidHeader); h != nil {
		if f, ok := frameOfHeader(h.Value, r.Value); ok {
			return f, true, ""
		}
	}
	for _, name := range []string{globalHeader, contentHeader} {
		h := lastHeader(r.Headers, name)
		if h == nil || len(h.Value) != 8 || int64(binary.BigEndian.Uint64(h.Value)) <= 0 {
			continue
		}
		if k == Confluent {
			if _, why := k.frameInValue(r.Value); why == "" {
				return frame{}, false, ""
			}
			return frame{}, true, "the id of its schema is in the header " + name + ", which is Apicurio's: " + apicurioMissing
		}
		if e := lastHeader(r.Headers, encodingHeader); e != nil && string(e.Value) == "JSON" {
			return frame{}, true, "the value is in Avro's JSON encoding, which is not read: have the producers set apicurio.registry.avro.encoding to BINARY"
		}
		kind := ByGlobalID
		if name == contentHeader {
			kind = ByContentID
		}
		f := frame{id: SchemaID{Kind: kind, Number: binary.BigEndian.Uint64(h.Value)}, value: r.Value, apicurio: true, place: []byte{}}
		if name := lastHeader(r.Headers, messageHeader); name != nil && len(name.Value) > 0 {
			f.place = name.Value
		}
		return f, true, ""
	}
	return frame{}, false, ""
}

// frameOfHeader reads what Confluent's serializers put into a header: the place of a
// message in Protobuf is behind the id.
func frameOfHeader(id, value []byte) (f frame, ok bool) {
	switch {
	case len(id) >= 17 && id[0] == 1:
		return frame{id: SchemaID{Kind: ByGUID, GUID: [16]byte(id[1:17])}, value: value, place: id[17:]}, true
	case len(id) >= 5 && id[0] == 0 && isID(id[1:5]):
		return frame{id: SchemaID{Number: uint64(binary.BigEndian.Uint32(id[1:]))}, value: value, place: id[5:]}, true
	}
	return frame{}, false
}

// isID reports whether 4 bytes are an id: those are positive where they are given out, in
// a registry's Java.
func isID(b []byte) bool {
	id := binary.BigEndian.Uint32(b)
	return id > 0 && id <= math.MaxInt32
}

func (k RegistryKind) frameInValue(value []byte) (f frame, why string) {
	const short, long = 5, 9
	switch {
	case len(value) >= short && value[0] == 0 && isID(value[1:short]):
		kind := Numbered
		switch k {
		case ApicurioGlobal:
			kind = ByGlobalID
		case ApicurioContent:
			kind = ByContentID
		}
		id := SchemaID{Kind: kind, Number: uint64(binary.BigEndian.Uint32(value[1:]))}
		return frame{id: id, value: value[short:], apicurio: kind != Numbered}, ""
	case len(value) >= long && value[0] == 0 && value[1]|value[2]|value[3]|value[4] == 0 && isID(value[short:long]):
		if k == Confluent {
			return frame{}, "begins with an id of 8 bytes, as Apicurio's serializers write it: " + apicurioMissing
		}
		kind := ByGlobalID
		if k == ApicurioContent {
			kind = ByContentID
		}
		return frame{id: SchemaID{Kind: kind, Number: binary.BigEndian.Uint64(value[1:])}, value: value[long:], apicurio: true}, ""
	}
	return frame{}, whyUnframed(value)
}

// whyUnframed says what a value is that has no id of a schema that we could ask for.
func whyUnframed(value []byte) string {
	const glue = 18
	switch {
	case len(value) == 0:
		return "is empty"
	case len(value) >= glue && value[0] == 3 && (value[1] == 0 || value[1] == 5):
		return "is framed for AWS Glue Schema Registry, which Tidemark does not read"
	case len(value) >= 5 && string(value[:5]) == "\x00\x00\x00\x00\x00":
		return "begins with the id 0, which no schema registry gives out"
	case len(value) >= 4 && string(value[:4]) == "Obj\x01":
		return "is an Avro file with its own schema (Obj), and not a value with the id of a schema"
	case len(value) >= 2 && value[0] == 0xc3 && value[1] == 1:
		return "is in Avro's single-object encoding, which names its schema by a fingerprint that no schema registry can be asked for"
	case value[0] == '{' || value[0] == '[':
		return "looks like JSON without a schema, which the source json reads"
	}
	return "does not begin with the id of a schema (a 0 and four bytes)"
}
