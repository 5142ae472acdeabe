package timestamp

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestCure: what to set is said for the list of sources as it stands, and nothing where it is
// not known.
func TestCure(t *testing.T) {
	wrapped := func(ms int64) *kgo.Record { return &kgo.Record{Timestamp: time.UnixMilli(ms)} }
	value := func(text string) *kgo.Record { return &kgo.Record{Value: []byte(text), Timestamp: time.UnixMilli(7)} }
	for _, c := range []struct {
		spec string
		r    *kgo.Record
		want string // the beginning
	}{
		{"header:a,timestamp", record(7, "a", "1763700000123456"), "if that is what producers write, stop, set TIDEMARK_EVENT_TIME=header:a:unix-us,timestamp, run `tidemark position new-epoch` (with `--all --from earliest` for all of it again), and start again (docs/starting-over.md)"},
		{"header:b,header:a:rfc3339", record(7, "a", "1763700000.5"), "if that is what producers write, stop, set TIDEMARK_EVENT_TIME=header:b,header:a:unix-s, run"},
		{"header:a", record(7, "a", be(1763700000123)), "if that is what producers write, stop, set TIDEMARK_EVENT_TIME=header:a:int64-be, run"},
		{"header:a:unix-s", record(7, "a", "2025-11-21T04:40:00Z"), "if that is what producers write, stop, set TIDEMARK_EVENT_TIME=header:a:rfc3339, run"},
		{"json:a", value(`{"a":"2025-11-21T04:40:00"}`), "stop, set TIDEMARK_EVENT_TIME=json:a:local:UTC, or the zone whose clock it is (local:Europe/Paris), run `tidemark position new-epoch` (with `--all --from earliest` for all of it again), and start again (docs/starting-over.md)"},
		{"header:a", record(7, "a", "soon"), ""},
		{"header:a", record(7, "a", `"2025-11-21T04:40:00Z`), ""},
		{"json:a", value(`{"a":`), ""},
		{"json:createdAt", value(`{"created_at":1}`), "if json:created_at, which this record has, is the event time, stop, set TIDEMARK_EVENT_TIME=json:created_at, run `tidemark position new-epoch` (with `--all --from earliest` for all of it again), and start again (docs/starting-over.md)"},
		{"header:x,json:createdAt", value(`{"created_at":1}`), "if json:created_at, which this record has, is the event time, stop, set TIDEMARK_EVENT_TIME=header:x,json:created_at, run"},
		{"json:a", value(`{"b":1}`), "check the name (capitals count)"},
		{"json:a,previous", value(`{"b":1}`), ""},
		{"timestamp", wrapped(1796043758084000), "have producers set the timestamps of records in milliseconds, not microseconds"},
		{"header:a", wrapped(9300000000000), "have producers set the timestamps of records in milliseconds"},
	} {
		e := mustParse(t, c.spec)
		_, source, err := e.ExtractFrom(c.r)
		if err == nil {
			t.Fatalf("%s: %s", c.spec, c.r.Value)
		}
		if got := e.Cure(source, c.r, err); !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s: %v: %q, want %q", c.spec, err, got, c.want)
		}
	}
	var h Header
	if err := h.UnmarshalText([]byte("mark")); err != nil {
		t.Fatal(err)
	}
	_, _, err := h.Time(record(7, "mark", "1763700000123456"))
	if got := h.Cure(err); got != "set TIDEMARK_WATERMARK_HEADER=mark:unix-us if that is what producers write" {
		t.Errorf("%v: %q", err, got)
	}
}
