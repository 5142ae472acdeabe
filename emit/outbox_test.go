package emit

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/reorder"
)

// A record that is too large loses our headers one by one, the least needed
// first, and none of its own.
func TestShed(t *testing.T) {
	in := &kgo.Record{Headers: []kgo.RecordHeader{
		{Key: "own", Value: []byte("7")}, {Key: "tidemark-"}, {Key: "own"},
	}}
	body := make([]byte, BodySize(in))
	PutBody(body, in)
	o := NewOutbox(Headers{Prefix: "tidemark-", Watermark: true, SourceOffset: true, EventTime: true, Windows: windowsOf(t, "tumbling:1m,sliding:1s")})
	for _, test := range []struct {
		made func() *kgo.Record
		left []string
	}{
		{
			func() *kgo.Record { return o.Ordered(Source{}, &reorder.Release{Body: body, Epoch: 3}) },
			[]string{
				"watermark source-offset event-time epoch window-tumbling:1m window-sliding:1s",
				"watermark source-offset event-time epoch", "watermark source-offset epoch", "source-offset epoch", "epoch", "",
			},
		},
		{
			func() *kgo.Record { return o.Late(Source{}, in, Lateness{Verdict: reorder.Future, Epoch: 3}) },
			[]string{
				"late-reason watermark source-topic source-partition source-offset late-at epoch window-tumbling:1m window-sliding:1s",
				"late-reason watermark source-topic source-partition source-offset late-at epoch", "epoch", "",
			},
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

// A source header that imitates ours must not become the one that counts.
func TestShedUncoversNoImitation(t *testing.T) {
	o := NewOutbox(Headers{Prefix: "tidemark-", Watermark: true, SourceOffset: true})
	in := &kgo.Record{Value: []byte("v"), Headers: []kgo.RecordHeader{
		{Key: "tidemark-watermark", Value: []byte("9999999999999")}, {Key: "tidemark-epoch", Value: []byte("77")},
	}}
	body := make([]byte, BodySize(in))
	PutBody(body, in)
	r := o.Ordered(Source{Ordered: "x"}, &reorder.Release{Body: body, Watermark: 5})
	for o.Shed(r) {
		last := ""
		for _, h := range r.Headers {
			if h.Key == "tidemark-watermark" {
				last = string(h.Value)
			}
		}
		if last == "9999999999999" {
			epoch, _ := Epoch(r, "tidemark-")
			t.Fatalf("the watermark that counts is the source's: %s; epoch %d", last, epoch)
		}
	}
}

// A record says its epoch as long as there is room for one of our headers.
func TestEpochIsSaid(t *testing.T) {
	header := func(names ...string) *kgo.Record {
		r := new(kgo.Record)
		for _, name := range names {
			key, value, _ := strings.Cut(name, "=")
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
		}
		return r
	}
	for _, c := range []struct {
		r     *kgo.Record
		epoch uint32
		said  bool
	}{
		{header(), 0, false},
		{header("a=b", "epoch=4", "other-epoch=4"), 0, false},
		{header("tidemark-watermark=1"), 0, true},
		{header("a=b", "tidemark-source-offset=1"), 0, true},
		{header("tidemark-event-time=1"), 0, true},
		{header("tidemark-late-reason=future"), 0, true},
		{header("tidemark-epoch=7"), 7, true},
		{header("tidemark-epoch=7", "tidemark-watermark=1"), 7, true},
		{header("tidemark-epoch=9", "tidemark-watermark=1", "tidemark-epoch=7"), 7, true},
		{header("tidemark-epoch=99999999999"), 0, false},
	} {
		if epoch, said := Epoch(c.r, "tidemark-"); epoch != c.epoch || said != c.said {
			t.Errorf("%s: epoch %d, said %v", c.r.Headers, epoch, said)
		}
	}
}
