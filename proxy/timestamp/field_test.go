package timestamp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
)

// shelf is a registry without a network: ids are places in it.
type shelf struct {
	e    *Extractor
	made map[SchemaID]*Readers
}

func onShelf(t testing.TB, spec string, schemas ...Schema) *Extractor {
	t.Helper()
	e := mustParse(t, spec)
	s := &shelf{e, map[SchemaID]*Readers{}}
	for i, schema := range schemas {
		s.made[SchemaID{Number: uint64(i + 1)}] = e.Compile(schema)
	}
	return e.With(s)
}

func (s *shelf) Readers(id SchemaID) (*Readers, error) {
	if id.Number == 99 {
		return nil, &Pending{ID: id}
	}
	if made := s.made[id]; made != nil {
		return made, nil
	}
	return nil, ErrUnknownSchema
}

// framed puts the id of a schema before a value, and the place of a message.
func framed(id int, index []int, value []byte) *kgo.Record {
	head, _ := new(sr.ConfluentHeader).AppendEncode(nil, id, index)
	r := record(99)
	r.Value = append(head, value...)
	return r
}

func avroSchema(text string, refs ...Reference) Schema { return Schema{"AVRO", text, refs} }
func protoSchema(text string, refs ...Reference) Schema {
	return Schema{"PROTOBUF", "syntax = \"proto3\";\n" + text, refs}
}

func encoded(t testing.TB, schema string, v any) []byte {
	t.Helper()
	s, err := avro.Parse(schema)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// expect compares what a source finds: a time in ns, "absent", or what its error
// must say.
func expect(t *testing.T, e *Extractor, r *kgo.Record, want string) {
	t.Helper()
	got, err := e.Extract(r)
	switch {
	case err != nil && !errors.Is(err, ErrInvalid):
		t.Errorf("%v is another kind of error", err)
	case err != nil && !strings.Contains(err.Error(), want), err != nil && len(want) < 8:
		t.Errorf("error %q, want %q", err, want)
	case err == nil && want == "absent" && got != 99e6:
		t.Errorf("%d, want it absent", got)
	case err == nil && want != "absent" && fmt.Sprint(int64(got)) != want:
		t.Errorf("%d, want %s", got, want)
	}
}

func TestWireFormat(t *testing.T) {
	e := onShelf(t, "avro:ts,timestamp", avroSchema(`{"type":"record","name":"r","fields":[{"name":"ts","type":"long"}]}`),
		Schema{Type: "JSON", Text: "{}"}, protoSchema("message M { int64 ts = 1; }"))
	value := binary.AppendVarint(nil, 5)
	expect(t, e, framed(1, nil, value), "5000000")
	expect(t, e, framed(2, nil, []byte("{}")), "absent") // a schema of another family
	expect(t, e, framed(3, []int{0}, nil), "absent")
	expect(t, e, framed(4, nil, value), "schema 4: the schema registry has no such schema (looked for avro:ts)")
	expect(t, e, record(99), "absent") // a tombstone
	var pending *Pending
	if _, err := e.Extract(framed(99, nil, value)); !errors.As(err, &pending) || pending.ID.Number != 99 || errors.Is(err, ErrInvalid) {
		t.Errorf("%v", err)
	}
}

const guid = "\x01\x24\xa9\xf6\x1a\x00\x01\x40\x02\x80\x03\x00\x00\x00\x00\x00\x07"

// Values are read by the schema that their serializer names, wherever it does. What cannot
// be read is named for what it is, and no registry is asked.
func TestFrames(t *testing.T) {
	byGUID := SchemaID{Kind: ByGUID, GUID: [16]byte([]byte(guid[1:]))}
	numbered, global, content := SchemaID{Number: 7}, SchemaID{Kind: ByGlobalID, Number: 7}, SchemaID{Kind: ByContentID, Number: 7}
	const eight, four = "\x00\x00\x00\x00\x00\x00\x00\x00\x07", "\x00\x00\x00\x00\x07"
	type of map[RegistryKind]SchemaID
	everywhere := func(id SchemaID) of {
		return of{Confluent: id, ApicurioCompat: id, ApicurioGlobal: id, ApicurioContent: id}
	}
	for name, tt := range map[string]struct {
		record     *kgo.Record
		ids        of
		rest, why  string // why: what is wrong with it elsewhere
		registered bool
	}{
		"Confluent":                           {record: record(1), ids: of{Confluent: numbered, ApicurioCompat: numbered, ApicurioGlobal: global, ApicurioContent: content}, rest: four},
		"a GUID in a header":                  {record: record(1, guidHeader, guid), ids: everywhere(byGUID)},
		"an id in a header":                   {record: record(1, guidHeader, four), ids: everywhere(numbered)},
		"a GUID of the key":                   {record: record(1, "__key_schema_id", guid), why: "does not begin with the id of a schema (a 0 and four bytes)"},
		"a header of somebody else's":         {record: record(1, guidHeader, "7"), why: "does not begin with the id of a schema (a 0 and four bytes)"},
		"Apicurio":                            {record: record(1), ids: of{ApicurioCompat: global, ApicurioGlobal: global, ApicurioContent: content}, rest: eight, why: "begins with an id of 8 bytes, as Apicurio's serializers write it: point TIDEMARK_SCHEMA_REGISTRY to Apicurio's API"},
		"Apicurio's global id in a header":    {record: record(1, globalHeader, eight[1:]), ids: of{ApicurioCompat: global, ApicurioGlobal: global, ApicurioContent: global}, why: "header apicurio.value.globalId, which is Apicurio's"},
		"Apicurio's content id in a header":   {record: record(1, contentHeader, eight[1:], encodingHeader, "BINARY"), ids: of{ApicurioCompat: content, ApicurioGlobal: content, ApicurioContent: content}, why: "header apicurio.value.contentId, which is Apicurio's"},
		"Apicurio's id, wrong in a header":    {record: record(1, contentHeader, eight), why: "does not begin with the id of a schema"},
		"AWS Glue":                            {record: record(1), rest: "\x03\x00" + guid[1:], why: "is framed for AWS Glue Schema Registry, which Tidemark does not read"},
		"AWS Glue, compressed":                {record: record(1), rest: "\x03\x05" + guid[1:], why: "is framed for AWS Glue Schema Registry"},
		"three bytes of its kind":             {record: record(1), rest: "\x03\x00\x00", why: "does not begin with the id"},
		"zeros":                               {record: record(1), rest: "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05", why: "begins with the id 0, which no schema registry gives out"},
		"zeros of an id of 8 bytes too large": {record: record(1), rest: "\x00\x00\x00\x00\x00\x80\x00\x00\x00\x05", why: "begins with the id 0"},
		"a negative id":                       {record: record(1), rest: "\x00\xff\xff\xff\xff", why: "does not begin with the id"},
		"too short":                           {record: record(1), rest: "\x00\x00\x00\x01", why: "does not begin with the id"},
		"JSON":                                {record: record(1), rest: `{"ts":5}`, why: "looks like JSON without a schema, which the source json reads"},
		"an Avro file":                        {record: record(1), rest: "Obj\x01\x04", why: "is an Avro file with its own schema"},
		"one object in Avro":                  {record: record(1), rest: "\xc3\x0112345678", why: "is in Avro's single-object encoding"},
		"text":                                {record: record(1), rest: "anna@example.org", why: "does not begin with the id"},
	} {
		t.Run(name, func(t *testing.T) {
			r := tt.record
			r.Value = []byte(tt.rest)
			if tt.rest == "" || len(tt.ids) > 0 {
				r.Value = append(r.Value, "canary"...)
			}
			for k := range RegistryKind(4) {
				id, can := tt.ids[k]
				e := mustParse(t, "avro:ts").Asking(k)
				if got, ok := e.SchemaOf(r); ok != can || ok && got != id {
					t.Errorf("%d: %v, %v, want %v, %v", k, got, ok, id, can)
				}
				if can {
					if f, _ := k.frameOf(r); string(f.value) != "canary" {
						t.Errorf("%d: its value is %q", k, f.value)
					}
					continue
				}
				var schema *SchemaError
				_, err := e.With(nil).Extract(r) // which would panic if it were asked
				if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.why) || errors.As(err, &schema) ||
					strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "anna") {
					t.Errorf("%d: %v", k, err)
				}
			}
		})
	}
	r := record(1, guidHeader, guid)
	if _, ok := mustParse(t, "avro:ts").SchemaOf(r); ok { // a tombstone
		t.Error("a tombstone has a schema")
	}
	for id, want := range map[SchemaID]string{numbered: "7", byGUID: "24a9f61a-0001-4002-8003-000000000007", global: "globalId 7", content: "contentId 7"} {
		if id.String() != want {
			t.Errorf("%s, want %s", id, want)
		}
	}
}

// In Protobuf, the place of the message is where the id is.
func TestPlaceInHeader(t *testing.T) {
	e := onShelf(t, "protobuf:ts,timestamp", protoSchema("message A { int64 ts = 1; } message B { int64 ts = 2; }"))
	for head, want := range map[string]string{
		"\x00\x00\x00\x00\x01\x00":     "5000000",
		"\x00\x00\x00\x00\x01\x02\x00": "5000000",
		"\x00\x00\x00\x00\x01\x02\x02": "6000000",
		"\x00\x00\x00\x00\x01\x02\x04": "is in a message that the schema does not have",
		"\x00\x00\x00\x00\x01":         "does not say correctly which message",
	} {
		r := record(99, guidHeader, head)
		r.Value = []byte{1 << 3, 5, 2 << 3, 6}
		expect(t, e, r, want)
	}
}

// Two sources that need schemas, each with its own way through them.
func TestAvroElseProtobuf(t *testing.T) {
	e := onShelf(t, "avro:ts:unix-s,protobuf:ts,avro:other",
		avroSchema(`{"type":"record","name":"r","fields":[{"name":"ts","type":"long"}]}`),
		protoSchema("message M { int64 ts = 1; }"),
		avroSchema(`{"type":"record","name":"r","fields":[{"name":"other","type":"long"}]}`))
	expect(t, e, framed(1, nil, []byte{10}), "5000000000")
	expect(t, e, framed(2, []int{0}, []byte{1 << 3, 6}), "6000000")
	expect(t, e, framed(3, nil, []byte{14}), "7000000")
	expect(t, e, framed(2, []int{0}, nil), "the record has none of avro:ts:unix-s,protobuf:ts,avro:other")
}

func TestSchemasAreBounded(t *testing.T) {
	nested := strings.Repeat(`{"type":"array","items":`, 300) + `"long"` + strings.Repeat("}", 300)
	chain := "message M0 { int64 ts = 1; }\n"
	for i := range 40 {
		chain += fmt.Sprintf("message M%d { M%d a = 1; M%d b = 2; }\n", i+1, i, i)
	}
	for want, schema := range map[string]Schema{
		"which is more than 1048576":                     avroSchema(`"long"`, Reference{"a", strings.Repeat(" ", MaxSchema)}),
		"the schema is nested more than 200 times":       avroSchema(nested),
		"the schema a is nested more than 200 times":     avroSchema(`"long"`, Reference{"a", nested}),
		"the schema is no Avro schema":                   avroSchema(`{"type":"record"}`),
		"the schema b is no Avro schema":                 avroSchema(`"long"`, Reference{"b", "?"}),
		"the schema \"\" is nested more than 200 times":  protoSchema("option x = " + strings.Repeat("{a:", 300)),
		"the schema \"x\" is nested more than 200 times": protoSchema("", Reference{"x", "/* } */ " + strings.Repeat("{ // }\n \"}\"", 300)}),
		"the schema is no Protobuf schema: schema:2:":    protoSchema("mesage M {}"),
	} {
		e := onShelf(t, "avro:ts,protobuf:ts", schema)
		expect(t, e, framed(1, []int{0}, nil), want)
	}
	const last = 12_000
	var forward strings.Builder // each needs the one behind it, which is not known yet
	for i := range last {
		fmt.Fprintf(&forward, `{"type":"record","name":"R%d","fields":[{"name":"x","type":"R%d"}]},`, i, i+1)
	}
	e := onShelf(t, "avro:ts,timestamp", avroSchema(fmt.Sprintf(`[%s{"type":"record","name":"R%d","fields":[]}]`, &forward, last)))
	expect(t, e, framed(1, nil, []byte{0}), "absent")
	// A long name is a part of the name of each type inside; many messages lead into a large one.
	long := strings.Repeat("x", 500_000)
	e = onShelf(t, "avro:ts,protobuf:ts", avroSchema(`{"type":"record","name":"`+long+`.R","fields":[`+strings.Repeat(`{"name":"f","type":{"type":"fixed","name":"F","size":1}},`, 8000)+`{"name":"ts","type":"long"}]}`),
		protoSchema("message "+long+" { "+strings.Repeat("message M {} ", 30_000)+" }"))
	expect(t, e, framed(1, nil, nil), "a name has more than 1000 bytes")
	expect(t, e, framed(2, []int{0}, nil), "a name has more than 1000 bytes")
	var large, many strings.Builder
	for i := range 15_000 {
		fmt.Fprintf(&large, "int32 f%d=%d;", i, i+1)
		fmt.Fprintf(&many, "message M%d{L l=1;}", i)
	}
	onShelf(t, "protobuf:"+strings.Repeat("l.", 31)+"f7", protoSchema("message L {"+large.String()+"L l = 20000;}"+many.String()))
	onShelf(t, "protobuf:"+strings.Repeat("a.", 31)+"ts", protoSchema(chain)) // 2^31 ways
}

func TestExtractFieldsDoesNotAllocate(t *testing.T) {
	for name, e := range fieldExtractors(t) {
		r := fieldRecords(t)[name]
		if _, err := e.Extract(r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n := testing.AllocsPerRun(100, func() { _, _ = e.Extract(r) }); n != 0 {
			t.Errorf("%s: %v allocations a record", name, n)
		}
	}
}

const order = `{"type":"record","name":"Order","namespace":"shop","fields":[
	{"name":"id","type":"string"},{"name":"items","type":{"type":"array","items":{"type":"record","name":"Item","fields":[
		{"name":"sku","type":"string"},{"name":"price","type":["null","double"]}]}}},
	{"name":"tags","type":{"type":"map","values":"string"}},
	{"name":"meta","type":["null",{"type":"record","name":"Meta","fields":[{"name":"ts","type":{"type":"long","logicalType":"timestamp-micros"}}]}]}]}`

const orderProto = `import "google/protobuf/timestamp.proto";
message Order { string id = 1; repeated Item items = 2; map<string, string> tags = 3; Meta meta = 4; }
message Item { string sku = 1; double price = 2; }
message Meta { google.protobuf.Timestamp ts = 1; }`

var orderJSON = []byte(`{"id":"9f0c12aa-5ad1","items":[{"sku":"a \"b\" c","price":1.5},{"sku":"c","price":null}],` +
	`"tags":{"x":"y","zz":"` + strings.Repeat("z", 100) + `"},"meta":{"ts":1700000000123.456}}`)

func fieldExtractors(t testing.TB) map[string]*Extractor {
	return map[string]*Extractor{
		"json":     mustParse(t, "json:meta.ts"),
		"avro":     onShelf(t, "avro:meta.ts", avroSchema(order)),
		"protobuf": onShelf(t, "protobuf:meta.ts", protoSchema(orderProto)),
	}
}

func fieldRecords(t testing.TB) map[string]*kgo.Record {
	at := time.Unix(1700000000, 123456000)
	text := record(99)
	text.Value = orderJSON
	message := messageOf(t, orderProto, "Order", `id: "9f0c12aa-5ad1" items { sku: "a \"b\" c" price: 1.5 } items { sku: "c" }
		tags { key: "x" value: "y" } tags { key: "zz" value: "`+strings.Repeat("z", 100)+`" } meta { ts { seconds: 1700000000 nanos: 123456000 } }`)
	return map[string]*kgo.Record{
		"json": text,
		"avro": framed(1, nil, encoded(t, order, map[string]any{
			"id": "9f0c12aa-5ad1", "items": []any{map[string]any{"sku": `a "b" c`, "price": 1.5}, map[string]any{"sku": "c", "price": nil}},
			"tags": map[string]any{"x": "y", "zz": strings.Repeat("z", 100)}, "meta": map[string]any{"ts": at},
		})),
		"protobuf": framed(1, []int{0}, message),
	}
}

func BenchmarkExtractField(b *testing.B) {
	records := fieldRecords(b)
	for name, e := range fieldExtractors(b) {
		b.Run(name, func(b *testing.B) {
			r := records[name]
			b.ReportAllocs()
			b.SetBytes(int64(len(r.Value)))
			for b.Loop() {
				if _, err := e.Extract(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
