package verify

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/watermark"
)

// TestUnknownEventTimes: what can be told of an output without its event time is judged,
// and the rest is counted.
func TestUnknownEventTimes(t *testing.T) {
	unknown := func(r *kgo.Record) (watermark.Time, error) {
		if r.Key == nil && r.Value == nil {
			return watermark.None, fmt.Errorf("as of the record before: %w", ErrTimeUnknown)
		}
		return testTime(r)
	}
	for _, tt := range []struct {
		name   string
		damage func(h *history)
		kind   Kind
	}{
		{"whole", func(*history) {}, ""},
		{"lost", func(h *history) { h.ordered = append(h.ordered[:10:10], h.ordered[11:]...) }, KindLost},
		{"twice", func(h *history) { h.ordered = appendTo(h.ordered, h.ordered[10]) }, KindDuplicate},
		{"changed", func(h *history) { r := *h.ordered[10]; r.Value = []byte("x"); h.ordered[10] = &r }, KindChanged},
		{"its watermark goes back", func(h *history) {
			r := *h.ordered[10]
			r.Headers = append([]kgo.RecordHeader{header("watermark", -5)}, r.Headers[1:]...)
			h.ordered[10] = &r
		}, KindWatermarkLie},
	} {
		h := sequence(30)
		for _, i := range []int{5, 10, 11} {
			h.raw[i].Value, h.ordered[i].Value = nil, nil
			h.raw[i].Key, h.ordered[i].Key = nil, nil
		}
		tt.damage(h)
		c := NewChecker(Rules{Topic: testTopic, Ordered: testTopic + ".ordered", Late: testTopic + ".late", Prefix: "tidemark-", EventTime: unknown}, h.scope)
		h.feedLagging(c)
		r := c.Finish()
		switch {
		case tt.kind == "" && (!r.Holds() || r.Unjudged[GapEventTime] != 3 || r.Ordered != 30):
			t.Errorf("%s: %+v", tt.name, r)
		case tt.kind != "" && (len(r.Faults) != 1 || r.Faults[tt.kind].Total != 1):
			t.Errorf("%s: %+v", tt.name, r)
		}
	}
}
