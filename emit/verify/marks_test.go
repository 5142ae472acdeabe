package verify

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/watermark"
)

// TestMarksBeginAnewWithAnEpoch: a duplicate may be the first late record there is,
// and the first of another kind may be one of a new epoch, whose watermarks have
// nothing to do with those before.
func TestMarksBeginAnewWithAnEpoch(t *testing.T) {
	for _, c := range []struct {
		epoch string
		holds bool
	}{{"1", true}, {"0", false}} {
		check := NewChecker(Rules{
			Prefix: "tidemark-", Topic: "orders",
			EventTime: func(*kgo.Record) (watermark.Time, error) { return 0, nil },
		}, Scope{})
		late := func(offset, reason, mark, epoch string) {
			r := &kgo.Record{}
			for _, h := range [][2]string{
				{"late-reason", reason},
				{"late-by-ms", mark},
				{"watermark", mark},
				{"source-topic", "orders"},
				{"source-partition", "0"},
				{"source-offset", offset},
				{"late-at", "1"},
				{"epoch", epoch},
			} {
				r.Headers = append(r.Headers, kgo.RecordHeader{Key: "tidemark-" + h[0], Value: []byte(h[1])})
			}
			check.Late(r)
		}
		late("3", "duplicate", "19", "0")
		late("5", "behind-watermark", "7", c.epoch)
		back := false
		for _, f := range check.Finish().Faults {
			for _, first := range f.First {
				back = back || strings.Contains(first.Why, "watermark 7 follows watermark 19")
			}
		}
		if back == c.holds {
			t.Errorf("in epoch %s a smaller watermark is reported: %v", c.epoch, back)
		}
	}
}

// TestSourceOffsetsBeginAnewWithAnEpoch: the same, of source offsets. A duplicate may
// be the first late record of an epoch that repeats, after a reset of the group, what
// an earlier one has put out.
func TestSourceOffsetsBeginAnewWithAnEpoch(t *testing.T) {
	check := NewChecker(Rules{
		Prefix: "tidemark-", Topic: "orders",
		EventTime: func(*kgo.Record) (watermark.Time, error) { return 0, nil },
	}, Scope{Committed: 6, Next: 6, Epoch: 7, Epochs: true})
	var l logs
	for offset := range int64(6) {
		l.raw = append(l.raw, &kgo.Record{Offset: offset})
	}
	for _, o := range []struct{ source, reason, epoch string }{
		{"4", "invalid-time", "3"}, {"5", "invalid-time", "3"}, {"4", "duplicate", "7"}, {"5", "invalid-time", "7"},
	} {
		r := &kgo.Record{}
		for _, h := range [][2]string{
			{"late-reason", o.reason},
			{"source-topic", "orders"},
			{"source-partition", "0"},
			{"source-offset", o.source},
			{"late-at", "1"},
			{"epoch", o.epoch},
		} {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: "tidemark-" + h[0], Value: []byte(h[1])})
		}
		l.late = append(l.late, r)
	}
	if err := examine(check, l); err != nil {
		t.Fatal(err)
	}
	if r := check.Finish(); r.Faults[KindDuplicate].Total != 0 || r.Replayed != 2 {
		t.Errorf("%d replayed, faults %v", r.Replayed, r.Faults)
	}
}
