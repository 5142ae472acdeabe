package timestamp

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

func TestJSON(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 2000) + "1" + strings.Repeat("}", 2000)
	tests := []struct {
		name, source, value string
		want                int64  // ns
		absent              bool   // gives way to the next source
		err                 string // instead: what the error must say
	}{
		{"a number is milliseconds", "json:ts", `{"ts":1700000000123}`, 1700000000123000000, false, ""},
		{"or RFC 3339", "json:ts", `{"ts":"2023-11-14T22:13:20.123456789Z"}`, 1700000000123456789, false, ""},
		{"or digits in a string", "json:ts", `{"ts":"1700000000123"}`, 1700000000123000000, false, ""},
		{"nested", "json:a.b.c", `{"a":{"x":1,"b":{"c":5}}}`, 5000000, false, ""},
		{"in an array", "json:a.1.t", `{"a":[{"t":1},{"t":2},{"t":3}]}`, 2000000, false, ""},
		{"an array is the value", "json:0", `[7]`, 7000000, false, ""},
		{"behind the end of an array", "json:a.3", `{"a":[1,2,3]}`, 0, true, ""},
		{"a member called like a number", "json:0", `{"0":7}`, 7000000, false, ""},
		{"a name with a point", `json:a\.b`, `{"a":{"b":1},"a.b":2}`, 2000000, false, ""},
		{"as Elastic has it", "json:@timestamp", `{"@timestamp":"2023-11-14T22:13:20Z"}`, 1700000000000000000, false, ""},
		{"as Mongo has it", "json:t.$date", `{"t":{"$date":7}}`, 7000000, false, ""},
		{"CloudEvents in structured mode", "json:time:rfc3339", `{"specversion":"1.0","type":"x","source":"y","id":"1","time":"2023-11-14T22:13:20Z","data":{}}`, 1700000000000000000, false, ""},
		{"space everywhere", "json:a.b", " {\n\t\"x\" : [ 1 , 2 ] , \"a\" : { \"b\" :\r 3 } } ", 3000000, false, ""},
		{"escapes in a name", "json:ts", `{"t\u0073":4}`, 4000000, false, ""},
		{"escapes in a value", "json:ts", `{"ts":"2023-11-14T22:13:20\u005a"}`, 1700000000000000000, false, ""},
		{"escapes before it", "json:ts", `{"\"ts\":1,\\":"\\\"","ts":4}`, 4000000, false, ""},
		{"the last of a name", "json:ts", `{"ts":1,"ts":2}`, 2000000, false, ""},
		{"the last on the way", "json:a.ts", `{"a":{"ts":1},"a":{"x":2}}`, 0, true, ""},
		{"seconds, exactly", "json:ts:unix-s", `{"ts":1763700000.123456789}`, 1763700000123456789, false, ""},
		{"more digits than nanoseconds have", "json:ts:unix-s", `{"ts":1763700000.1234567899999}`, 1763700000123456789, false, ""},
		{"nanoseconds, exactly", "json:ts:unix-ns", `{"ts":1763700000123456789}`, 1763700000123456789, false, ""},
		{"with an exponent", "json:ts", `{"ts":1.700000000123E12}`, 1700000000123000000, false, ""},
		{"with a negative one", "json:ts:unix-s", `{"ts":1763700000123456789e-9}`, 1763700000123456789, false, ""},
		{"before 1970, rounded down", "json:ts:unix-s", `{"ts":-5e-10}`, -1, false, ""},
		{"nothing, enormously", "json:ts", `{"ts":0e99999999999}`, 0, false, ""},
		{"behind a schema's id", "json:ts", "\x00\x00\x00\x00\x07" + `{"ts":5}`, 5000000, false, ""},

		{"no such member", "json:ts", `{"TS":1,"x":{"ts":1}}`, 0, true, ""},
		{"null", "json:ts", `{"ts":null}`, 0, true, ""},
		{"null on the way", "json:a.ts", `{"a":null}`, 0, true, ""},
		{"a string on the way", "json:a.ts", `{"a":"ts"}`, 0, true, ""},
		{"an empty object", "json:ts", `{}`, 0, true, ""},
		{"an empty array", "json:0", `[]`, 0, true, ""},
		{"no object at all", "json:ts", `17`, 0, true, ""},

		{"empty text", "json:ts", `{"ts":""}`, 0, false, `field ts is empty`},
		{"text that is no time", "json:ts", `{"ts":"soon"}`, 0, false, `is neither decimal milliseconds nor RFC 3339 (read as unix-ms)`},
		{"true", "json:ts", `{"ts":true}`, 0, false, "field ts is true or false, and neither a number nor text"},
		{"an object", "json:ts", `{"ts":{"seconds":1}}`, 0, false, "is an object, and neither a number nor text"},
		{"a number for text", "json:ts:rfc3339", `{"ts":17}`, 0, false, "with a number of 2 digits is not text (read as rfc3339)"},
		{"enormous", "json:ts", `{"ts":1e300}`, 0, false, "outside the years"},
		{"enormous, written out", "json:ts", `{"ts":` + strings.Repeat("9", 400) + `}`, 0, false, "outside the years"},
		{"microseconds for milliseconds", "json:ts", `{"ts":1700000000123456}`, 0, false, "outside the years"},
		{"an empty value", "json:ts", ``, 0, false, "the value (nothing) is not JSON (looked for ts)"},
		{"text", "json:ts", `hello`, 0, false, "the value (text of 5 bytes) is not JSON"},
		{"cut off", "json:ts", `{"ts":17000`, 0, false, "is not JSON"},
		{"cut off behind it", "json:ts", `{"ts":1700000000123,"x`, 0, false, "is not JSON"},
		{"two values", "json:ts", `{"ts":1}{"ts":2}`, 0, false, "is not JSON"},
		{"NaN", "json:ts", `{"ts":NaN}`, 0, false, "is not JSON"},
		{"nested too deeply", "json:ts", deep, 0, false, "nested more than 1000 times"},
		{"deep, but not in fact", "json:ts", `{"ts":6,"x":"` + strings.Repeat("[", 2000) + `"}`, 6000000, false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := record(99)
			r.Value = []byte(tt.value)
			got, err := mustParse(t, tt.source+",timestamp").Extract(r)
			switch {
			case tt.err != "":
				if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("%d, %v, want %q", got, err, tt.err)
				}
			case err != nil:
				t.Fatal(err)
			case tt.absent && got != 99e6, !tt.absent && int64(got) != tt.want:
				t.Fatalf("%d, want %d, absent %v", got, tt.want, tt.absent)
			}
		})
	}
}

func TestTombstonesHaveNoFields(t *testing.T) {
	if got, err := mustParse(t, "json:ts,timestamp").Extract(record(99)); err != nil || got != 99e6 {
		t.Error(got, err)
	}
}

// FuzzJSON compares with the standard library, which makes maps of everything.
func FuzzJSON(f *testing.F) {
	for _, v := range []string{`{"a":{"b":1}}`, `{"a":{"b":"x"},"a":{"b":2}}`, `{"a":[{"b":1e3}]}`, `{"a":null}`, `{"a":{"b":-0.5e-3,"\u0062":1}} `, `[[[`, `{"a":{"b":1}`, "\x00\x00\x00\x00\x01{}"} {
		f.Add([]byte(v))
	}
	field, err := parseJSON("", "a.b", unixSeconds)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		got, present, err := field.time(&kgo.Record{Value: value})
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Fatal(err)
		}
		value = behindID(value)
		if !json.Valid(value) || bytes.ContainsRune(value, '\ufffd') {
			// The library has the same opinion but for bytes that are not
			// UTF-8, which it lets pass.
			return
		}
		var tree any
		d := json.NewDecoder(bytes.NewReader(value))
		d.UseNumber()
		if err := d.Decode(&tree); err != nil {
			return
		}
		if hasTwice(value) {
			return // of objects of one name, the library makes one
		}
		outer, _ := tree.(map[string]any)
		inner, _ := outer["a"].(map[string]any)
		want, there := inner["b"]
		if there = there && want != nil; there != present {
			t.Fatalf("%q: present %v, %v", value, present, err)
		}
		if number, ok := want.(json.Number); ok && err == nil {
			exact, ok := new(big.Rat).SetString(number.String())
			if !ok {
				t.Skip()
			}
			exact.Mul(exact, big.NewRat(1e9, 1))
			ns := new(big.Int).Div(exact.Num(), exact.Denom())
			if !ns.IsInt64() || ns.Int64() != int64(got) {
				t.Fatalf("%q = %d, want %v", value, got, ns)
			}
		}
	})
}

// hasTwice reports whether an object has two members of one name, or names that
// only look different.
func hasTwice(value []byte) bool {
	return bytes.Count(value, []byte(`"a"`)) > 1 || bytes.Count(value, []byte(`"b"`)) > 1 || bytes.IndexByte(value, '\\') >= 0
}

// FuzzScientific compares with arithmetic that cannot overflow or round.
func FuzzScientific(f *testing.F) {
	for _, s := range []string{"1.7e12", "-5E-10", "0e9", "123456789012345678901234567890e-15", "1e18", "9223372036854775807e0", "9.223372036854775808e18", "1.5e0", "200e8"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		if !json.Valid(value) || bytes.ContainsAny(value, "\"[{tfn \t\r\n") {
			return
		}
		if i := bytes.IndexAny(value, "eE"); i < 0 || len(value)-i > 6 {
			return // big.Rat would write out an enormous exponent
		}
		exact, ok := new(big.Rat).SetString(string(value))
		if !ok {
			t.Fatalf("%q", value)
		}
		for format, unit := range map[format]int64{unixSeconds: 1e9, unixMillis: 1e6, unixMicros: 1e3, unixNanos: 1} {
			got, why := format.number(value)
			ns := new(big.Rat).Mul(exact, new(big.Rat).SetInt64(unit))
			want := new(big.Int).Div(ns.Num(), ns.Denom())
			inside := want.IsInt64() && want.Int64() != -1<<63
			if inside != (why == "") || inside && want.Int64() != int64(got) {
				t.Fatalf("%s %q = %d %s, want %v", format, value, got, why, want)
			}
		}
	})
}

// JSON is read behind the id of its schema, whichever registry has that.
func TestJSONBehindID(t *testing.T) {
	for name, head := range map[string]string{
		"none": "", "Confluent's": "\x00\x00\x00\x00\x07", "0": "\x00\x00\x00\x00\x00",
		"Apicurio's": "\x00\x00\x00\x00\x00\x00\x00\x00\x07", "AWS Glue's": "\x03\x00" + guid[1:],
	} {
		r := record(99)
		r.Value = []byte(head + `{"ts":5}`)
		t.Run(name, func(t *testing.T) { expect(t, mustParse(t, "json:ts"), r, "5000000") })
	}
	r := record(99)
	r.Value = []byte("\x03\x05" + guid[1:] + `{"ts":5}`)
	expect(t, mustParse(t, "json:ts"), r, "is not JSON")
}
