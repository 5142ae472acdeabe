package verify

import (
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestCheckerKnowsWindowsByTheirNames: windows that were others, or none, for a
// time; and a source header whose name only begins like ours.
func TestCheckerKnowsWindowsByTheirNames(t *testing.T) {
	h := sequence(12)
	tag := func(i int, headers ...kgo.RecordHeader) {
		r := *h.ordered[i]
		r.Headers = append(slices.Clone(r.Headers), headers...)
		h.ordered[i] = &r
	}
	tag(3, header("window-tumbling:7ms", "28,35"))
	tag(4, header("window-tumbling:7ms", "35,42"), header("window-sliding:1s", "-960,41"))
	tag(9, header("window-hopping:5s/2s", "-4000,1000 -2000,3000 0,5000"))
	tag(10, header("window-tumbling:1d@Europe/Berlin", "-3600000,82800000"))
	c := h.checker()
	h.feedLagging(c)
	if r := c.Finish(); !r.Holds() || r.Bare != 0 {
		t.Errorf("%+v", r)
	}
	for _, wrong := range []kgo.RecordHeader{
		header("window-tumbling:7ms", "28,36"),
		header("window-tumbling:7ms", "49,56 "),
		header("window-tumbling:7ms", ""),
		header("window-hopping:5s/2s", "-4000,1000 0,5000 -2000,3000"),
		header("window-hopping:1h/1ms", "0,1"), // none of ours: so the record has a header too many
		header("window-", "0,1"),
	} {
		h := sequence(12)
		r := *h.ordered[5]
		r.Headers = append(slices.Clone(r.Headers), wrong)
		h.ordered[5] = &r
		c := h.checker()
		h.feedLagging(c)
		report := c.Finish()
		if f := report.Faults[KindChanged]; f.Total != 1 && report.Bare != 1 {
			t.Errorf("%s=%s: %+v", wrong.Key, wrong.Value, report)
		}
	}
}

// A record without room for an identity keeps the header that overrules one of
// its source, and is found by its bytes all the same.
func TestCheckerFindsBareRecordWithWindow(t *testing.T) {
	h := sequence(5)
	raw, bare := *h.raw[2], *h.raw[2]
	raw.Headers = []kgo.RecordHeader{header("window-tumbling:7ms", "soon")}
	bare.Headers = append(slices.Clone(raw.Headers), header("window-tumbling:7ms", "14,21"))
	h.raw[2], h.ordered[2] = &raw, &bare
	c := h.checker()
	h.feedLagging(c)
	if r := c.Finish(); !r.Holds() || r.Bare != 1 {
		t.Errorf("%+v", r)
	}
}
