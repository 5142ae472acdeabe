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

// TestOtherEventTimes: outputs of before event times changed are not judged by those of now,
// where the commit or the user says so. Where nobody does, the report says from where on
// they are right.
func TestOtherEventTimes(t *testing.T) {
	const changed = 15
	log := func() *history {
		h := sequence(30)
		for i := range changed {
			hs := []kgo.RecordHeader{{Key: "event-time", Value: fmt.Append(nil, 100_000_000-i)}}
			h.raw[i].Headers = hs
			h.ordered[i].Headers = append(hs, h.ordered[i].Headers...)
		}
		return h
	}
	for _, tt := range []struct {
		name   string
		change func(h *history)
		gap    Gap
		kind   Kind
		hint   From
	}{
		{"the commit says so", func(h *history) { h.scope.TimesFrom = changed }, GapOtherTimes, "", From{}},
		{"the user says so", func(h *history) { h.scope.From.Offset = changed }, GapBeforeFrom, "", From{}},
		{"nobody does", func(*history) {}, "", KindOutOfOrder, From{Offset: changed}},
		{"lost before it", func(h *history) {
			h.scope.TimesFrom = changed
			h.ordered = append(h.ordered[:3:3], h.ordered[4:]...)
		}, GapOtherTimes, KindLost, From{}},
		{"out of order behind it", func(h *history) {
			h.scope.TimesFrom = changed
			h.ordered[20], h.ordered[21] = h.ordered[21], h.ordered[20]
		}, GapOtherTimes, KindOutOfOrder, From{Offset: 21}},
		{"a reset", func(h *history) {
			whole := sequence(30)
			h.raw = whole.raw
			old := h.ordered[:changed:changed]
			for i, o := range old {
				o.Headers = append([]kgo.RecordHeader{}, whole.ordered[i].Headers...)
				o.Headers[0] = header("watermark", 1000-i)
			}
			h.ordered = append(old, inEpoch(1, whole.ordered)...)
			h.scope.Epoch, h.scope.Epochs = 1, true
		}, "", KindWatermarkLie, From{Epoch: 1}},
	} {
		h := log()
		tt.change(h)
		c := NewChecker(Rules{Topic: testTopic, Ordered: testTopic + ".ordered", Late: testTopic + ".late", Prefix: "tidemark-", EventTime: testTime}, h.scope)
		h.feedLagging(c)
		r := c.Finish()
		if from, _ := r.Times.HintFrom(); from != tt.hint {
			t.Errorf("%s: the hint is %+v: %+v", tt.name, from, r)
		}
		unjudged := int64(0)
		if tt.gap != "" {
			unjudged = changed
		}
		if tt.kind == KindLost {
			unjudged--
		}
		if r.Unjudged[tt.gap] != unjudged || r.Holds() != (tt.kind == "") {
			t.Errorf("%s: %+v", tt.name, r)
		}
		if tt.kind != "" && r.Faults[tt.kind].Total == 0 {
			t.Errorf("%s: %+v", tt.name, r)
		}
	}
}

// TestFromEpoch: outputs of earlier epochs are not judged by event time.
func TestFromEpoch(t *testing.T) {
	h := sequence(30)
	old := sequence(15).ordered
	old[3], old[4] = old[4], old[3]
	h.ordered = append(old, inEpoch(1, h.ordered)...)
	for i, r := range h.ordered {
		r.Offset = int64(i)
	}
	h.scope.Epoch, h.scope.Epochs, h.scope.From.Epoch = 1, true, 1
	c := NewChecker(Rules{Topic: testTopic, Ordered: testTopic + ".ordered", Late: testTopic + ".late", Prefix: "tidemark-", EventTime: testTime}, h.scope)
	for _, r := range h.ordered { // order and watermarks of the earlier epoch are those of another time
		if len(r.Headers) == 2 {
			r.Headers = r.Headers[1:]
		}
	}
	h.feedLagging(c)
	if r := c.Finish(); !r.Holds() || r.Unjudged[GapBeforeFrom] != 15 || r.Replayed != 15 || r.Read != 30 {
		t.Errorf("%+v", r)
	}
}

// TestTimesEpoch: outputs of epochs of before are not judged by event time, and what came out
// since is, also where the source records of both are the same, or do not name theirs.
func TestTimesEpoch(t *testing.T) {
	log := func() *history {
		h := sequence(30)
		old := sequence(15).ordered
		for i, r := range old {
			r.Headers = append([]kgo.RecordHeader{}, r.Headers...)
			r.Headers[0] = header("watermark", 1000-i)
		}
		old[3], old[4] = old[4], old[3]
		h.ordered = append(old, inEpoch(1, h.ordered)...)
		for i, r := range h.ordered {
			r.Offset = int64(i)
		}
		for _, r := range old { // which no law of now can be applied to
			r.Headers = r.Headers[1:]
		}
		h.scope.Epoch, h.scope.Epochs = 1, true
		return h
	}
	for _, tt := range []struct {
		name   string
		change func(h *history)
		gap    Gap
		kind   Kind
	}{
		{"the commit says so", func(h *history) { h.scope.TimesEpoch = 1 }, GapOtherTimes, ""},
		{"nobody does", func(*history) {}, "", KindOutOfOrder},
		{"out of order behind it", func(h *history) {
			h.scope.TimesEpoch = 1
			h.ordered[20], h.ordered[21] = h.ordered[21], h.ordered[20]
		}, GapOtherTimes, KindOutOfOrder},
		{"lost behind it", func(h *history) {
			h.scope.TimesEpoch = 1
			h.ordered = append(h.ordered[:20:20], h.ordered[21:]...)
		}, GapOtherTimes, KindLost},
		{"changed before it", func(h *history) {
			h.scope.TimesEpoch = 1
			r := *h.ordered[9]
			r.Value = []byte("x")
			h.ordered[9] = &r
		}, GapOtherTimes, KindChanged},
		{"nothing has come out since", func(h *history) {
			h.scope.TimesEpoch, h.ordered = 1, h.ordered[:15]
			h.scope.Committed, h.scope.Next, h.scope.Buffered, h.scope.BufferedSum, h.scope.W = 0, 0, 0, 0, watermark.None
		}, GapOtherTimes, ""},
	} {
		h := log()
		tt.change(h)
		c := NewChecker(Rules{Topic: testTopic, Ordered: testTopic + ".ordered", Late: testTopic + ".late", Prefix: "tidemark-", EventTime: testTime}, h.scope)
		h.feedLagging(c)
		r := c.Finish()
		want := int64(0)
		if tt.gap != "" {
			want = 15
		}
		if r.Unjudged[tt.gap] != want || r.Holds() != (tt.kind == "") || tt.kind != "" && r.Faults[tt.kind].Total == 0 {
			t.Errorf("%s: %+v", tt.name, r)
		}
	}
}
