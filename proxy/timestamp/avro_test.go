package timestamp

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/tidemarkhq/tidemark/watermark"
)

// What the type of a field makes of the number or text in it.
func TestAvroTypes(t *testing.T) {
	const us = int64(1700000000123456)
	tests := []struct{ source, kind, want string }{
		{"avro:ts", `"long"`, "1700000000123456000000"[:0] + "outside the years"}, // taken for milliseconds
		{"avro:ts:unix-us", `"long"`, "1700000000123456000"},
		{"avro:ts", `{"type":"long","logicalType":"timestamp-micros"}`, "1700000000123456000"},
		{"avro:ts:unix-s", `{"type":"long","logicalType":"timestamp-micros"}`, "1700000000123456000"}, // the schema knows
		{"avro:ts", `{"type":"long","logicalType":"timestamp-nanos"}`, "1700000000123456"},
		{"avro:ts", `{"type":"long","logicalType":"timestamp-millis"}`, "with a number of 16 digits is outside the years 1678 to 2262 (read as unix-ms; as unix-us it would fit)"},
		{"avro:ts", `"long","logicalType":"timestamp-micros"`, "1700000000123456000"}, // beside the type
		{"avro:ts", `["null",{"type":"long","logicalType":"timestamp-micros"}]`, "1700000000123456000"},
		{"avro:ts", `{"type":"long","logicalType":"local-timestamp-micros"}`, "whose time zone is not known; the format local:ZONE says which it is"},
		{"avro:ts:local:Europe/Paris", `{"type":"long","logicalType":"local-timestamp-micros"}`, "1699996400123456000"},
		{"avro:ts:local:UTC", `{"type":"long","logicalType":"local-timestamp-micros"}`, "1700000000123456000"},
		{"avro:ts:local:Europe/Paris", `{"type":"long","logicalType":"timestamp-micros"}`, "1700000000123456000"},
		{"avro:ts:local:Europe/Paris", `"long"`, "is not text (read as local:Europe/Paris; as unix-us it would fit)"},
		{"avro:ts:unix-ms", `{"type":"long","logicalType":"local-timestamp-micros"}`, "whose time zone is not known"},
		{"avro:ts:unix-us", `{"type":"long","logicalType":"local-timestamp-micros"}`, "1700000000123456000"},
		{"avro:ts", `{"type":"long","logicalType":"time-micros"}`, "is of type long (time-micros), which is no point in time"},
		{"avro:ts:unix-us", `{"type":"long","logicalType":"something-new"}`, "1700000000123456000"},
		{"avro:ts:rfc3339", `"long"`, "avro:ts with a number of 16 digits is not text (read as rfc3339; as unix-us it would fit)"},
	}
	for _, tt := range tests {
		schema := `{"type":"record","name":"r","fields":[{"name":"x","type":"string"},{"name":"ts","type":` + tt.kind + `}]}`
		value := []byte{2, 'x'}
		if strings.HasPrefix(tt.kind, "[") {
			value = append(value, 2)
		}
		e := onShelf(t, tt.source+",timestamp", avroSchema(schema))
		t.Run(tt.source+" "+tt.kind, func(t *testing.T) { expect(t, e, framed(1, nil, binary.AppendVarint(value, us)), tt.want) })
	}
	for kind, want := range map[string]string{
		`"string"`:                            "1700000000000000000",
		`{"type":"int","logicalType":"date"}`: "is of type int (date), which is no point in time",
		`"double"`:                            "is a double, which rounds",
		`"boolean"`:                           "is of type boolean, which is no time",
		`"bytes"`:                             "is of type bytes, which is no time; 8 bytes are one with the format int64-be",
		`{"type":"bytes","logicalType":"decimal","precision":9}`: "is of type bytes (decimal), which is no time",
		`{"type":"enum","name":"e","symbols":["A"]}`:             "is of type enum, which is no time",
		`{"type":"array","items":"long"}`:                        "is of type array, which is no time",
		`{"type":"record","name":"q","fields":[]}`:               "is of type record, which is no time",
		`"null"`: "absent",
	} {
		e := onShelf(t, "avro:ts,timestamp", avroSchema(`{"type":"record","name":"r","fields":[{"name":"ts","type":`+kind+`}]}`))
		value := append([]byte{40}, "2023-11-14T22:13:20Z"...)
		t.Run(kind, func(t *testing.T) { expect(t, e, framed(1, nil, value), want) })
	}
	e := onShelf(t, "avro:ts:int64-be,timestamp", avroSchema(`{"type":"record","name":"r","fields":[{"name":"ts","type":{"type":"fixed","name":"f","size":8}}]}`),
		avroSchema(`{"type":"record","name":"r","fields":[{"name":"ts","type":"bytes"}]}`))
	expect(t, e, framed(1, nil, []byte(be(5))), "5000000")
	expect(t, e, framed(2, nil, append([]byte{16}, be(5)...)), "5000000")
}

func TestAvroPaths(t *testing.T) {
	const tree = `{"type":"record","name":"Node","namespace":"a.b","fields":[
		{"name":"ts","type":["null","long"]},{"name":"skipped","type":["null","Node"]},{"name":"next","type":["null","string","Node"]},
		{"name":"map","type":{"type":"map","values":["long","string"]}}]}`
	schema := encodedBy(t, tree)
	leaf := map[string]any{"ts": int64(7), "map": map[string]any{"k": int64(8), "s": "9"}}
	value := schema(map[string]any{"ts": nil, "skipped": leaf, "next": leaf, "map": map[string]any{"s": "x"}})
	for path, want := range map[string]string{
		"ts":            "absent",
		"next.ts":       "7000000",
		"skipped.ts":    "7000000",
		"next.next.ts":  "absent",
		"next.map.k":    "8000000",
		"next.map.s":    "9000000",
		"next.map.none": "absent",
		"map.s":         `with text of 1 byte is neither decimal milliseconds`,
		"next.other":    "absent",
		"ts.x":          "absent",
		"next":          "is of type record, which is no time",
	} {
		t.Run(path, func(t *testing.T) {
			expect(t, onShelf(t, "avro:"+path+",timestamp", avroSchema(tree)), framed(1, nil, value), want)
		})
	}
	e := onShelf(t, "avro:next.ts,timestamp", avroSchema(tree))
	for n := range len(value) - 30 {
		expect(t, e, framed(1, nil, value[:n]), "is cut off: the value ends before it")
	}
	e = onShelf(t, "avro:order.at,timestamp", avroSchema(`{"type":"record","name":"Event","fields":[{"name":"order","type":"shop.Order"}]}`,
		Reference{"shop.Stamp", `{"type":"record","name":"Stamp","namespace":"shop","fields":[{"name":"v","type":"string"}]}`},
		Reference{"shop.Order", `{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"s","type":"Stamp"},{"name":"at","type":"long"}]}`}))
	expect(t, e, framed(1, nil, []byte{2, 'x', 12}), "6000000")
}

func encodedBy(t *testing.T, schema string) func(any) []byte {
	return func(v any) []byte { return encoded(t, schema, v) }
}

// A value can claim more than it has. What is skipped is bounded by its bytes.
func TestAvroBombs(t *testing.T) {
	doubling := `{"type":"record","name":"R0","fields":[{"name":"x","type":"null"}]}`
	for i := range 60 {
		doubling = fmt.Sprintf(`{"type":"record","name":"R%d","fields":[{"name":"a","type":%s},{"name":"b","type":"R%d"}]}`, i+1, doubling, i)
	}
	list := `{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}`
	for kind, value := range map[string]string{
		`{"type":"array","items":"null"}`:                         "\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x0a", // 2^63-1 of them, and the field
		`{"type":"array","items":` + doubling + `}`:               "\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x0a",
		`{"type":"array","items":{"type":"map","values":"null"}}`: "\x02\x00\x00\x0a",
		doubling: "\x0a",
	} {
		e := onShelf(t, "avro:ts,timestamp", avroSchema(`{"type":"record","name":"r","fields":[{"name":"x","type":`+kind+`},{"name":"ts","type":"long"}]}`))
		expect(t, e, framed(1, nil, []byte(value)), "5000000")
	}
	for value, want := range map[string]string{
		"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01": "is cut off",
		"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01": "is cut off",
		"\x01\x01": "comes after something with an invalid length", // a block of -1 bytes
	} {
		e := onShelf(t, "avro:ts", avroSchema(`{"type":"record","name":"r","fields":[{"name":"x","type":{"type":"array","items":"long"}},{"name":"ts","type":"long"}]}`))
		expect(t, e, framed(1, nil, []byte(value)), want)
	}
	e := onShelf(t, "avro:ts", avroSchema(`{"type":"record","name":"r","fields":[{"name":"x","type":`+list+`},{"name":"ts","type":"long"}]}`))
	expect(t, e, framed(1, nil, []byte(strings.Repeat("\x02", 1<<20))), "nested too deeply")
	// 2^31 ways of a path through unions, few places.
	union := `{"type":"record","name":"A","fields":[{"name":"x","type":[{"type":"record","name":"B","fields":[{"name":"x","type":["A","B"]}]},"A"]}]}`
	onShelf(t, "avro:"+strings.Repeat("x.", 31)+"x", avroSchema(union))
}

// Schemas that stand for more than anybody can walk through, and values that make the most of
// them, cost no more than their own bytes: 2^60 fields through names of types, each used twice,
// and records of many fields that take no bytes.
func TestAvroExpansions(t *testing.T) {
	twice := func(base string) string {
		for i := range 60 {
			base = fmt.Sprintf(`{"type":"record","name":"R%d","fields":[{"name":"a","type":%s},{"name":"b","type":"R%d"}]}`, i+1, base, i)
		}
		return base
	}
	forward := `{"type":"record","name":"N0","fields":[{"name":"x","type":"int"}]}`
	for i := range 1000 { // too many levels to be nested, by names alone
		forward = fmt.Sprintf(`{"type":"record","name":"N%d","fields":[{"name":"a","type":"N%d"},{"name":"b","type":"N%d"}]},%s`, i+1, i, i, forward)
	}
	wide := strings.Repeat(`{"name":"n","type":"null"},`, 30_000)
	const cutOff, deep = "is cut off", "nested too deeply"
	for _, c := range []struct{ name, kind, value, want string }{
		{"nothing", twice(`{"type":"record","name":"R0","fields":[]}`), "\x0a", "5000000"},
		{"no bytes", twice(`{"type":"record","name":"R0","fields":[{"name":"x","type":{"type":"fixed","name":"F","size":0}}]}`), "\x0a", "5000000"},
		{"one byte each", twice(`{"type":"record","name":"R0","fields":[{"name":"x","type":"boolean"}]}`), strings.Repeat("\x00", 1<<20), cutOff},
		{"an empty array each", twice(`{"type":"record","name":"R0","fields":[{"name":"x","type":{"type":"array","items":"null"}}]}`), strings.Repeat("\x00", 1<<20), cutOff},
		{"a null each", twice(`{"type":"record","name":"R0","fields":[{"name":"x","type":["null","int"]}]}`), strings.Repeat("\x00", 1<<20), cutOff},
		{"without an end", twice(`{"type":"record","name":"R0","fields":[{"name":"x","type":"R0"}]}`), "\x00", deep},
		{"each without an end", `{"type":"record","name":"R","fields":[{"name":"x","type":"R"},{"name":"y","type":"R"}]}`, "\x00", deep},
		{"many bytes for nothing", `{"type":"array","items":{"type":"record","name":"W","fields":[` + wide + `{"name":"b","type":"boolean"}]}}`, "\x80\x80\x80\x01" + strings.Repeat("\x01", 1<<20) + "\x00\x0a", "5000000"},
		{"fields of no bytes, many times", `{"type":"map","values":{"type":"record","name":"W","fields":[` + wide + `{"name":"x","type":"int"}]}}`, "\x80\x80\x20" + strings.Repeat("\x02x\x02", 1<<18) + "\x00\x0a", "5000000"},
	} {
		for _, path := range []string{"avro:ts", "avro:x.x", "avro:x.x.x,avro:ts", "avro:x" + strings.Repeat(".a", 30) + ",avro:ts", "avro:x" + strings.Repeat(".b", 30) + ",avro:ts"} {
			began := time.Now()
			e := onShelf(t, path, avroSchema(`{"type":"record","name":"r","fields":[{"name":"x","type":`+c.kind+`},{"name":"ts","type":"long"}]}`))
			for _, where := range []*kgo.Record{framed(1, nil, []byte(c.value)), framed(1, nil, nil), framed(1, nil, []byte(c.value)[:1])} {
				_, _ = e.Extract(where)
			}
			if path == "avro:ts" {
				expect(t, e, framed(1, nil, []byte(c.value)), c.want)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("%s, %s: %v", c.name, path, took)
			}
		}
	}
	e := onShelf(t, "avro:ts,avro:"+strings.Repeat("a.", 31)+"x", avroSchema(`[`+forward+`,{"type":"record","name":"r","fields":[{"name":"x","type":"N1000"},{"name":"ts","type":"long"}]}]`))
	expect(t, e, framed(1, nil, append([]byte{0xd2, 0x0f}, "\x00\x00\x00"...)), deep) // branch 1001
}

// The library makes values of whole records; our way goes to one field and skips
// the rest. They agree, whatever the schema.
func TestAvroTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := 0
		var kindOf func(depth int) (string, *rapid.Generator[any])
		kindOf = func(depth int) (string, *rapid.Generator[any]) {
			most := 9
			if depth > 2 {
				most = 5
			}
			names++
			name := fmt.Sprintf("n%d", names)
			switch rapid.IntRange(0, most).Draw(t, "kind") {
			case 0:
				return `"long"`, rapid.Int64().AsAny()
			case 1:
				return `"string"`, rapid.String().AsAny()
			case 2:
				return `"double"`, rapid.Float64().AsAny()
			case 3:
				return `"boolean"`, rapid.Bool().AsAny()
			case 4:
				return `"null"`, rapid.Just[any](nil)
			case 5:
				return fmt.Sprintf(`{"type":"fixed","name":"%s","size":3}`, name), rapid.Just[any]([]byte{1, 2, 3})
			case 6:
				item, g := kindOf(depth + 1)
				return `{"type":"array","items":` + item + `}`, rapid.Map(rapid.SliceOfN(g, 0, 3), func(v []any) any { return v })
			case 7:
				item, g := kindOf(depth + 1)
				return `{"type":"map","values":` + item + `}`, rapid.Map(rapid.MapOfN(rapid.StringN(0, 5, -1), g, 0, 3), func(v map[string]any) any { return v })
			case 8:
				a, ga := kindOf(depth + 1)
				b, gb := kindOf(depth + 1)
				return fmt.Sprintf(`{"type":"record","name":"%s","fields":[{"name":"a","type":%s},{"name":"b","type":%s}]}`, name, a, b),
					rapid.Custom(func(t *rapid.T) any { return map[string]any{"a": ga.Draw(t, "a"), "b": gb.Draw(t, "b")} })
			}
			return `["null","long",{"type":"enum","name":"` + name + `","symbols":["X","Y"]}]`, rapid.SampledFrom([]any{nil, int64(-5), "Y"})
		}
		before, values := kindOf(0)
		text := `{"type":"record","name":"top","fields":[{"name":"before","type":` + before + `},{"name":"in","type":["null",{"type":"record","name":"inner","fields":[
			{"name":"more","type":` + strings.NewReplacer(`"name":"n`, `"name":"m`).Replace(before) + `},{"name":"ts","type":["null",{"type":"long","logicalType":"timestamp-millis"}]}]}]}]}`
		schema, err := avro.Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		var in, ts any
		want := "absent"
		if ms := rapid.Int64Range(0, 4e12).Draw(t, "ms"); rapid.Bool().Draw(t, "set") {
			ts, want = time.UnixMilli(ms), fmt.Sprint(ms)
		}
		if rapid.Bool().Draw(t, "inner") {
			in = map[string]any{"more": values.Draw(t, "more"), "ts": ts}
		} else {
			want = "absent"
		}
		value, err := schema.Encode(map[string]any{"before": values.Draw(t, "before"), "in": in})
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		way, err := compileAvro(avroSchema(text), []string{"in", "ts"}, unwritten)
		if err != nil {
			t.Fatal(err)
		}
		got, present, why := way.read(frame{value: value})
		if why != "" || present != (want != "absent") || present && fmt.Sprint(got.Millis()) != want {
			t.Fatalf("%s\n%x: %d %v %s, want %s", text, value, got.Millis(), present, why, want)
		}
	})
}

// FuzzAvro holds our way against the library's on any bytes: what it can read, we
// read as the same.
func FuzzAvro(f *testing.F) {
	f.Add(encoded(f, order, map[string]any{"id": "x", "items": []any{map[string]any{"sku": "a", "price": 1.5}}, "tags": map[string]any{"a": "b"}, "meta": map[string]any{"ts": time.Unix(1, 0)}}))
	f.Add([]byte("\x00\x00\x00\x00"))
	f.Add([]byte("\x00\x01\x02\x00\x00\x03\x08\x02a\x02b\x00\x02\x0a"))
	schema, err := avro.Parse(order)
	if err != nil {
		f.Fatal(err)
	}
	way, err := compileAvro(avroSchema(order), []string{"meta", "ts"}, unwritten)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		got, present, why := way.read(frame{value: value})
		if why != "" && got != watermark.None {
			t.Fatalf("%d beside %s", got, why)
		}
		var all struct {
			Meta *struct {
				TS int64 `avro:"ts"`
			} `avro:"meta"`
		}
		if _, err := schema.Decode(value, &all); err != nil {
			return
		}
		switch {
		case all.Meta == nil && (present || why != ""), all.Meta != nil && !present:
			t.Fatalf("%x: present %v %s, the library has %+v", value, present, why, all.Meta)
		case all.Meta != nil && why == "" && int64(got) != all.Meta.TS*1000:
			t.Fatalf("%x: %d, the library has %d us", value, got, all.Meta.TS)
		}
	})
}

// FuzzAvroSchema has schemas compiled that nobody has thought about. What the library
// accepts, we do.
func FuzzAvroSchema(f *testing.F) {
	f.Add(order, []byte{0, 0, 0, 0})
	f.Add(`{"type":"record","name":"x","fields":[{"name":"meta","type":["null","x"]},{"name":"ts","type":"long"}]}`, []byte{2, 0, 2, 2})
	f.Add(`["null","long"]`, []byte{0})
	e, err := Parse("avro:meta.ts")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(`{"type":"record","name":"x","fields":[{"name":"ts","type":"fixed","size":"8"}]}`, []byte{0})
	f.Fuzz(func(t *testing.T, schema string, value []byte) {
		if _, err := avro.Parse(schema); err == nil && !tooDeep([]byte(schema), deepestSchema) {
			if _, err := layoutOf(avroSchema(schema)); err != nil {
				t.Fatal(err)
			}
		}
		for _, way := range e.Compile(avroSchema(schema)).of {
			way.read(frame{value: value})
		}
	})
}

// What Java's Avro accepts does not make a record invalid: the schema is read for its
// layout. The library of the other tests refuses each of the first of them.
func TestAvroSchemasOfOthers(t *testing.T) {
	const micros = `{"type":"long","logicalType":"timestamp-micros"}`
	record := func(head, before string) string {
		return `{"type":"record",` + head + `,"fields":[` + before + `{"name":"meta","type":{"type":"record","name":"Meta","fields":[{"name":"created-at","type":` + micros + `}]}}]}`
	}
	named := `"name":"r"`
	x := string(binary.AppendVarint([]byte{2, 'x'}, 5))
	for name, tt := range map[string]struct {
		schema, value string
		refused       bool // by the library
	}{
		"a namespace with a hyphen":             {record(`"name":"r","namespace":"com.my-shop.orders"`, ""), "\x0a", true},
		"a class inside a class":                {record(`"name":"Outer$Inner","namespace":"a.Outer$"`, ""), "\x0a", true},
		"a name that is not ASCII":              {record(`"name":"Überweisung","namespace":"de.größe"`, ""), "\x0a", true},
		"a field that is not ASCII":             {record(named, `{"name":"Größe","type":"string"},`), x, true},
		"a field that begins with a digit":      {record(named, `{"name":"1st","type":"string"},`), x, true},
		"a field with no name":                  {record(named, `{"name":"","type":"string"},`), x, true},
		"two fields of one name":                {record(named, `{"name":"a","type":"null"},{"name":"a","type":"string"},`), x, true},
		"a scale above the precision":           {record(named, `{"name":"d","type":{"type":"bytes","logicalType":"decimal","precision":2,"scale":4}},`), x, true},
		"a decimal without a precision":         {record(named, `{"name":"d","type":{"type":"bytes","logicalType":"decimal"}},`), x, true},
		"a precision that is text":              {record(named, `{"name":"d","type":{"type":"bytes","logicalType":"decimal","precision":"9"}},`), x, true},
		"a decimal too wide for its fixed":      {record(named, `{"name":"d","type":{"type":"fixed","name":"f","size":2,"logicalType":"decimal","precision":30}},`), x, true},
		"a default of another type":             {record(named, `{"name":"s","type":"string","default":0},`), x, true},
		"a null that is not the first branch":   {record(named, `{"name":"s","type":["string","null"],"default":null},`), "\x00" + x, false},
		"a default that is no symbol":           {record(named, `{"name":"e","type":{"type":"enum","name":"e","symbols":["A"],"default":"B"}},`), "\x00\x0a", true},
		"symbols that are no names":             {record(named, `{"name":"e","type":{"type":"enum","name":"e","symbols":["a-b","","a-b"]}},`), "\x02\x0a", true},
		"an order that does not exist":          {record(named, `{"name":"s","type":"string","order":"up"},`), x, true},
		"a doc and aliases that are no text":    {record(`"name":"r","doc":1,"aliases":"q"`, `{"name":"s","type":"string","doc":[],"aliases":[1]},`), x, true},
		"an alias of two":                       {record(named, `{"name":"s","type":"string","aliases":["meta"]},`), x, true},
		"a union of two that are alike":         {record(named, `{"name":"s","type":["string","string"]},`), "\x02" + x, true},
		"a union in a union":                    {record(named, `{"name":"s","type":["null",["null","string"]]},`), "\x02\x02" + x, true},
		"a type inside a type":                  {record(named, `{"name":"s","type":{"type":{"type":"string"}}},`), x, true},
		"a type written beside its field":       {record(named, `{"name":"s","type":"array","items":"string"},`), "\x00\x0a", false},
		"a type that is used before it is told": {record(named, `{"name":"a","type":["null","F"]},{"name":"b","type":{"type":"fixed","name":"F","size":1}},`), "\x00y\x0a", false},
		"a type that is told twice, alike": {record(named, `{"name":"a","type":{"type":"fixed","name":"F","size":1}},
			{"name":"b","type":{"type":"fixed","name":"F","size":1}},`), "yz\x0a", true},
		"a type that is in no namespace": {`{"type":"record","name":"r","namespace":"n","fields":[{"name":"f","type":{"type":"fixed","name":"F","namespace":"","size":1}},
			{"name":"g","type":"F"},{"name":"meta","type":{"type":"map","values":` + micros + `}}]}`, "yz\x02\x14created-at\x0a\x00", false},
		"a point for no namespace": {`{"type":"record","name":"r","namespace":"n","fields":[{"name":"f","type":{"type":"fixed","name":".F","size":1}},
			{"name":"g","type":"F"},{"name":"h","type":".F"},{"name":"meta","type":{"type":"map","values":` + micros + `}}]}`, "yzw\x02\x14created-at\x0a\x00", true},
		"a type called as a simple one": {record(`"name":"r","namespace":"n"`, `{"name":"f","type":{"type":"fixed","name":"long","size":2}},{"name":"g","type":"n.long"},{"name":"h","type":"long"},`), "abcd\x02\x0a", false},
		"an error":                      {strings.Replace(record(named, ""), "record", "error", 1), "\x0a", false},
		"a logical type nobody knows":   {record(named, `{"name":"s","type":{"type":"string","logicalType":7}},`), x, false},
		"a size that is text":           {record(named, `{"name":"s","type":{"type":"fixed","name":"F","size":"1"}},`), "x\x0a", false},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := avro.Parse(strings.ReplaceAll(tt.schema, "created-at", "created_at")); (err != nil) != tt.refused {
				t.Errorf("the library says %v", err)
			}
			expect(t, onShelf(t, "avro:meta.created-at", avroSchema(tt.schema)), framed(1, nil, []byte(tt.value)), "5000")
		})
	}
	for why, schema := range map[string]string{
		`the type "q" is not defined`:    `{"type":"record","name":"r","fields":[{"name":"ts","type":"q"}]}`,
		`"n.f" is defined twice`:         `[{"type":"fixed","name":"n.f","size":1},{"type":"fixed","name":"f","namespace":"n","size":2}]`,
		"it is not JSON":                 `{"type":"record"`,
		"something follows it":           `"long" "long"`,
		"an object has no type":          `{}`,
		"a record has no name":           `{"type":"record","fields":[]}`,
		"a record has no fields":         `{"type":"record","name":"r"}`,
		"a field has no name":            `{"type":"record","name":"r","fields":[1]}`,
		"a type is neither a name nor":   `{"type":"record","name":"r","fields":[{"name":"ts"}]}`,
		"a fixed has no size":            `{"type":"fixed","name":"f","size":-1}`,
		"schema: a fixed has no size":    `{"type":"fixed","name":"f","size":1.5}`,
		"a type is neither a name nor a": `{"type":"array"}`,
	} {
		expect(t, onShelf(t, "avro:ts", avroSchema(schema)), framed(1, nil, []byte{10}), why)
	}
}

func TestAvroComments(t *testing.T) {
	const schema = `// (c) "us" { /* and you */
		{ "type": "record", /* { " */ "name": "r", "fields": [ // ]
			{"name": "//", "type": "string", "doc": "a \" // /* b"}, /**/ {"name": "ts", "type": "long"} // the end`
	expect(t, onShelf(t, "avro:ts", avroSchema(schema+"\n]} /* open")), framed(1, nil, []byte{2, 'x', 10}), "5000000")
	expect(t, onShelf(t, "avro:ts", avroSchema(schema)), framed(1, nil, []byte{2, 'x', 10}), "is not JSON")
	for text, want := range map[string]string{
		schema + "\n]}": "AVRO", `["null"]`: "AVRO", `"long"`: "AVRO", `{"type":"enum"}`: "AVRO", "": "PROTOBUF",
		`{"type":"object"}`: "JSON", `{"$schema":"x"}`: "JSON", "// x\nsyntax = \"proto3\";": "PROTOBUF",
	} {
		if got := TypeOf(text); got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
}

// Readers ignore a logical type that does not fit the type that it is on, as the
// specification says: then FORMAT says what is in it.
func TestAvroLogicalTypesThatDoNotFit(t *testing.T) {
	for kind, want := range map[string]string{
		`{"type":"int","logicalType":"timestamp-millis"}`:        "5000000000",
		`{"type":"int","logicalType":"timestamp-micros"}`:        "5000000000",
		`{"type":"int","logicalType":"local-timestamp-micros"}`:  "5000000000",
		`{"type":"long","logicalType":"date"}`:                   "5000000000",
		`{"type":"long","logicalType":"time-millis"}`:            "5000000000",
		`{"type":"int","logicalType":"time-micros"}`:             "5000000000",
		`{"type":"long","logicalType":"decimal","precision":20}`: "5000000000",
		`{"type":"long","logicalType":["timestamp-micros"]}`:     "5000000000",
		`{"type":"long","logicalType":"time-micros"}`:            "which is no point in time",
		`{"type":"int","logicalType":"date"}`:                    "which is no point in time",
	} {
		e := onShelf(t, "avro:ts:unix-s", avroSchema(`{"type":"record","name":"r","fields":[{"name":"ts","type":`+kind+`}]}`))
		t.Run(kind, func(t *testing.T) { expect(t, e, framed(1, nil, []byte{10}), want) })
	}
}
