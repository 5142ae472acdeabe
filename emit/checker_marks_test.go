package emit

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
