package timestamp

import (
	"slices"
	"strings"
	"testing"
)

func TestNear(t *testing.T) {
	const canary = "hunter2"
	for _, c := range []struct {
		name, spec, value string
		headers           []string
		want              string
		likely            bool
	}{
		{"a header in another case", "header:event-time,timestamp", "", []string{"Event-Time", "1"}, "header:Event-Time", true},
		{"a header with another dash", "header:event-time,timestamp", "", []string{"event_time", "1"}, "header:event_time", true},
		{"a header that is misspelt", "header:evnt-time,timestamp", "", []string{"x", "1", "event-time", "1"}, "header:event-time", true},
		{"with its format", "header:event-time:unix-s,timestamp", "", []string{"Event-Time", "1"}, "header:Event-Time:unix-s", true},
		{"nothing alike", "header:event-time,timestamp", "", []string{"trace-id", canary}, "", false},
		{"a usual header", "header:event-time,timestamp", "", []string{"ce_time", "x"}, "header:ce_time", false},
		{"a field that is misspelt", "json:createdAt,timestamp", `{"id":1,"created_at":1700000000123}`, nil, "json:created_at", true},
		{"an inner one", "json:meta.createdAt", `{"meta":{"created-at":1}}`, nil, "json:meta.created-at", true},
		{"one that is not inner", "json:meta.created_at", `{"created_at":1}`, nil, "json:created_at", true},
		{"a name with a point", "json:created_at", `{"created.at":1}`, nil, `json:created\.at`, true},
		{"a usual field", "header:event-time,timestamp", `{"created_at":1700000000123}`, nil, "json:created_at", false},
		{"in seconds", "header:event-time,timestamp", `{"created_at":1700000000}`, nil, "json:created_at:unix-s", false},
		{"in microseconds", "header:event-time,timestamp", `{"ts":1700000000123456}`, nil, "json:ts:unix-us", false},
		{"in nanoseconds", "header:event-time,timestamp", `{"ts":1700000000123456789}`, nil, "json:ts:unix-ns", false},
		{"misspelt, in seconds", "json:createdAt,timestamp", `{"created_at":1700000000}`, nil, "json:created_at:unix-s", true},
		{"misspelt, in microseconds", "json:createdAt,timestamp", `{"created_at":1700000000123456}`, nil, "json:created_at:unix-us", true},
		{"misspelt, without a zone", "json:createdAt,timestamp", `{"created_at":"2023-11-14T22:13:20"}`, nil, "json:created_at:local:UTC", true},
		{"misspelt, in the format that is configured", "json:createdAt:unix-s,timestamp", `{"created_at":1700000000.5}`, nil, "json:created_at:unix-s", true},
		{"misspelt, in another than the configured one", "json:createdAt:unix-us,timestamp", `{"created_at":1700000000}`, nil, "json:created_at:unix-s", true},
		{"a header in seconds", "header:event-time,timestamp", "", []string{"Event-Time", "1700000000"}, "header:Event-Time:unix-s", true},
		{"behind a schema's id", "header:event-time,timestamp", "\x00\x00\x00\x00\x01" + `{"ts":1700000000}`, nil, "json:ts:unix-s", false},
		{"what is asked next", "header:event-time,json:ts", `{"ts":1700000000123}`, nil, "", false},
		{"short names are not alike", "json:ts,timestamp", `{"id":1,"x":2}`, nil, "", false},
		{"names of people", "json:created_at", `{"anna@example.org":1,"` + canary + `":2}`, nil, "", false},
		{"no JSON", "json:created_at", canary, nil, "", false},
		{"nested too deeply", "json:created_at", strings.Repeat("[", 5000), nil, "", false},
		{"no value", "json:created_at", "", nil, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := record(1, c.headers...)
			if c.value != "" {
				r.Value = []byte(c.value)
			}
			e := mustParse(t, c.spec)
			got, likely := e.Near(0, r)
			if got != c.want || likely != c.likely {
				t.Errorf("%q, %v; want %q, %v", got, likely, c.want, c.likely)
			}
			if got != "" {
				mustParse(t, got)
			}
		})
	}
	if got := mustParse(t, "header:a:unix-ms,json:b:unix-s,timestamp").Instead(1, "json:c"); got != "header:a,json:c,timestamp" {
		t.Errorf("instead: %s", got)
	}
	if got, _ := mustParse(t, "header:a").Near(1, record(1, "a", "1")); got != "" {
		t.Errorf("of no source: %q", got)
	}
}

func TestWords(t *testing.T) {
	for spec, want := range map[string]string{
		"header:event-time,timestamp":        `header "event-time" (ms since 1970, or RFC 3339), else the record's own timestamp`,
		"json:a.b:unix-s":                    `field "a.b" of the JSON value (seconds since 1970)`,
		"header:a:rfc3339,json:t":            `header "a" (RFC 3339), else field "t" of the JSON value (ms since 1970, or RFC 3339)`,
		"avro:ts,protobuf:ts:unix-us":        `field "ts" of the Avro value (as its schema says, else ms since 1970, or RFC 3339), else field "ts" of the Protobuf value (as its schema says, else µs since 1970)`,
		"header:a:local:Europe/Paris":        `header "a" (RFC 3339, in Europe/Paris where it has no zone)`,
		"json:t,previous":                    `field "t" of the JSON value (ms since 1970, or RFC 3339), else that of the record before it, of its key if there is one`,
		"timestamp":                          "the record's own timestamp",
		"header:a:int64-be,header:b:unix-ns": `header "a" (8 bytes, ms since 1970), else header "b" (ns since 1970)`,
	} {
		if got := mustParse(t, spec).Words(); got != want {
			t.Errorf("%s: %s, want %s", spec, got, want)
		}
	}
	e := mustParse(t, "header:a:unix-s,timestamp")
	if got := e.Sources(); !slices.Equal(got, []string{"header:a", "timestamp", "none"}) {
		t.Errorf("sources are %q", got)
	}
	for source, r := range []struct{ headers []string }{{[]string{"a", "5"}}, {nil}} {
		if _, got, err := e.ExtractFrom(record(7, r.headers...)); got != source || err != nil {
			t.Errorf("source %d decided, want %d: %v", got, source, err)
		}
	}
	if _, got, err := e.ExtractFrom(record(-1)); got != 2 || err == nil {
		t.Errorf("source %d decided where there is none: %v", got, err)
	}
	if _, got, err := e.ExtractFrom(record(-1, "a", "x")); got != 0 || err == nil {
		t.Errorf("source %d decided, where the first is unusable: %v", got, err)
	}
}
