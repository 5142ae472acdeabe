package timestamp

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/watermark"
)

func mustParse(t testing.TB, spec string) *Extractor {
	t.Helper()
	e, err := Parse(spec)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// record returns a record as the client would: headers are name, value pairs.
func record(ms int64, headers ...string) *kgo.Record {
	r := &kgo.Record{Timestamp: time.Unix(0, ms*1e6)} // the client's own arithmetic, overflow included
	for i := 0; i < len(headers); i += 2 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: headers[i], Value: []byte(headers[i+1])})
	}
	return r
}

func TestExtract(t *testing.T) {
	tests := []struct {
		name   string
		spec   string
		record *kgo.Record
		wantMs int64
		err    string // instead of wantMs: what the error must say
	}{
		{"header before timestamp", "header:a,timestamp", record(7, "a", "5"), 5, ""},
		{"timestamp before header", "timestamp,header:a", record(7, "a", "5"), 7, ""},
		{"absent header gives way", "header:a,header:b,timestamp", record(7, "b", "5"), 5, ""},
		{"all headers absent", "header:a,timestamp", record(7, "A", "5"), 7, ""},
		{"last of repeated headers", "header:a", record(7, "a", "1", "a", "2", "b", "3"), 2, ""},
		{"last one unusable", "header:a,timestamp", record(7, "a", "1", "a", "x"), 0, `header "a" with "x" is neither`},
		{"empty header does not give way", "header:a,timestamp", record(7, "a", ""), 0, `header "a" with "" is empty`},
		{"unusable header does not give way", "header:a,header:b,timestamp", record(7, "a", "soon", "b", "5"), 0, `with "soon" is neither`},
		{"header before 1970", "header:a", record(7, "a", "-5"), -5, ""},
		{"nothing present", "header:a", record(7), 0, "none of header:a:unix-ms"},
		{"timestamp zero", "timestamp", record(0), 0, ""},
		{"negative timestamp", "timestamp,header:a", record(-2, "a", "5"), 0, "negative (-2 ms)"},
		{"kafka's none gives way", "timestamp,header:a", record(-1, "a", "5"), 5, ""},
		{"kafka's none and nothing else", "header:a,timestamp", record(-1), 0, "none of header:a:unix-ms,timestamp"},
		{"record of before kafka 0.10", "timestamp", &kgo.Record{}, 0, "none of timestamp"},
		{"last timestamp inside", "timestamp", record(9223372036854), 9223372036854, ""},
		{"first timestamp outside", "timestamp", record(9223372036855), 0, "outside the years"},
		{"microseconds for milliseconds", "timestamp", record(1700000000123456), 0, "outside the years"},
		{"nanoseconds for milliseconds", "timestamp", record(1700000000123456789), 0, "outside the years"},
		{"outside, not by the client's arithmetic", "timestamp", &kgo.Record{Timestamp: time.UnixMilli(9223372036855)}, 0, "outside the years"},
		{"long value", "header:a", record(7, "a", strings.Repeat("x", 41)), 0, `with "` + strings.Repeat("x", 40) + `"... is`},
		{"value that upsets terminals", "header:a:unix-s", record(7, "a", "\x1b[2J"), 0, `with "\x1b[2J" is not a decimal number (read as unix-s)`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := mustParse(t, tt.spec).Extract(tt.record)
			if tt.err == "" {
				if err != nil || got.Millis() != tt.wantMs {
					t.Fatalf("%d, %v, want %d", got.Millis(), err, tt.wantMs)
				}
				return
			}
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
			if got != watermark.None {
				t.Fatalf("%d beside an error", got)
			}
		})
	}
}

// A timestamp that the client wrapped must never pass for an event time.
func TestWrappedTimestampsAreRefused(t *testing.T) {
	e := mustParse(t, "timestamp")
	for ms := int64(9223372036855); ms < 1e17; ms = ms*5/4 + 1 {
		for _, ms := range []int64{ms, -ms} {
			if got, err := e.Extract(record(ms)); err == nil {
				t.Fatalf("%d ms passed for %d ms", ms, got.Millis())
			}
		}
	}
}

func TestParse(t *testing.T) {
	tests := []struct{ spec, want, err string }{
		{"timestamp", "timestamp", ""},
		{"header:event-time,timestamp", "header:event-time:unix-ms,timestamp", ""},
		{" header:x:unix-s , timestamp ", "header:x:unix-s,timestamp", ""},
		{"header:a:b", "header:a:b:unix-ms", ""},
		{"header:a:b:rfc3339", "header:a:b:rfc3339", ""},
		{"header:unix-ms", "header:unix-ms:unix-ms", ""},
		{"header:a:unix-ms:unix-ms", "header:a:unix-ms:unix-ms", ""},
		{"header:a:unixms:int64-be", "header:a:unixms:int64-be", ""},
		{"header:timestamp", "header:timestamp:unix-ms", ""},
		{"", "", "a source in the list is empty"},
		{"timestamp,", "", "a source in the list is empty"},
		{"header:", "", "name of the header is missing"},
		{"header", "", "name of the header is missing"},
		{"header::unix-ms", "", "name of the header is missing"},
		{"header:a:unixms", "", `"unixms" is not a format; unix-ms is`},
		{"header:a:RFC3339", "", `"RFC3339" is not a format; rfc3339 is`},
		{"timestamp:unix-ms", "", `"timestamp:unix-ms" is not a source`},
		{"json:meta.time", "json:meta.time:unix-ms", ""},
		{"json:@timestamp:rfc3339", "json:@timestamp:rfc3339", ""},
		{`json:a\.b:c:unix-s`, `json:a\.b:c:unix-s`, ""},
		{"json:ts.$date", "json:ts.$date:unix-ms", ""},
		{"json:", "", "name of the field is missing"},
		{"json:a..b", "", "a name in the path is empty"},
		{"json:a.", "", "a name in the path is empty"},
		{"json:$.a", "", `leave out the "$."`},
		{"json:a.*", "", `'*' has no meaning in a path`},
		{"json:a[0].b", "", `places in arrays are numbers like items.0.time`},
		{"json:a|@reverse", "", `'|' has no meaning in a path`},
		{`json:a\`, "", `'\\' has no meaning in a path`},
		{"json:" + strings.Repeat("a.", 32) + "a", "", "a path may have 32 names"},
		{"json:a:int64-be", "", "JSON has no int64-be"},
		{"json:a:unixms", "", `"unixms" is not a format; unix-ms is (a field that is really called "a:unixms"`},
		{"json:a,json:a:unix-s", "", "json:a:unix-s is never reached"},
		{"avro:meta.ts,protobuf:ts:unix-us,timestamp", "avro:meta.ts,protobuf:ts:unix-us,timestamp", ""},
		{"avro:", "", "name of the field is missing"},
		{"protobuf:a..b", "", "a name in the path is empty"},
		{"avro:a,avro:a:unix-s", "", "avro:a:unix-s is never reached, because avro:a comes before it"},
		{"jsn:a", "", `"jsn:a" is not a source: known are header:NAME[:FORMAT], json:PATH`},
		{"timestamp,header:a,timestamp", "", "timestamp is never reached"},
		{"header:a,header:a:rfc3339", "", "header:a:rfc3339 is never reached, because header:a:unix-ms comes before it"},
	}
	for _, tt := range tests {
		e, err := Parse(tt.spec)
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: error %v, want %q", tt.spec, err, tt.err)
			}
		case err != nil:
			t.Errorf("%q: %v", tt.spec, err)
		case e.String() != tt.want:
			t.Errorf("%q = %q, want %q", tt.spec, e, tt.want)
		}
	}
}

func TestFingerprint(t *testing.T) {
	distinct := []string{
		"timestamp", "header:x", "header:x:rfc3339", "header:y", "header:x,timestamp", "timestamp,header:x", "header:x,header:y",
		"json:x", "json:x:unix-s", "avro:x", "avro:x:unix-ms", "protobuf:x",
	}
	seen := map[[4]byte]string{}
	for _, spec := range distinct {
		f := mustParse(t, spec).Fingerprint()
		if other, ok := seen[f]; ok {
			t.Errorf("%q and %q have the same fingerprint", spec, other)
		}
		seen[f] = spec
	}
	if mustParse(t, "header:x").Fingerprint() != mustParse(t, " header:x:unix-ms").Fingerprint() {
		t.Error("another spelling changed the fingerprint")
	}
	// It is in the commits of running groups: a change makes them refuse to
	// start. If that is meant, raise parserVersion and write it down here.
	if got, want := mustParse(t, "header:event-time,timestamp").Fingerprint(), [4]byte{0x34, 0xeb, 0x7d, 0x18}; got != want {
		t.Errorf("the default's fingerprint became %#v", got)
	}
}

func TestUses(t *testing.T) {
	for spec, want := range map[string][2]bool{
		"timestamp": {true, true}, "header:a,timestamp": {true, false}, "header:a": {false, false},
	} {
		e := mustParse(t, spec)
		if got := [2]bool{e.UsesTimestamp(), e.UsesOnlyTimestamp()}; got != want {
			t.Errorf("%s: uses, uses only = %v, want %v", spec, got, want)
		}
	}
}

func TestExtractDoesNotAllocate(t *testing.T) {
	for name, r := range map[string]*kgo.Record{
		"header:a":           record(7, "x", "1", "a", "1700000000123"),
		"header:a:unix-s":    record(7, "a", "-1700000000.123456789"),
		"header:a:unix-ns":   record(7, "a", "1700000000123456789"),
		"header:a:int64-be":  record(7, "a", be(1700000000123)),
		"header:a:rfc3339":   record(7, "a", "2023-11-14T22:13:20.123456789Z"),
		"header:a,timestamp": record(7, "x", "1"),
		"header:a:unix-ms":   record(7, "a", "2023-11-14T14:13:20-08:00"),
	} {
		e := mustParse(t, name)
		allocs := testing.AllocsPerRun(100, func() {
			if _, err := e.Extract(r); err != nil {
				t.Fatal(err)
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations a record", name, allocs)
		}
	}
}

func BenchmarkExtract(b *testing.B) {
	for _, bb := range []struct {
		name, spec string
		record     *kgo.Record
	}{
		{"unix-ms", "header:event-time,timestamp", record(7, "event-time", "1700000000123")},
		{"unix-s with fraction", "header:event-time:unix-s", record(7, "event-time", "1700000000.123456")},
		{"rfc3339", "header:event-time", record(7, "event-time", "2023-11-14T22:13:20.123Z")},
		{"rfc3339 with half an hour", "header:event-time", record(7, "event-time", "2023-11-15T03:43:20.123+05:30")},
		{"int64-be", "header:event-time:int64-be", record(7, "event-time", be(1700000000123))},
		{"timestamp", "header:event-time,timestamp", record(7)},
		{"invalid", "header:event-time", record(7, "event-time", "soon")},
	} {
		b.Run(bb.name, func(b *testing.B) {
			e := mustParse(b, bb.spec)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = e.Extract(bb.record)
			}
		})
	}
}

// FuzzParse: no text makes it panic, and what it takes means the same once it has been
// written out.
func FuzzParse(f *testing.F) {
	for _, spec := range []string{"header:event-time,timestamp", "json:a\\.b.0:unix-s", "avro:x:y:int64-be,protobuf:a.b", "header::,", "json:a.\xff", "timestamp,timestamp"} {
		f.Add(spec)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		e, err := Parse(spec)
		if err != nil {
			return
		}
		again, err := Parse(e.String())
		if err != nil || again.String() != e.String() || again.Fingerprint() != e.Fingerprint() {
			t.Errorf("%q is written out as %q, which is read as %v, %v", spec, e, again, err)
		}
	})
}
