package verify

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestVerifySaysWhatChanged, and shows nothing of it.
func TestVerifySaysWhatChanged(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(r *kgo.Record)
		want   string
	}{
		{"key", func(r *kgo.Record) { r.Key = []byte("hunter2") }, "key (7 bytes, was null)"},
		{"value", func(r *kgo.Record) { r.Value = []byte("hunter2") }, "value (7 bytes, was 1 byte)"},
		{"value of the same length", func(r *kgo.Record) { r.Value = []byte("x") }, "value (1 byte, was 1 byte)"},
		{"tombstone", func(r *kgo.Record) { r.Value = nil }, "value (null, was 1 byte)"},
		{"timestamp", func(r *kgo.Record) { r.Timestamp = time.UnixMilli(41) }, "timestamp (41 ms, was 40 ms)"},
		{"header", func(r *kgo.Record) { r.Headers[0].Value = []byte("hunter2") }, `header 0 "a" (7 bytes, was 0 bytes)`},
		{"its name", func(r *kgo.Record) { r.Headers[0].Key = "z" }, `header 0 is "z", was "a"`},
		{"missing", func(r *kgo.Record) { r.Headers = r.Headers[1:] }, `header 0 is "b", was "a"; header 1 "b" is missing`},
		{"one more", func(r *kgo.Record) {
			r.Headers = slices.Insert(r.Headers, 2, kgo.RecordHeader{Key: "c", Value: []byte("hunter2")})
		}, `header 2 "c" was not there`},
	} {
		c := newTestCluster(t, 1)
		h := sequence(10)
		own := []kgo.RecordHeader{{Key: "a", Value: []byte{}}, {Key: "b"}}
		h.raw[4].Headers = own
		r := *h.ordered[4]
		r.Headers = append(slices.Clone(own), r.Headers...)
		tt.change(&r)
		h.ordered[4] = &r
		c.load(h)
		reports, err := Run(t.Context(), c.cl, testOptions())
		if err != nil {
			t.Fatal(err)
		}
		f := reports[0].Faults[KindChanged]
		if f.Total != 1 || f.First[0].Why != "not as in the source: "+tt.want || strings.Contains(f.First[0].Why, "hunter2") {
			t.Errorf("%s: %+v", tt.name, reports[0].Faults)
		}
	}
}
