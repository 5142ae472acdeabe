package emit

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit/window"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

func windowsOf(t testing.TB, text string) window.Set {
	t.Helper()
	set, err := window.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func bodyOf(r *kgo.Record) []byte {
	body := make([]byte, BodySize(r))
	PutBody(body, r)
	return body
}

func released(body []byte, ms int64) *reorder.Release {
	return &reorder.Release{Body: body, Position: reorder.Position{Time: watermark.Time(ms * int64(time.Millisecond))}}
}

func headersFrom(r *kgo.Record, n int) (lines []string) {
	for _, h := range r.Headers[n:] {
		lines = append(lines, fmt.Sprintf("%s=%s", h.Key, h.Value))
	}
	return lines
}

// Headers of windows come last, one for each family, whatever record was made
// before: also where an earlier time comes after a later one.
func TestWindowHeaders(t *testing.T) {
	o := NewOutbox(Headers{Prefix: "t-", SourceOffset: true, Windows: windowsOf(t, "tumbling:1s,hopping:2s/1s,sliding:500ms")})
	body := bodyOf(&kgo.Record{})
	for round := range 3 {
		for _, c := range []struct {
			ms   int64
			want []string
		}{
			{1500, []string{"t-window-tumbling:1s=1000,2000", "t-window-hopping:2s/1s=0,2000 1000,3000", "t-window-sliding:500ms=1000,1501"}},
			{1999, []string{"t-window-tumbling:1s=1000,2000", "t-window-hopping:2s/1s=0,2000 1000,3000", "t-window-sliding:500ms=1499,2000"}},
			{2000, []string{"t-window-tumbling:1s=2000,3000", "t-window-hopping:2s/1s=1000,3000 2000,4000", "t-window-sliding:500ms=1500,2001"}},
			{-1, []string{"t-window-tumbling:1s=-1000,0", "t-window-hopping:2s/1s=-2000,0 -1000,1000", "t-window-sliding:500ms=-501,0"}},
		} {
			if got := headersFrom(o.Ordered(Source{}, released(body, c.ms)), 1); !slices.Equal(got, c.want) {
				t.Errorf("round %d: ordered at %d: %q, want %q", round, c.ms, got, c.want)
			}
			for _, verdict := range []reorder.Verdict{reorder.BehindWatermark, reorder.Overflow, reorder.Future} {
				r := o.Late(Source{}, &kgo.Record{}, Lateness{Verdict: verdict, Time: watermark.Time(c.ms * 1e6), Watermark: watermark.None})
				if got := headersFrom(r, len(r.Headers)-3); !slices.Equal(got, c.want) {
					t.Errorf("round %d: late at %d: %q, want %q", round, c.ms, got, c.want)
				}
			}
		}
		r := o.Late(Source{}, &kgo.Record{}, Lateness{Verdict: reorder.InvalidTime, Watermark: watermark.None})
		if last := r.Headers[len(r.Headers)-1].Key; last != "t-late-at" {
			t.Errorf("a record without an event time has %s", last)
		}
		o.Reset()
	}
}

// What was handed out stays as it is until Reset, and nothing of it is used after
// that: a round begins with the windows that the one before has ended with.
func TestWindowHeadersStay(t *testing.T) {
	windows := windowsOf(t, "hopping:64ms/1ms")
	o := NewOutbox(Headers{Prefix: "t-", Windows: windows})
	body := bodyOf(&kgo.Record{})
	for round := range int64(3) {
		var made []*kgo.Record
		for n := range int64(1000) {
			made = append(made, o.Ordered(Source{}, released(body, round*499+n/2)))
		}
		for n, r := range made {
			rel := released(body, round*499+int64(n)/2)
			in, _ := windows[0].Append(nil, rel.Time)
			if got := string(r.Headers[0].Value); got != string(AppendWindows(nil, in)) {
				t.Fatalf("round %d: record %d has %s", round, n, got)
			}
		}
		o.Reset()
	}
}

// TestWindowsMakeNoGarbage: in the steady state nothing is allocated.
func TestWindowsMakeNoGarbage(t *testing.T) {
	o := NewOutbox(Headers{
		Prefix: "tidemark-", Watermark: true, SourceOffset: true,
		Windows: windowsOf(t, "tumbling:1m,hopping:5m/1m,sliding:30s,tumbling:1d@Europe/Berlin"),
	})
	body, ms := bodyOf(&kgo.Record{Value: make([]byte, 200)}), int64(1_763_700_000_000)
	flight := func() {
		for range 1024 {
			o.Ordered(Source{}, released(body, ms))
			ms += 100
		}
		o.Reset()
	}
	for range 10 {
		flight()
	}
	if n := testing.AllocsPerRun(100, flight); n > 0 {
		t.Errorf("%g allocations for 1024 records", n)
	}
}

func BenchmarkOrdered(b *testing.B) {
	for _, text := range []string{"off", "tumbling:1m", "tumbling:1m,hopping:5m/1m,sliding:30s"} {
		b.Run(text, func(b *testing.B) {
			h := Headers{Prefix: "tidemark-", Watermark: true, SourceOffset: true}
			if text != "off" {
				h.Windows = windowsOf(b, text)
			}
			o, body, n := NewOutbox(h), bodyOf(&kgo.Record{Value: make([]byte, 200)}), int64(0)
			rel := released(body, 0)
			b.ReportAllocs()
			for b.Loop() {
				rel.Time += 100_000
				o.Ordered(Source{}, rel)
				if n++; n%1024 == 0 {
					o.Reset()
				}
			}
		})
	}
}

// TestRoomIsEnough: what an output is given for windows is what they take.
func TestRoomIsEnough(t *testing.T) {
	for _, text := range []string{"tumbling:1m", "hopping:64ms/1ms", "tumbling:36500d,sliding:36500d,hopping:7d/1d-1h@Asia/Tokyo"} {
		h := Headers{Prefix: "tidemark-", Windows: windowsOf(t, text)}
		body := bodyOf(&kgo.Record{})
		bare := WireSize(NewOutbox(Headers{}).Ordered(Source{}, released(body, 0)))
		for _, at := range []watermark.Time{watermark.None, -1, watermark.Max} {
			rel := released(body, 0)
			rel.Time = at
			if took := WireSize(NewOutbox(h).Ordered(Source{}, rel)) - bare; took > h.Room() {
				t.Errorf("%s at %d takes %d bytes, more than %d", text, at, took, h.Room())
			}
		}
	}
}

// A source header that imitates ours must not become the one that counts, and is
// no header of ours where windows are off.
func TestWindowImitation(t *testing.T) {
	in := &kgo.Record{Headers: []kgo.RecordHeader{{Key: "tidemark-window-tumbling:1s", Value: []byte("7,8")}}}
	for _, on := range []bool{false, true} {
		h := Headers{Prefix: "tidemark-", SourceOffset: true, Watermark: true}
		if on {
			h.Windows = windowsOf(t, "hopping:1s/1s,tumbling:2s")
			h.Windows = append(h.Windows, windowsOf(t, "tumbling:1s")...)
		}
		o := NewOutbox(h)
		r := o.Ordered(Source{}, released(bodyOf(in), 1500))
		for o.Shed(r) {
		}
		last := r.Headers[len(r.Headers)-1]
		if want := map[bool]string{false: "7,8", true: "1000,2000"}[on]; string(last.Value) != want || last.Key != in.Headers[0].Key {
			t.Errorf("on=%v: the last header is %s=%s", on, last.Key, last.Value)
		}
		if r.Headers[0].Key != in.Headers[0].Key || string(r.Headers[0].Value) != "7,8" {
			t.Errorf("on=%v: the source's header has become %s=%s", on, r.Headers[0].Key, r.Headers[0].Value)
		}
	}
}
