package verify

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/watermark"
)

// mutation breaks a correct history in one way. It returns false where the
// history has no place for that.
type mutation struct {
	kind  Kind
	name  string
	apply func(t *rapid.T, h *history) bool
}

// pick draws one of the records for which ok holds.
func pick(t *rapid.T, log []*kgo.Record, ok func(i int) bool) (int, bool) {
	var fit []int
	for i := range log {
		if ok(i) {
			fit = append(fit, i)
		}
	}
	if len(fit) == 0 {
		return 0, false
	}
	return rapid.SampledFrom(fit).Draw(t, "victim"), true
}

func always(int) bool { return true }

// lastOf returns the index of the last header of a name, or -1.
func lastOf(r *kgo.Record, name string) int {
	for i := len(r.Headers) - 1; i >= 0; i-- {
		if r.Headers[i].Key == "tidemark-"+name {
			return i
		}
	}
	return -1
}

func (h *history) number(r *kgo.Record, name string) int64 {
	var n int64
	_, err := fmt.Sscan(string(r.Headers[lastOf(r, name)].Value), &n)
	if err != nil {
		panic(err)
	}
	return n
}

// with returns a copy of a record in which a header of ours has another value.
func with(r *kgo.Record, name string, value any) *kgo.Record {
	c := *r
	c.Headers = slices.Clone(r.Headers)
	c.Headers[lastOf(r, name)] = header(name, value)
	return &c
}

func renumber(log []*kgo.Record) []*kgo.Record {
	out := make([]*kgo.Record, len(log))
	for i, r := range log {
		c := *r
		c.Offset = int64(i)
		out[i] = &c
	}
	return out
}

// change returns a mutation that changes a record of one of the outputs.
func change(what string, f func(r *kgo.Record) bool) mutation {
	return mutation{KindChanged, what, func(t *rapid.T, h *history) bool {
		log := &h.ordered
		if rapid.Bool().Draw(t, "late") {
			log = &h.late
		}
		i, ok := pick(t, *log, always)
		if !ok {
			return false
		}
		r := *(*log)[i]
		r.Headers = slices.Clone(r.Headers)
		if !f(&r) {
			return false
		}
		*log = slices.Clone(*log)
		(*log)[i] = &r
		return true
	}}
}

// lateLie returns a mutation that changes a late record of a kind.
func lateLie(what, reason string, f func(h *history, r *kgo.Record) *kgo.Record) mutation {
	return mutation{KindWrongLate, what, func(t *rapid.T, h *history) bool {
		i, ok := pick(t, h.late, func(i int) bool {
			r := h.late[i]
			return reason == "" || string(r.Headers[lastOf(r, "late-reason")].Value) == reason
		})
		if !ok {
			return false
		}
		h.late[i] = f(h, h.late[i])
		return true
	}}
}

func sameEpoch(a, b *kgo.Record) bool {
	c := NewChecker(Rules{Prefix: "tidemark-"}, Scope{})
	x, _ := c.Place(a, false)
	y, _ := c.Place(b, false)
	return x == y
}

var mutations = []mutation{
	{KindLost, "an ordered record is missing", func(t *rapid.T, h *history) bool {
		i, ok := pick(t, h.ordered, func(i int) bool { return h.number(h.ordered[i], "source-offset") < h.scope.Committed })
		if ok {
			h.ordered = renumber(slices.Delete(h.ordered, i, i+1))
		}
		return ok
	}},
	{KindLost, "a late record is missing", func(t *rapid.T, h *history) bool {
		i, ok := pick(t, h.late, always)
		if ok {
			h.late = renumber(slices.Delete(h.late, i, i+1))
		}
		return ok
	}},
	{KindLost, "fewer are buffered than have not come out", func(_ *rapid.T, h *history) bool {
		h.scope.Buffered--
		return h.scope.Buffered >= 0
	}},
	{KindLost, "others are buffered than have not come out", func(_ *rapid.T, h *history) bool {
		h.scope.BufferedSum++
		return h.scope.Buffered > 0
	}},
	{KindDuplicate, "more are buffered than have not come out", func(_ *rapid.T, h *history) bool {
		h.scope.Buffered++
		return true
	}},
	{KindDuplicate, "an ordered record comes twice", func(t *rapid.T, h *history) bool {
		i, ok := pick(t, h.ordered, always)
		if ok {
			at := rapid.IntRange(i, len(h.ordered)).Draw(t, "at")
			h.ordered = renumber(slices.Insert(h.ordered, at, h.ordered[i]))
		}
		return ok
	}},
	{KindDuplicate, "a late record comes twice", func(t *rapid.T, h *history) bool {
		i, ok := pick(t, h.late, always)
		if ok {
			h.late = renumber(append(h.late, h.late[i]))
		}
		return ok
	}},
	{KindDuplicate, "an ordered record is late, too", func(t *rapid.T, h *history) bool {
		i, ok := pick(t, h.ordered, always)
		if !ok {
			return false
		}
		r := h.ordered[i]
		source := h.number(r, "source-offset")
		j := slices.IndexFunc(h.raw, func(r *kgo.Record) bool { return r.Offset == source })
		hs := []kgo.RecordHeader{
			header("late-reason", "duplicate"), header("source-topic", testTopic),
			header("source-partition", h.partition), header("source-offset", source), header("late-at", 1),
		}
		if at := lastOf(r, "epoch"); at > lastOf(r, "source-offset") {
			hs = append(hs, r.Headers[at])
		}
		h.late = appendTo(h.late, h.raw[j], hs...)
		return true
	}},
	{KindDuplicate, "a repeat stands in order", func(t *rapid.T, h *history) bool {
		i, ok := pick(t, h.late, func(i int) bool { return original(h, h.late[i]) >= 0 })
		if !ok {
			return false
		}
		r := h.late[i]
		at := original(h, r)
		in := *r
		in.Headers = r.Headers[:lastOf(r, "late-reason")]
		out := appendTo(nil, &in, header("source-offset", h.number(r, "source-offset")))
		if e := lastOf(h.ordered[at], "epoch"); e >= 0 {
			out[0].Headers = append(out[0].Headers, h.ordered[at].Headers[e])
		}
		h.late = renumber(slices.Delete(h.late, i, i+1))
		h.ordered = renumber(slices.Insert(h.ordered, at+1, out...))
		return true
	}},
	{KindWrongLate, "a duplicate of nothing", func(t *rapid.T, h *history) bool {
		i, ok := pick(t, h.late, func(i int) bool { return string(h.late[i].Headers[lastOf(h.late[i], "late-reason")].Value) == "future" })
		if ok {
			h.late[i] = with(h.late[i], "late-reason", "duplicate")
		}
		return ok && h.identity.Kind != emit.NoIdentity
	}},
	{KindLost, droppedForNothing, func(t *rapid.T, h *history) bool {
		i, ok := pick(t, h.ordered, func(i int) bool {
			r := h.ordered[i]
			source := h.number(r, "source-offset")
			return h.drops && source < h.scope.Committed && !slices.ContainsFunc(h.ordered, func(o *kgo.Record) bool {
				return h.number(o, "source-offset") < source && eventTime(o) == eventTime(r) // in another epoch
			})
		})
		if ok {
			h.ordered = renumber(slices.Delete(h.ordered, i, i+1))
		}
		return ok
	}},
	{KindOutOfOrder, "two records change places", func(t *rapid.T, h *history) bool {
		i, ok := pick(t, h.ordered, func(i int) bool { return i > 0 && sameEpoch(h.ordered[i-1], h.ordered[i]) })
		if ok {
			h.ordered[i-1], h.ordered[i] = h.ordered[i], h.ordered[i-1]
			h.ordered = renumber(h.ordered)
		}
		return ok
	}},
	change("another value", func(r *kgo.Record) bool { r.Value = append(slices.Clone(r.Value), 'x'); return true }),
	change("another timestamp", func(r *kgo.Record) bool { r.Timestamp = r.Timestamp.Add(time.Millisecond); return true }),
	change("an empty key for none", func(r *kgo.Record) bool {
		none := r.Key == nil
		r.Key = []byte{}
		return none
	}),
	change("a tombstone for an empty value", func(r *kgo.Record) bool {
		some := r.Value != nil
		r.Value = nil
		return some
	}),
	change("a header less", func(r *kgo.Record) bool { r.Headers = r.Headers[1:]; return true }),
	change("a header twice", func(r *kgo.Record) bool { r.Headers = slices.Insert(r.Headers, 1, r.Headers[0]); return true }),
	change("an empty header for none", func(r *kgo.Record) bool {
		i := slices.IndexFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Value == nil })
		if i >= 0 {
			r.Headers[i].Value = []byte{}
		}
		return i >= 0
	}),
	change("a source offset that is none", func(r *kgo.Record) bool {
		*r = *with(r, "source-offset", 1<<40)
		return true
	}),
	{KindChanged, "another event time in the header", func(t *rapid.T, h *history) bool {
		i, ok := pick(t, h.ordered, func(i int) bool { return lastOf(h.ordered[i], "event-time") >= 0 })
		if ok {
			h.ordered[i] = with(h.ordered[i], "event-time", h.number(h.ordered[i], "event-time")+1)
		}
		return ok
	}},
	{KindWatermarkLie, "a watermark above the next record", func(t *rapid.T, h *history) bool {
		i, ok := pick(t, h.ordered, func(i int) bool {
			return i > 0 && sameEpoch(h.ordered[i-1], h.ordered[i]) && lastOf(h.ordered[i], "watermark") >= 0
		})
		if ok {
			h.ordered[i-1] = with(h.ordered[i-1], "watermark", eventTime(h.ordered[i]).Millis())
		}
		return ok
	}},
	{KindWatermarkLie, "a watermark goes back", func(t *rapid.T, h *history) bool {
		i, ok := pick(t, h.ordered, func(i int) bool {
			return i > 0 && sameEpoch(h.ordered[i-1], h.ordered[i]) && lastOf(h.ordered[i], "watermark") >= 0
		})
		if ok {
			h.ordered[i] = with(h.ordered[i], "watermark", h.number(h.ordered[i-1], "watermark")-1)
		}
		return ok
	}},
	{KindWatermarkLie, "a watermark behind its own record", func(t *rapid.T, h *history) bool {
		i, ok := pick(t, h.ordered, func(i int) bool { return lastOf(h.ordered[i], "watermark") >= 0 })
		if ok {
			h.ordered[i] = with(h.ordered[i], "watermark", eventTime(h.ordered[i]).Millis()-2)
		}
		return ok
	}},
	{KindChanged, "another window", func(t *rapid.T, h *history) bool {
		const at = "window-tumbling:7ms"
		i, ok := pick(t, h.ordered, func(i int) bool { return lastOf(h.ordered[i], at) > lastOf(h.ordered[i], "source-offset") })
		if ok {
			start := eventTime(h.ordered[i]).Millis() + rapid.Int64Range(1, 9).Draw(t, "off by")
			h.ordered[i] = with(h.ordered[i], at, fmt.Sprintf("%d,%d", start, start+7))
		}
		return ok
	}},
	{KindWrongLate, "another window", func(t *rapid.T, h *history) bool {
		const at = "window-hopping:10ms/3ms"
		i, ok := pick(t, h.late, func(i int) bool { return lastOf(h.late[i], at) > lastOf(h.late[i], "source-offset") })
		if ok {
			h.late[i] = with(h.late[i], at, "1,11")
		}
		return ok
	}},
	lateLie("late by another time", "behind-watermark", func(h *history, r *kgo.Record) *kgo.Record {
		return with(r, "late-by-ms", h.number(r, "late-by-ms")+1)
	}),
	lateLie("behind a watermark that it is above", "behind-watermark", func(_ *history, r *kgo.Record) *kgo.Record {
		w := eventTime(r).Millis() - 1
		return with(with(r, "watermark", w), "late-by-ms", -1)
	}),
	lateLie("an unknown reason", "", func(_ *history, r *kgo.Record) *kgo.Record { return with(r, "late-reason", "bored") }),
	lateLie("an invalid time that is none", "future", func(_ *history, r *kgo.Record) *kgo.Record {
		return with(r, "late-reason", "invalid-time")
	}),
	lateLie("an invalid time passed for another reason", "invalid-time", func(_ *history, r *kgo.Record) *kgo.Record {
		return with(r, "late-reason", "duplicate")
	}),
	lateLie("another topic", "", func(_ *history, r *kgo.Record) *kgo.Record { return with(r, "source-topic", "others") }),
	{KindWrongLate, "a watermark goes back", func(t *rapid.T, h *history) bool {
		const at = "watermark"
		i, ok := pick(t, h.late, func(i int) bool {
			marked := func(r *kgo.Record) bool { return lastOf(r, at) > lastOf(r, "late-reason") }
			return i > 0 && marked(h.late[i-1]) && marked(h.late[i]) && sameEpoch(h.late[i-1], h.late[i])
		})
		if ok {
			h.late[i] = with(h.late[i], at, h.number(h.late[i-1], at)-1)
		}
		return ok
	}},
}

const droppedForNothing = "a record was dropped that repeats none"

// original finds the ordered record that a late one says to be a duplicate of.
func original(h *history, r *kgo.Record) int {
	reader := emit.NewReader("tidemark-", false)
	var late, o emit.Parts
	emit.NewReader("tidemark-", true).Read(r, &late)
	if string(late.Value(emit.WordLateReason)) != "duplicate" {
		return -1
	}
	return slices.IndexFunc(h.ordered, func(r *kgo.Record) bool {
		reader.Read(r, &o)
		return o.Epoch == late.Epoch && o.SourceOffset < late.SourceOffset && eventTime(&o.Source) == eventTime(&late.Source) &&
			string(h.identity.OfRecord(&o.Source)) == string(h.identity.OfRecord(&late.Source))
	})
}

// broken returns a history with the fault. Many have no place for it.
func (m mutation) broken(t *rapid.T) *history {
	for range 8 {
		h := genHistory(t, 0, false, false)
		if m.kind == KindLost && h.drops && m.name != droppedForNothing {
			continue // it might have been dropped
		}
		if m.apply(t, h) {
			return h
		}
	}
	t.Skip("no place for it")
	return nil
}

// TestCheckerFindsEveryFault: each mutation of a correct history is found as
// its kind, whatever the interleaving (duplicates: in that of Run).
func TestCheckerFindsEveryFault(t *testing.T) {
	for _, m := range mutations {
		t.Run(string(m.kind)+"/"+strings.ReplaceAll(m.name, " ", "-"), rapid.MakeCheck(func(t *rapid.T) {
			h := m.broken(t)
			c := h.checker()
			if m.kind != KindDuplicate && rapid.Bool().Draw(t, "anyhow") {
				h.feedAnyhow(t, c)
			} else {
				h.feedLagging(c)
			}
			r := c.Finish()
			if lost := r.Faults[KindLost]; m.kind == KindChanged && h.scope.Epoch > 0 && lost.Total > 0 {
				return // it may as well be of an earlier topic of the name; but its own is lost
			}
			if r.Faults[m.kind].Total == 0 || len(r.Faults[m.kind].First) == 0 {
				t.Fatalf("not found: %+v", r.Faults)
			}
		}))
	}
}

// TestCheckerNamesTheWrongPartition: a record that came out in another
// partition is neither lost at home nor a changed one abroad.
func TestCheckerNamesTheWrongPartition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		home, abroad := genHistory(t, 0, false, false), genHistory(t, 1, false, false)
		if home.drops || abroad.drops {
			t.Skip("it might have been dropped")
		}
		home.identity = emit.Identity{} // what repeats it misses it
		from, to := &home.ordered, &abroad.ordered
		if rapid.Bool().Draw(t, "late") {
			from, to = &home.late, &abroad.late
		}
		i, ok := pick(t, *from, always)
		if !ok {
			t.Skip("nothing to move")
		}
		source := home.number((*from)[i], "source-offset")
		if source < abroad.scope.Origin || home.scope.Epoch+abroad.scope.Epoch > 0 {
			t.Skip("it could be of the other's past")
		}
		at := rapid.IntRange(0, len(*to)).Draw(t, "at")
		moved := (*from)[i]
		*from = renumber(slices.Delete(slices.Clone(*from), i, i+1))
		*to = renumber(slices.Insert(slices.Clone(*to), at, moved))

		a, b := home.checker(), abroad.checker()
		home.feedLagging(a)
		abroad.feedLagging(b)
		reports := Reports([]*Checker{a, b})
		if !reports[0].Holds() {
			t.Fatalf("at home: %+v", reports[0].Faults)
		}
		f := reports[1].Faults
		if f[KindLost].Total+f[KindChanged].Total+f[KindDuplicate].Total > 0 ||
			f[KindWrongPartition].Total != 1 || f[KindWrongPartition].First[0].SourceOffset != source {
			t.Fatalf("abroad: %+v", f)
		}
	})
}

// TestCheckerAtLeastOnce: what a consumer drops is a repeat, but what it would
// lose by dropping it is not in order.
func TestCheckerAtLeastOnce(t *testing.T) {
	h := sequence(8)
	h.alo = true
	h.ordered = renumber(slices.Concat(h.ordered[:5], h.ordered[2:]))
	c := h.checker()
	h.feedLagging(c)
	if r := c.Finish(); !r.Holds() || r.Repeated != 3 {
		t.Errorf("repeats: %+v", r)
	}

	h = sequence(8)
	h.alo = true
	h.ordered[2], h.ordered[3] = h.ordered[3], h.ordered[2]
	h.ordered = renumber(h.ordered)
	c = h.checker()
	h.feedLagging(c)
	if r := c.Finish(); r.Faults[KindOutOfOrder].Total != 1 {
		t.Errorf("out of order: %+v", r)
	}
}

// sequence is a history without disorder in which all has come out.
func sequence(n int) *history {
	h := &history{marks: true, scope: Scope{Committed: int64(n), Next: int64(n), Quiet: true}}
	e := &twin{h: h, withMark: true, w: watermark.None, max: watermark.None}
	for i := range n {
		ms := int64(i) * 10
		r := &kgo.Record{Offset: int64(i), Value: []byte(fmt.Sprint(i)), Timestamp: time.UnixMilli(ms)}
		h.raw = append(h.raw, r)
		e.held = append(e.held, r)
		e.release(eventTime(r))
	}
	h.scope.W = e.w
	return h
}

// TestCheckerCountsBareRecords: a record without our headers is found by its
// bytes, and one that is nowhere in the source is not passed over.
func TestCheckerCountsBareRecords(t *testing.T) {
	h := sequence(5)
	bare := *h.ordered[2]
	bare.Headers = nil
	h.ordered[2] = &bare
	c := h.checker()
	h.feedLagging(c)
	if r := c.Finish(); !r.Holds() || r.Bare != 1 || r.Ordered != 5 {
		t.Errorf("a bare record: %+v", r)
	}

	bare.Value = []byte("never sent")
	c = h.checker()
	h.feedLagging(c)
	r := c.Finish()
	if r.Faults[KindLost].Total != 1 || r.Faults[KindDuplicate].Total != 1 {
		t.Errorf("a bare record of no source: %+v", r.Faults)
	}
}

// TestCheckerSeesThroughImitation: a source header with one of our names,
// where ours of that name is switched off.
func TestCheckerSeesThroughImitation(t *testing.T) {
	h := &history{scope: Scope{Committed: 1, Next: 1, Quiet: true, W: 5e6}}
	e := &twin{h: h, w: watermark.None, max: watermark.None}
	r := &kgo.Record{Timestamp: time.UnixMilli(5), Headers: []kgo.RecordHeader{header("watermark", "soon")}}
	h.raw, e.held = []*kgo.Record{r}, []*kgo.Record{r}
	e.release(eventTime(r))
	c := h.checker()
	h.feedLagging(c)
	if r := c.Finish(); !r.Holds() {
		t.Errorf("flagged: %+v", r.Faults)
	}
}

// TestCheckerKeepsTenOfEach: the rest is counted.
func TestCheckerKeepsTenOfEach(t *testing.T) {
	h := sequence(40)
	h.ordered = nil
	c := h.checker()
	h.feedLagging(c)
	f := c.Finish().Faults[KindLost]
	if f.Total != 40 || len(f.First) != maxFirst || f.First[0].SourceOffset != 0 || f.First[9].SourceOffset != 9 {
		t.Errorf("%d lost, first %+v", f.Total, f.First)
	}
}

// TestCheckerMemoryIsWhatIsInFlight: a long stream, with all that is lost on
// top of it, takes no more memory than a short one.
func TestCheckerMemoryIsWhatIsInFlight(t *testing.T) {
	const records, window = 1600 * 256, 256
	h := &history{scope: Scope{Committed: records + window, Next: records + window}}
	c := h.checker()
	var ms runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&ms)
	before, most := ms.HeapAlloc, 0
	record := func(source, ms int64) *kgo.Record {
		return &kgo.Record{Offset: source, Value: []byte("value"), Timestamp: time.UnixMilli(ms)}
	}
	for i := int64(0); i < records; i++ {
		c.Raw(record(i, i^(window-1))) // every window the other way round
		if i%window < window-1 {
			continue
		}
		for j := i; j > i-window; j-- {
			out := record(j, j^(window-1))
			out.Headers = []kgo.RecordHeader{header("watermark", out.Timestamp.UnixMilli()-1), header("source-offset", j)}
			c.Ordered(out)
			most = max(most, c.Pending())
		}
	}
	c.OutputsEnd()
	for i := int64(records); i < 2*records; i++ {
		c.Raw(record(i, i)) // nobody has read these
	}
	runtime.GC()
	runtime.ReadMemStats(&ms)
	if grown := int64(ms.HeapAlloc) - int64(before); grown > 1<<20 {
		t.Errorf("the checker holds %d bytes after %d records", grown, records)
	}
	if most >= window || c.Pending() > window {
		t.Errorf("%d pending on the way, %d at the end", most, c.Pending())
	}
	r := c.Finish()
	if lost := r.Faults[KindLost].Total; lost != window || r.Ordered != records {
		t.Errorf("lost %d, ordered %d: %+v", lost, r.Ordered, r.Faults)
	}
}

// TestReportAddsUp: partitions add up to a topic.
func TestReportAddsUp(t *testing.T) {
	one, two := sequence(5), sequence(7)
	two.partition = 1
	two.ordered = two.ordered[:6]
	var sum Report
	for _, h := range []*history{one, two} {
		c := h.checker()
		h.feedLagging(c)
		sum.Add(c.Finish())
	}
	if sum.Read != 12 || sum.Ordered != 11 || sum.Watermark != (Range{true, -1, 49}) || sum.Faults[KindLost].Total != 1 || sum.Holds() {
		t.Errorf("%+v", sum)
	}
}
