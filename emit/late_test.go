package emit

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/tidemarkhq/tidemark/emit/window"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// What the outbox made of a record is read back, whatever headers the record had,
// and its correction has one header more.
func TestLateReader(t *testing.T) {
	windows, err := window.Parse("tumbling:1m")
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.SampledFrom([][]byte{nil, {}, []byte("7"), []byte("x")})
		name := rapid.SampledFrom([]string{
			"", "event-time", "tidemark-late-reason", "tidemark-late-at", "tidemark-source-offset",
			"tidemark-watermark", "tidemark-epoch", "tidemark-late-timestamp", "tidemark-window-tumbling:1m",
		})
		in := &kgo.Record{
			Partition: 3, Offset: rapid.Int64Range(0, 1<<40).Draw(t, "offset"),
			Key: value.Draw(t, "key"), Value: value.Draw(t, "value"), Timestamp: time.UnixMilli(rapid.Int64Range(-1, 1<<40).Draw(t, "ms")),
		}
		for range rapid.IntRange(0, 6).Draw(t, "headers") {
			in.Headers = append(in.Headers, kgo.RecordHeader{Key: name.Draw(t, "name"), Value: value.Draw(t, "header")})
		}
		why := Lateness{
			Verdict: rapid.SampledFrom([]reorder.Verdict{reorder.BehindWatermark, reorder.Overflow, reorder.Future, reorder.InvalidTime}).Draw(t, "why"),
			Time:    watermark.Time(5e15), Watermark: watermark.Time(6e15), AtMs: 1 + rapid.Int64Range(0, 1<<41).Draw(t, "at"),
			Epoch: rapid.Uint32Range(0, 2).Draw(t, "epoch"),
		}
		late := NewOutbox(Headers{Prefix: "tidemark-", Windows: windows}).Late(Source{Topic: "raw", Late: "raw.late", Partition: 3}, in, why)
		late.Offset = 99
		reader := NewLateReader("tidemark-")
		got, err := reader.Read(late)
		if err != nil || got.Corrected || got.Reason != Reason(why.Verdict) || got.AtMs != why.AtMs || got.SourceOffset != in.Offset || got.Epoch != int64(why.Epoch) {
			t.Fatalf("%+v, %v", got, err)
		}
		if !same(got.Source.Headers, in.Headers) {
			t.Fatalf("headers of the source are %v, want %v", got.Source.Headers, in.Headers)
		}
		c := reader.Correction(late, "raw.corrections")
		if c.Topic != "raw.corrections" || c.Partition != 3 || !c.Timestamp.Equal(late.Timestamp) ||
			fmt.Sprintf("%#v %#v", c.Key, c.Value) != fmt.Sprintf("%#v %#v", late.Key, late.Value) {
			t.Fatalf("%+v", c)
		}
		last := len(late.Headers)
		if !same(c.Headers[:last], late.Headers) || !same(c.Headers[last:], []kgo.RecordHeader{{Key: "tidemark-correction", Value: []byte("true")}}) {
			t.Fatalf("headers of the correction: %v", c.Headers)
		}
		for _, r := range []*kgo.Record{late} { // it must not live on in the correction
			for i := range r.Value {
				r.Value[i] = 0
			}
		}
		if len(c.Value) > 0 && c.Value[0] == 0 {
			t.Fatal("the correction keeps the bytes of the late record")
		}
		if again, _ := reader.Read(c); !again.Corrected {
			t.Fatal("a correction is not known again")
		}
	})
}

func same(a, b []kgo.RecordHeader) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Key != b[i].Key || fmt.Sprintf("%#v", a[i].Value) != fmt.Sprintf("%#v", b[i].Value) {
			return false
		}
	}
	return true
}

// A record that does not say what it is, is told from others.
func TestLateReaderRefuses(t *testing.T) {
	at := kgo.RecordHeader{Key: "tidemark-late-at", Value: []byte("1")}
	reason := kgo.RecordHeader{Key: "tidemark-late-reason", Value: []byte("future")}
	offset := kgo.RecordHeader{Key: "tidemark-source-offset", Value: []byte("0")}
	with := func(h kgo.RecordHeader, value string) kgo.RecordHeader { h.Value = []byte(value); return h }
	for _, headers := range [][]kgo.RecordHeader{
		{},
		{reason, at},
		{offset, at},
		{reason, offset},
		{reason, with(offset, "-1"), at},
		{reason, with(offset, "x"), at},
		{reason, offset, with(at, "0")},
		{reason, offset, with(at, "")},
		{reason, offset, with(at, "99999999999999999999")},
		{at, reason, offset}, // not in our order: the source's
	} {
		if got, err := NewLateReader("tidemark-").Read(&kgo.Record{Headers: headers}); !errors.Is(err, ErrNotRouted) {
			t.Errorf("%v: %+v, %v", headers, got, err)
		}
	}
	if _, err := NewLateReader("tidemark-").Read(&kgo.Record{Headers: []kgo.RecordHeader{reason, offset, at}}); err != nil {
		t.Error(err)
	}
}

// A timestamp that cannot be written stands in a header, whatever headers the source has.
func TestLateTimestamp(t *testing.T) {
	const micros = 1_796_043_758_084_000
	in := &kgo.Record{Headers: []kgo.RecordHeader{{Key: "tidemark-late-timestamp", Value: []byte("7")}}}
	ns := int64(micros)
	ns *= 1e6 // as the client does
	in.Timestamp = time.Unix(0, ns)
	late := NewOutbox(Headers{Prefix: "tidemark-"}).Late(Source{Topic: "raw", Late: "raw.late"}, in, Lateness{Verdict: reorder.InvalidTime, Watermark: watermark.None, AtMs: 5})
	if late.Timestamp.UnixMilli() != -1 {
		t.Errorf("its timestamp is %d", late.Timestamp.UnixMilli())
	}
	got, err := NewLateReader("tidemark-").Read(late)
	if err != nil || got.Source.Timestamp.UnixMilli() != micros || !same(got.Source.Headers, in.Headers) {
		t.Errorf("%+v, %v", got, err)
	}
}
