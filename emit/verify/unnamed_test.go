package verify

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/reorder"
)

// unname takes source offset and watermark from the ordered records.
func (h *history) unname() {
	for i, r := range h.ordered {
		c := *r
		c.Headers = slices.Clone(r.Headers)
		for _, name := range []string{"source-offset", "watermark"} {
			if at := lastOf(&c, name); name == "source-offset" || h.marks {
				c.Headers = slices.Delete(c.Headers, at, at+1)
			}
		}
		h.ordered[i] = &c
	}
}

// TestUnnamed: without source offsets the same is found of an epoch as with them.
func TestUnnamed(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(h *history)
		kind   Kind
	}{
		{"whole", func(*history) {}, ""},
		{"equal records", func(h *history) {
			for _, i := range []int{4, 9, 10} {
				h.raw[i].Value, h.ordered[i].Value = nil, nil
				h.raw[i].Timestamp = h.raw[9].Timestamp
				h.ordered[i].Timestamp = h.raw[9].Timestamp
			}
		}, KindOutOfOrder}, // that of offset 4 stands where its time was
		{"lost", func(h *history) { h.ordered = slices.Delete(h.ordered, 7, 8) }, KindLost},
		{"lost at the end", func(h *history) { h.ordered = h.ordered[:29] }, KindLost},
		{"twice", func(h *history) { h.ordered = slices.Insert(h.ordered, 7, h.ordered[7]) }, KindDuplicate},
		{"out of order", func(h *history) { h.ordered[7], h.ordered[8] = h.ordered[8], h.ordered[7] }, KindOutOfOrder},
	} {
		h := sequence(30)
		tt.damage(h)
		h.unname()
		c := h.unnamedChecker()
		h.feedLagging(c)
		r := c.Finish()
		switch {
		case tt.kind == "" && (!r.Holds() || len(r.Unjudged) > 0 || r.Bare > 0 || r.Ordered != 30 || r.Read != 30):
			t.Errorf("%s: %+v", tt.name, r)
		case tt.kind != "" && (len(r.Faults) != 1 || r.Faults[tt.kind].Total == 0):
			t.Errorf("%s: %+v", tt.name, r)
		}
	}
	h := sequence(30)
	r := *h.ordered[7]
	r.Value = []byte("another")
	h.ordered[7] = &r
	h.unname()
	c := h.unnamedChecker()
	h.feedLagging(c)
	if r := c.Finish(); r.Faults[KindLost].Total != 1 || r.Faults[KindDuplicate].Total != 1 || len(r.Faults) != 2 {
		t.Errorf("changed: %+v", r)
	}
}

func (h *history) unnamedChecker() *Checker {
	c := h.checker()
	c.rules.Unnamed = true
	c.rules.Required.Watermark = false
	return c
}

func TestUnnamedAcceptsCorrectHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := genHistory(t, 0, rapid.Bool().Draw(t, "at-least-once"), false)
		h.unname()
		c := h.unnamedChecker()
		h.feedLagging(c)
		r := c.Finish()
		requireHolds(t, r)
		if r.Buffered != h.scope.Buffered || r.Dropped != h.dropped {
			t.Fatalf("buffered %d: %+v", h.scope.Buffered, r)
		}
	})
}

// TestUnnamedGivesUp: what is too far apart to be found is neither lost nor changed.
func TestUnnamedGivesUp(t *testing.T) {
	h := sequence(30)
	r := *h.ordered[0]
	r.Value = []byte("another")
	h.ordered[0] = &r
	h.unname()
	c := h.unnamedChecker()
	c.unnamed.most = 5
	h.feedLagging(c)
	if r := c.Finish(); r.Verdict() != Unknown || r.Unjudged[GapUnnamed] != 2 || r.Ordered != 30 {
		t.Errorf("%+v", r)
	}
}

// TestUnnamedHeldOfALaterEpoch: at least once, a record that the commit holds is not taken
// for a dropped repeat because of an equal one that came out in the epoch before.
func TestUnnamedHeldOfALaterEpoch(t *testing.T) {
	h := sequence(6)
	h.alo, h.drops, h.identity = true, true, emit.Identity{Kind: emit.BytesIdentity}
	again := *h.raw[4]
	again.Offset = 5
	h.raw[5], h.ordered = &again, h.ordered[:5]
	s := &h.scope
	s.Committed, s.Epoch, s.W, s.Buffered, s.BufferedSum = 5, 1, 0, 1, reorder.OffsetHash(5)
	h.unname()
	c := h.unnamedChecker()
	h.feedLagging(c)
	if r := c.Finish(); len(r.Faults) > 0 || r.Ordered != 5 || r.Buffered != 1 || r.Dropped != 0 {
		t.Errorf("%+v", r)
	}
}
