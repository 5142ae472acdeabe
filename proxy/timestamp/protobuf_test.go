package timestamp

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/tidemarkhq/tidemark/watermark"
)

// described compiles a schema for the tests' own use of messages.
func described(t testing.TB, schema, message string) protoreflect.MessageDescriptor {
	t.Helper()
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
		Accessor: protocompile.SourceAccessorFromMap(map[string]string{"x.proto": protoSchema(schema).Text}),
	})}
	files, err := compiler.Compile(context.Background(), "x.proto")
	if err != nil {
		t.Fatal(err)
	}
	return files[0].FindDescriptorByName(protoreflect.FullName(message)).(protoreflect.MessageDescriptor)
}

// messageOf encodes a message that is written as text.
func messageOf(t testing.TB, schema, message, text string) []byte {
	t.Helper()
	m := dynamicpb.NewMessage(described(t, schema, message))
	if err := prototext.Unmarshal([]byte(text), m); err != nil {
		t.Fatal(err)
	}
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const everything = `import "google/protobuf/timestamp.proto"; import "google/protobuf/wrappers.proto"; import "google/protobuf/duration.proto";
message M {
	int64 i64 = 1; uint64 u64 = 2; sint64 s64 = 3; fixed64 f64 = 4; sfixed64 sf64 = 5;
	int32 i32 = 6; uint32 u32 = 7; sint32 s32 = 8; fixed32 f32 = 9; sfixed32 sf32 = 10;
	string text = 11; bytes raw = 12; double d = 13; bool b = 14; E e = 15;
	google.protobuf.Timestamp at = 16; google.protobuf.Int64Value boxed = 17; google.protobuf.Duration took = 18;
	repeated int64 many = 19; map<string, int64> by = 20; M self = 21;
	oneof which { int64 one = 22; string other = 23; M third = 24; }
	optional int64 maybe = 25;
	message In { int64 ts = 1; message Deeper { string ts = 2; } }
	enum E { ZERO = 0; ONE = 1; }
}
message Second { int64 i64 = 1; }`

func TestProtobufFields(t *testing.T) {
	tests := []struct{ source, message, want string }{
		{"protobuf:i64", "i64: 1700000000123", "1700000000123000000"},
		{"protobuf:i64:unix-s", "i64: -5", "-5000000000"},
		{"protobuf:u64:unix-us", "u64: 5", "5000"},
		{"protobuf:u64", "u64: 18446744073709551615", "with a number of 20 digits is outside the years"},
		{"protobuf:s64", "s64: -7", "-7000000"},
		{"protobuf:f64:unix-ns", "f64: 8", "8"},
		{"protobuf:sf64", "sf64: -8", "-8000000"},
		{"protobuf:i32:unix-s", "i32: -9", "-9000000000"},
		{"protobuf:u32:unix-s", "u32: 4294967295", "4294967295000000000"},
		{"protobuf:s32:unix-s", "s32: -9", "-9000000000"},
		{"protobuf:f32:unix-s", "f32: 10", "10000000000"},
		{"protobuf:sf32:unix-s", "sf32: -10", "-10000000000"},
		{"protobuf:text", `text: "2023-11-14T22:13:20Z"`, "1700000000000000000"},
		{"protobuf:text:unix-s", `text: "1763700000.123456789"`, "1763700000123456789"},
		{"protobuf:raw:int64-be", `raw: "\x00\x00\x00\x00\x00\x00\x00\x05"`, "5000000"},
		{"protobuf:at", "at { seconds: 1700000000 nanos: 123456789 }", "1700000000123456789"},
		{"protobuf:at:unix-us", "at { seconds: 1 }", "1000000000"}, // the schema knows
		{"protobuf:at", "at { }", "0"},
		{"protobuf:at", "at { seconds: -1 nanos: 1 }", "-999999999"},
		{"protobuf:at", "at { seconds: 9223372036 nanos: 854775807 }", "9223372036854775807"},
		{"protobuf:at", "at { seconds: 9223372036 nanos: 854775808 }", "outside the years"},
		{"protobuf:at", "at { seconds: -9223372037 nanos: 145224193 }", "-9223372036854775807"},
		{"protobuf:at", "at { seconds: -9223372037 nanos: 145224192 }", "outside the years"},
		{"protobuf:at", "at { seconds: 9223372036854775807 }", "outside the years"},
		{"protobuf:at", "at { nanos: -1 }", "with nanos below 0 or above 999999999 is no valid google.protobuf.Timestamp"},
		{"protobuf:at.seconds:unix-s", "at { seconds: 3 nanos: 4 }", "3000000000"},
		{"protobuf:boxed.value", "boxed { value: 3 }", "3000000"},
		{"protobuf:self.self.i64", "i64: 1 self { i64: 2 self { i64: 3 } }", "3000000"},
		{"protobuf:one", "one: 4", "4000000"},
		{"protobuf:maybe", "maybe: 0", "0"},

		{"protobuf:maybe", "i64: 1", "absent"},
		{"protobuf:i64", "i64: 0", "absent"}, // is not written
		{"protobuf:one", `other: "x"`, "absent"},
		{"protobuf:self.i64", "i64: 1", "absent"},
		{"protobuf:nothing", "i64: 1", "absent"},
		{"protobuf:i64.x", "i64: 1", "absent"},

		{"protobuf:text", `text: "soon"`, `protobuf:text with text of 4 bytes is neither decimal milliseconds nor RFC 3339`},
		{"protobuf:i64:rfc3339", "i64: 1", "with a number of 1 digit is not text"},
		{"protobuf:d", "d: 1.5", "is a double, which rounds"},
		{"protobuf:b", "b: true", "is of type bool, which is no time"},
		{"protobuf:e", "e: ONE", "is of type enum, which is no time"},
		{"protobuf:raw", `raw: "x"`, "is of type bytes, which is no time; 8 bytes"},
		{"protobuf:took", "took { seconds: 1 }", "is a message (google.protobuf.Duration), which is no time"},
		{"protobuf:many", "many: 1", "is repeated"},
		{"protobuf:by", `by { key: "x" value: 1 }`, "is repeated"},
		{"protobuf:many", "i64: 1", "absent"},
	}
	for _, tt := range tests {
		t.Run(tt.source+" "+tt.message, func(t *testing.T) {
			e := onShelf(t, tt.source+",timestamp", protoSchema(everything))
			expect(t, e, framed(1, []int{0}, messageOf(t, everything, "M", tt.message)), tt.want)
		})
	}
}

// Parts of a message that come apart are one, the last of a field counts, and a
// member of a oneof ends the others.
func TestProtobufMerges(t *testing.T) {
	join := func(texts ...string) (all []byte) {
		for _, text := range texts {
			all = append(all, messageOf(t, everything, "M", text)...)
		}
		return all
	}
	for _, tt := range []struct {
		path  string
		value []byte
		want  string
	}{
		{"i64", join("i64: 1", "i64: 2"), "2000000"},
		{"at", join("at { seconds: 1 }", "at { nanos: 5 }"), "1000000005"},
		{"self.i64", join("self { i64: 1 }", "self { u64: 1 }"), "1000000"},
		{"one", join("one: 1", `other: "x"`), "absent"},
		{"one", join("one: 1", `other: "x"`, "one: 2"), "2000000"},
		{"third.i64", join("third { i64: 3 }", "one: 1", "third { }"), "absent"},
		{"i64", protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "x"), "absent"}, // another type
		{"i64", []byte{0x08}, "cannot be found: the value is not in Protobuf"},
		{"i64", []byte{0xff}, "cannot be found: the value is not in Protobuf"},
		{"self.i64", []byte{21<<3&0x7f | 2 | 0x80, 1, 1, 0x08}, "cannot be found"},
	} {
		e := onShelf(t, "protobuf:"+tt.path+",timestamp", protoSchema(everything))
		t.Run(tt.path, func(t *testing.T) { expect(t, e, framed(1, []int{0}, tt.value), tt.want) })
	}
}

func TestProtobufMessageIndexes(t *testing.T) {
	five := []byte{1 << 3, 5}
	e := onShelf(t, "protobuf:i64,protobuf:ts,timestamp", protoSchema(everything))
	for _, tt := range []struct {
		index []int
		value []byte
		want  string
	}{
		{[]int{0}, five, "5000000"},
		{[]int{1}, five, "5000000"},
		{[]int{0, 0}, five, "absent"}, // M.ByEntry, which the map has made
		{[]int{0, 1}, five, "5000000"},
		{[]int{0, 1, 0}, append([]byte{2<<3 | 2, 1}, '6'), "6000000"},
		{[]int{2}, five, "the schema does not have"},
		{[]int{0, 9}, five, "the schema does not have"},
		{[]int{-1}, five, "the schema does not have"},
		{[]int{1, 0}, five, "the schema does not have"},
	} {
		expect(t, e, framed(1, tt.index, tt.value), tt.want)
	}
	for _, head := range []string{"", "\x80", "\x01", "\x02", "\x04\x00", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"} {
		expect(t, e, framed(1, nil, []byte(head)), "does not say correctly which message")
	}
}

// Before Confluent's 5.5.1, serializers wrote the list of indexes without zigzag. A value does not say
// so, and where it cannot be told it is never taken for a time.
func TestProtobufIndexesOfOld(t *testing.T) {
	e := onShelf(t, "protobuf:i64,timestamp", protoSchema(everything))
	for head, want := range map[string]string{
		"\x01\x01":         "does not say correctly which message", // [1]
		"\x01\x02":         "does not say correctly which message", // [2]
		"\x02\x01\x00":     "is in a message that the schema does not have",
		"\x02\x00\x00":     "the value is not in Protobuf", // [0, 0]
		"\x03\x00\x00\x00": "does not say correctly which message",
		"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00":     "is in a message that the schema does not have", // 2^63-1 of them
		"\x02\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01":     "is in a message that the schema does not have",
		"\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01": "does not say correctly which message",
	} {
		expect(t, e, framed(1, nil, append([]byte(head), 1<<3, 5)), want)
	}
}

// Apicurio's serializers name the message in front of it, or in a header.
func TestProtobufNamedByApicurio(t *testing.T) {
	base := mustParse(t, "protobuf:ts,timestamp").Asking(ApicurioGlobal)
	made := base.Compile(protoSchema("package p; message A { int64 ts = 1; message B { int64 ts = 3; } } message B { int64 ts = 2; message C { int64 ts = 4; } }"))
	e := base.With(&shelf{base, map[SchemaID]*Readers{{Kind: ByGlobalID, Number: 7}: made}})
	const message = "\x08\x05\x10\x06\x18\x07\x20\x08"
	const id = "\x00\x00\x00\x00\x00\x00\x00\x07"
	for ref, want := range map[string]string{
		"\x03\x0a\x01A":         "5000000",
		"\x03\x0a\x01B":         "6000000",
		"\x03\x0a\x01C":         "8000000", // found although it is inside another
		"\x03\x0a\x01D":         "does not say correctly which message",
		"\x05\x0a\x01A\x10\x00": "does not say correctly which message",
		"\x00":                  "5000000", // or indexes, where producers have both set so
		"\x02\x02":              "6000000",
	} {
		r := record(99)
		r.Value = []byte("\x00" + id + ref + message)
		expect(t, e, r, want)
	}
	for _, tt := range []struct{ name, ref, want string }{
		{"B", "", "6000000"}, {"", "", "5000000"}, {"D", "", "is in a message that the schema does not have"}, {"A", "\x03\x0a\x01B", "6000000"},
	} {
		r := record(99, globalHeader, id, messageHeader, tt.name)
		r.Value = []byte(tt.ref + message)
		expect(t, e, r, tt.want)
	}
	r := record(99, globalHeader, id, encodingHeader, "JSON")
	r.Value = []byte(`{"ts":5}`)
	expect(t, e, r, "is in Avro's JSON encoding, which is not read")
}

func TestProtobufReferences(t *testing.T) {
	e := onShelf(t, "protobuf:meta.at,timestamp", protoSchema(`import "common/meta.proto"; import public "more.proto"; message M { common.Meta meta = 1; }`,
		Reference{"more.proto", `syntax = "proto3"; message More {}`},
		Reference{"common/meta.proto", `syntax = "proto2"; package common; import "google/protobuf/timestamp.proto"; import "more.proto";
			message Meta { optional group Box = 2 { optional More x = 1; } required google.protobuf.Timestamp at = 3; }`}))
	expect(t, e, framed(1, []int{0}, []byte{1<<3 | 2, 4, 3<<3 | 2, 2, 1 << 3, 7}), "7000000000")
	group := onShelf(t, "protobuf:box.ts,timestamp", Schema{"PROTOBUF", `syntax = "proto2"; message M { optional group Box = 2 { optional int64 ts = 1; } }`, nil})
	expect(t, group, framed(1, []int{0}, []byte{2<<3 | 3, 1 << 3, 7, 2<<3 | 4}), "7000000")
}

// FuzzProtobuf holds our way through a message against dynamicpb, which decodes all
// of it.
func FuzzProtobuf(f *testing.F) {
	for _, text := range []string{"at { seconds: 5 }", "self { i64: 1 } third { s32: -5 }", "one: 1", `text: "x" maybe: 7`} {
		f.Add(messageOf(f, everything, "M", text))
	}
	md := described(f, everything, "M")
	ways := map[string]reader{}
	for _, path := range []string{"i64", "s32", "maybe", "one", "third.i64", "self.maybe", "at"} {
		way, err := compileProtobuf(protoSchema(everything), strings.Split(path, "."), unixNanos)
		if err != nil {
			f.Fatal(err)
		}
		ways[path] = way
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		m := dynamicpb.NewMessage(md)
		err := proto.Unmarshal(value, m)
		for path, way := range ways {
			got, present, why := way.read(frame{value: append([]byte{0}, value...)})
			if err != nil {
				continue // it may be because of fields that we do not look at
			}
			at := m.ProtoReflect()
			names := strings.Split(path, ".")
			for _, name := range names[:len(names)-1] {
				at = at.Get(at.Descriptor().Fields().ByName(protoreflect.Name(name))).Message()
			}
			fd := at.Descriptor().Fields().ByName(protoreflect.Name(names[len(names)-1]))
			if !at.Has(fd) {
				if present && (fd.HasPresence() || got != 0) {
					t.Fatalf("%x: %s = %d %s, dynamicpb has none", value, path, got, why)
				}
				continue
			}
			want := watermark.Time(0)
			if fd.Message() != nil {
				stamp := at.Get(fd).Message()
				seconds, nanos := stamp.Get(stamp.Descriptor().Fields().ByNumber(1)).Int(), stamp.Get(stamp.Descriptor().Fields().ByNumber(2)).Int()
				if nanos < 0 || nanos > 999999999 || seconds > 9e9 || seconds < -9e9 {
					continue
				}
				want = watermark.Time(seconds*1e9 + nanos)
			} else if want = watermark.Time(at.Get(fd).Int()); want == watermark.None {
				continue
			}
			if !present || why != "" || got != want {
				t.Fatalf("%x: %s = %d %v %s, dynamicpb has %d", value, path, got, present, why, want)
			}
		}
	})
}

// Serializers do not register what they know themselves, and nobody registers what only
// options need. What is not on the way may be missing.
func TestProtobufImportsThatAreMissing(t *testing.T) {
	const schema = `package shop; import "google/type/money.proto"; import "google/type/interval.proto"; import "confluent/meta.proto";
		import "confluent/type/decimal.proto"; import "buf/validate/validate.proto"; import "google/api/annotations.proto"; import "nowhere.proto";
		import "google/protobuf/timestamp.proto"; import "google/protobuf/descriptor.proto";
		option (confluent.file_meta).doc = "x"; option (nowhere.strict) = { deep: [ { er: 1 } ] };
		extend google.protobuf.FieldOptions { nowhere.Rule rule = 50000; }
		message M {
			option (confluent.message_meta) = { tags: "PII" };
			google.type.Money price = 1; confluent.type.Decimal exact = 2; nowhere.Thing thing = 3; repeated nowhere.Thing things = 4;
			map<string, nowhere.Thing> by = 5; oneof which { nowhere.Thing other = 6; int64 ts = 7 [(buf.validate.field).int64.gt = 0, (rule) = { }]; }
			google.type.Interval window = 8; google.protobuf.Timestamp at = 9 [(confluent.field_meta) = { params: [ { key: "a" value: "b" } ] }];
			Outer.Inner inner = 10; google.type.Date day = 11;
		}
		message Outer { message Inner { nowhere.Thing thing = 1; shop.M m = 2; } }
		service S { rpc Get(nowhere.Thing) returns (google.longrunning.Operation) { option (google.api.http) = { get: "/x" }; } }`
	stamp := []byte{2, 1 << 3, 7}
	for _, tt := range []struct {
		path  string
		value []byte
		want  string
	}{
		{"ts", []byte{1<<3 | 2, 0, 3<<3 | 2, 1, 0xff, 7 << 3, 5}, "5000000"},
		{"ts", []byte{7 << 3, 5, 6<<3 | 2, 0}, "absent"}, // its rival in the oneof
		{"at", append([]byte{9<<3 | 2}, stamp...), "7000000000"},
		{"window.start_time", append([]byte{8<<3 | 2, 4, 1<<3 | 2}, stamp...), "7000000000"},
		{"inner.m.ts", []byte{10<<3 | 2, 4, 2<<3 | 2, 2, 7 << 3, 5}, "5000000"},
		{"day", []byte{11<<3 | 2, 0}, "is or leads through a google.type.Date, which neither the schema nor one of its references defines"},
		{"thing.ts", []byte{3<<3 | 2, 0}, "is or leads through a nowhere.Thing"},
		{"things", []byte{4<<3 | 2, 0}, "is repeated"},
		{"thing.ts", nil, "absent"},
	} {
		t.Run(tt.path, func(t *testing.T) {
			expect(t, onShelf(t, "protobuf:"+tt.path+",timestamp", protoSchema(schema)), framed(1, []int{0}, tt.value), tt.want)
		})
	}
	// A registry's own file comes before ours.
	own := protoSchema(`import "google/type/interval.proto"; message M { google.type.Interval i = 1; }`,
		Reference{"google/type/interval.proto", `syntax = "proto3"; package google.type; message Interval { int64 start_time = 3; }`})
	expect(t, onShelf(t, "protobuf:i.start_time", own), framed(1, []int{0}, []byte{1<<3 | 2, 2, 3 << 3, 5}), "5000000")
	twice := protoSchema(`message M { X x = 1; } message X { int64 ts = 1; }`, Reference{"a", `syntax = "proto3"; message X { int64 ts = 1; }`})
	expect(t, onShelf(t, "protobuf:x.ts", twice), framed(1, []int{0}, []byte{1<<3 | 2, 2, 1 << 3, 5}), "5000000")
	twice.References[0].Text = `syntax = "proto3"; message X { int64 ts = 2; }`
	expect(t, onShelf(t, "protobuf:x.ts", twice), framed(1, []int{0}, nil), "X is defined twice")
}

// linked compares every field of a message with the library's, which links all files.
func linked(t *testing.T, l *protoLayout, all protoreflect.MessageDescriptors) {
	for i := range all.Len() {
		md := all.Get(i)
		m := l.types[string(md.FullName())]
		if m == nil {
			t.Fatalf("%s is missing", md.FullName())
		}
		for j := range md.Fields().Len() {
			fd := md.Fields().Get(j)
			l.ways = map[protoPlace]*protoStep{} // they are those of one path
			way := protoWay(l, m, []string{string(fd.Name())}, unixMillis)
			rivals := 0
			if fd.ContainingOneof() != nil {
				rivals = fd.ContainingOneof().Fields().Len() - 1
			}
			if way == nil || way.number != fd.Number() || way.kind != fd.Kind() || len(way.rivals) != rivals ||
				way.stamp != (fd.Message() != nil && fd.Message().FullName() == "google.protobuf.Timestamp") {
				t.Fatalf("%s: %+v, the library has number %d, kind %v, %d rivals", fd.FullName(), way, fd.Number(), fd.Kind(), rivals)
			}
		}
		linked(t, l, md.Messages())
	}
}

// FuzzProtobufSchema has schemas compiled that nobody has thought about. What the library
// links, we read as the same.
func FuzzProtobufSchema(f *testing.F) {
	f.Add(protoSchema(everything).Text, []byte{0, 8, 1})
	f.Add(`syntax = "proto2"; message M { optional group Meta = 1 { optional int64 ts = 1 [default = 7]; } extensions 5 to max; }`, []byte{0, 11, 12})
	f.Add(`edition = "2023"; message M { M meta = 1 [features.message_encoding = DELIMITED]; int64 ts = 2; }`, []byte{0, 11, 16, 1, 12})
	e, err := Parse("protobuf:meta.ts")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(`edition = "2023"; option features.message_encoding = DELIMITED; package a.b; message M { message N { .a.b.M m = 1; E e = 2; enum E { X = 0; } } N n = 1; map<int32, N> by = 2; optional b.M o = 3 [features = { message_encoding: LENGTH_PREFIXED }]; }`, []byte{0})
	f.Fuzz(func(t *testing.T, schema string, value []byte) {
		compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
			Accessor: protocompile.SourceAccessorFromMap(map[string]string{mainFile: schema}),
		})}
		if files, err := compiler.Compile(context.Background(), mainFile); err == nil && !protoTooDeep(schema) {
			l, err := protoLayoutOf(Schema{"PROTOBUF", schema, nil})
			if err != nil {
				t.Fatal(err)
			}
			linked(t, l, files[0].Messages())
		}
		for _, way := range e.Compile(Schema{"PROTOBUF", schema, nil}).of {
			way.read(frame{value: value})
		}
	})
}

// A value costs no more than its own bytes, however many fields may take the place of the one
// that is looked for, and however deep its groups are.
func TestProtobufExpansions(t *testing.T) {
	var oneof, groups strings.Builder
	for i := range 50_000 {
		fmt.Fprintf(&oneof, "bool f%d=%d;", i, i+20_000)
	}
	for range 30 {
		groups.WriteString("optional group A = 1 {")
	}
	schemas := []Schema{
		protoSchema("message M { oneof o { int64 ts = 1; " + oneof.String() + " } }"),
		{Type: "PROTOBUF", Text: "message M { " + groups.String() + "optional int64 ts = 2;" + strings.Repeat("}", 30) + " }"},
	}
	last := protowire.AppendTag(nil, 69_999, protowire.VarintType)
	for _, c := range []struct {
		id    int
		path  string
		value []byte
		want  string
	}{
		{1, "protobuf:ts", append(bytes.Repeat(append(last, 1), 1<<18), 1<<3, 5), "5000000"},
		{1, "protobuf:ts", bytes.Repeat(append(last, 1), 1<<18), "absent"},
		{2, "protobuf:" + strings.Repeat("a.", 30) + "ts", bytes.Repeat([]byte{1<<3 | 3}, 1<<20), "the value is not in Protobuf"},
		{2, "protobuf:" + strings.Repeat("a.", 30) + "ts", slices.Concat(bytes.Repeat([]byte{1<<3 | 3}, 30), bytes.Repeat([]byte{3 << 3, 1}, 1<<19), []byte{2 << 3, 5}, bytes.Repeat([]byte{1<<3 | 4}, 30)), "5000000"},
	} {
		began := time.Now()
		expect(t, onShelf(t, c.path+",timestamp", schemas...), framed(c.id, []int{0}, c.value), c.want)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: %v", c.path, took)
		}
	}
}
