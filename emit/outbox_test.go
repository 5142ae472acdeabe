package emit

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/reorder"
)

// A record that is too large loses our headers one by one, the least needed
// first, and never one of its own that looks like ours.
func TestShed(t *testing.T) {
	in := &kgo.Record{Headers: []kgo.RecordHeader{
		{Key: "tidemark-epoch", Value: []byte("7")}, {Key: "own"}, {Key: "tidemark-watermark"},
	}}
	body := make([]byte, BodySize(in))
	PutBody(body, in)
	o := NewOutbox(Headers{Prefix: "tidemark-", Watermark: true, SourceOffset: true, EventTime: true})
	for _, test := range []struct {
		made func() *kgo.Record
		left []string
	}{
		{
			func() *kgo.Record { return o.Ordered(Source{}, &reorder.Release{Body: body, Epoch: 3}) },
			[]string{"watermark source-offset event-time epoch", "watermark source-offset epoch", "source-offset epoch", "epoch", ""},
		},
		{
			func() *kgo.Record { return o.Late(Source{}, in, Lateness{Verdict: reorder.Future, Epoch: 3}) },
			[]string{"late-reason watermark source-topic source-partition source-offset late-at epoch", "epoch", ""},
		},
	} {
		r := test.made()
		for i, want := range test.left {
			if i > 0 && !o.Shed(r) {
				t.Errorf("nothing to take before %q", want)
			}
			var left []string
			for _, h := range r.Headers[len(in.Headers):] {
				left = append(left, strings.TrimPrefix(h.Key, "tidemark-"))
			}
			if got := strings.Join(left, " "); got != want {
				t.Errorf("left are %q, want %q", got, want)
			}
			for j, h := range in.Headers {
				if got := r.Headers[j]; got.Key != h.Key || string(got.Value) != string(h.Value) {
					t.Errorf("header %d of the source has become %s=%s", j, got.Key, got.Value)
				}
			}
		}
		if o.Shed(r) {
			t.Error("a header was taken that is not ours")
		}
	}
}
