package repair

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

func TestParseReasons(t *testing.T) {
	for text, want := range map[string]string{
		"behind-watermark":               "[behind-watermark]",
		"overflow, future,overflow":      "[overflow future]",
		"invalid-time":                   "[invalid-time]",
		"":                               `"" is not a reason for being late; known: behind-watermark, overflow, future, invalid-time`,
		"behind-watermark,late":          `"late" is not a reason for being late; known: behind-watermark, overflow, future, invalid-time`,
		"behind-watermark,,invalid-time": `"" is not a reason for being late; known: behind-watermark, overflow, future, invalid-time`,
	} {
		reasons, err := ParseReasons(text)
		got := fmt.Sprint(reasons)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	if fmt.Sprint(Behind) != "[behind-watermark overflow]" {
		t.Error(Behind)
	}
}

// A share is in order, each record of the source once per epoch, the first of
// those that are there twice.
func TestShareIsSorted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &Share{}
		type key struct {
			at     int64
			source int64
			epoch  int64
		}
		first := map[key]*kgo.Record{}
		var keys []key
		n := rapid.IntRange(0, 30).Draw(t, "n")
		for i := range n {
			k := key{rapid.Int64Range(0, 3).Draw(t, "ms"), rapid.Int64Range(0, 3).Draw(t, "source"), rapid.Int64Range(0, 1).Draw(t, "epoch")}
			r := &kgo.Record{Offset: int64(i)}
			s.held = append(s.held, held{reorder.Position{Time: watermark.Time(k.at * 1e6), Offset: k.source}, k.epoch, int64(i), r})
			if first[k] == nil {
				first[k] = r
				keys = append(keys, k)
			}
		}
		slices.SortFunc(keys, func(a, b key) int {
			return int(100*(a.at-b.at) + 10*(a.source-b.source) + a.epoch - b.epoch)
		})
		s.sort()
		if len(s.Records) != len(keys) || s.counts.Corrections != int64(len(keys)) || s.counts.Repeated != int64(n-len(keys)) {
			t.Fatalf("%d records of %d, counted %+v", len(s.Records), len(keys), s.counts)
		}
		for i, k := range keys {
			if s.Records[i] != first[k] || s.From[i] != first[k].Offset {
				t.Fatalf("place %d has the record at %d, want that of %+v", i, s.Records[i].Offset, k)
			}
		}
		if n > 0 && (*s.counts.Oldest != keys[0].at || *s.counts.Newest != keys[len(keys)-1].at) {
			t.Fatalf("from %d to %d", *s.counts.Oldest, *s.counts.Newest)
		}
	})
}

// Only a record that has no event time is left for that. One of which it cannot be
// found out now ends the reading, and is there the next time.
func TestEventTimeUnknown(t *testing.T) {
	reason := kgo.RecordHeader{Key: "tidemark-late-reason", Value: []byte("overflow")}
	late := &kgo.Record{Topic: "raw.late", Partition: 3, Offset: 9, Headers: []kgo.RecordHeader{
		reason, {Key: "tidemark-source-offset", Value: []byte("1")}, {Key: "tidemark-late-at", Value: []byte("5")},
	}}
	later := errors.New("ask again later")
	for _, test := range []struct {
		err, want error
		noTime    int64
	}{
		{fmt.Errorf("noon: %w", timestamp.ErrInvalid), nil, 1},
		{later, later, 0},
	} {
		g := Reading{Rule: Rule{
			Prefix: "tidemark-", Reasons: Behind, TTL: time.Hour, Now: time.UnixMilli(5),
			EventTime: func(*kgo.Record) (watermark.Time, error) { return 0, test.err },
		}}
		s := &Share{}
		if err := g.take(emit.NewLateReader("tidemark-"), s, late); !errors.Is(err, test.want) || s.counts.NoTime != test.noTime || s.counts.Unreadable > 0 || len(s.held) > 0 {
			t.Errorf("%v: %v, %+v", test.err, err, s.counts)
		}
	}
}

// A report adds up, over the pieces of a partition and over partitions.
func TestReportAddsUp(t *testing.T) {
	share := func(partition int32, ms ...int64) *Share {
		s := &Share{Stretch: Stretch{Source: "raw", Late: "raw.late", Partition: partition}}
		s.counts.Read = 10
		s.counts.other("future")
		s.counts.other("made up")
		for _, at := range ms {
			s.counts.publish(at)
		}
		return s
	}
	r := NewReport(false)
	r.Add([]*Share{share(0), share(1, 5, 7)})
	r.Add([]*Share{share(1, 3)})
	if r.Read != 30 || r.Corrections != 3 || r.Others() != 6 || r.Transactions != 2 || *r.Oldest != 3 || *r.Newest != 7 {
		t.Errorf("%+v", r.Counts)
	}
	if p := r.Partitions; len(p) != 2 || p[0].Oldest != nil || p[0].Transactions != 1 || p[1].Transactions != 2 || *p[1].Oldest != 3 || p[1].OtherReasons["unknown"] != 2 {
		t.Errorf("%+v", p)
	}
}

// A record whose own timestamp cannot be written is not corrected: its correction would have
// none.
func TestTimestampOutsideIsNotCorrected(t *testing.T) {
	times, err := timestamp.Parse("header:at")
	if err != nil {
		t.Fatal(err)
	}
	ns := int64(1_796_043_758_084_000)
	ns *= 1e6 // as the client does
	for _, tt := range []struct {
		at   time.Time
		want fate
	}{{time.UnixMilli(5), correct}, {time.Unix(0, ns), noTime}} {
		in := &kgo.Record{Timestamp: tt.at, Headers: []kgo.RecordHeader{{Key: "at", Value: []byte("7")}}}
		late := emit.NewOutbox(emit.Headers{Prefix: "tidemark-"}).Late(emit.Source{Topic: "raw", Late: "raw.late"}, in,
			emit.Lateness{Verdict: reorder.InvalidTime, Watermark: watermark.None, AtMs: 5})
		rule := Rule{Prefix: "tidemark-", EventTime: times.Extract, Reasons: Reasons, TTL: time.Hour, Now: time.UnixMilli(9)}
		got, _, _, err := rule.judge(emit.NewLateReader("tidemark-"), late)
		if got != tt.want || (got == noTime) != errors.Is(err, timestamp.ErrInvalid) {
			t.Errorf("%v: fate %d, %v", tt.at, got, err)
		}
	}
}
