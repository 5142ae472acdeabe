package verify

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// history is what one partition looks like after a run: the three topics and
// the commit. genHistory makes correct ones with a twin of the engine that
// knows the contract and nothing of how the engine meets it.
type history struct {
	partition          int32
	alo                bool
	raw, ordered, late []*kgo.Record
	scope              Scope

	marks    bool // ordered records have watermarks
	identity emit.Identity
	drops    bool // duplicates
	dropped  int64
}

const testTopic = "orders"

var errTime = errors.New("not a time")

// testTime takes the event time in ns from a header, else the timestamp.
func testTime(r *kgo.Record) (watermark.Time, error) {
	for _, h := range slices.Backward(r.Headers) {
		if h.Key == "event-time" {
			ns, err := strconv.ParseInt(string(h.Value), 10, 64)
			if err != nil {
				return watermark.None, errTime
			}
			return watermark.Time(ns), nil
		}
	}
	t, _ := watermark.FromMillis(r.Timestamp.UnixMilli())
	return t, nil
}

func header(key string, value any) kgo.RecordHeader {
	return kgo.RecordHeader{Key: "tidemark-" + key, Value: []byte(fmt.Sprint(value))}
}

// twin sorts by brute force: after every record it looks at all that it holds.
type twin struct {
	h                *history
	withMark, withET bool
	windows          bool
	bound            watermark.Time
	w, max           watermark.Time
	epoch            int64
	held             []*kgo.Record
	next             int64
	out              []*kgo.Record // of this epoch, in order
	remembers        func() bool   // whether a late repeat is called so
}

// repeats reports whether a record has the identity and event time of one that
// came out in order in this epoch.
func (e *twin) repeats(r *kgo.Record) bool {
	id := e.h.identity.OfRecord(r)
	return len(id) > 0 && slices.ContainsFunc(e.out, func(o *kgo.Record) bool {
		return eventTime(o) == eventTime(r) && string(e.h.identity.OfRecord(o)) == string(id)
	})
}

func eventTime(r *kgo.Record) watermark.Time {
	t, err := testTime(r)
	if err != nil {
		panic(err)
	}
	return t
}

func (e *twin) epochHeader(r *kgo.Record) []kgo.RecordHeader {
	imitated := slices.ContainsFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == "tidemark-epoch" })
	if e.epoch == 0 && !imitated {
		return nil
	}
	return []kgo.RecordHeader{header("epoch", e.epoch)}
}

// windowHeaders looks at every window there is, of two families.
func (e *twin) windowHeaders(r *kgo.Record) (hs []kgo.RecordHeader) {
	t, err := testTime(r)
	if !e.windows || err != nil {
		return nil
	}
	for _, f := range []struct {
		name        string
		size, slide int64
	}{{"hopping:10ms/3ms", 10, 3}, {"tumbling:7ms", 7, 7}} {
		var in []string
		for start := -600 * f.slide; start <= t.Millis(); start += f.slide {
			if t.Millis() < start+f.size {
				in = append(in, fmt.Sprintf("%d,%d", start, start+f.size))
			}
		}
		hs = append(hs, header("window-"+f.name, strings.Join(in, " ")))
	}
	return hs
}

func appendTo(log []*kgo.Record, r *kgo.Record, hs ...kgo.RecordHeader) []*kgo.Record {
	out := *r
	out.Headers = append(slices.Clone(r.Headers), hs...)
	out.Offset = 0
	if n := len(log); n > 0 {
		out.Offset = log[n-1].Offset + 1
	}
	return append(log, &out)
}

func (e *twin) reject(r *kgo.Record, reason string) {
	hs := []kgo.RecordHeader{header("late-reason", reason)}
	if behind[reason] {
		hs = append(hs, header("late-by-ms", e.w.Millis()-eventTime(r).Millis()))
	}
	if e.w != watermark.None {
		hs = append(hs, header("watermark", e.w.Millis()))
	}
	hs = append(hs, header("source-topic", testTopic), header("source-partition", e.h.partition),
		header("source-offset", r.Offset), header("late-at", 1234))
	e.h.late = appendTo(e.h.late, r, slices.Concat(hs, e.epochHeader(r), e.windowHeaders(r))...)
}

// release lets out all that w covers.
func (e *twin) release(w watermark.Time) {
	e.w = max(e.w, w)
	var due []*kgo.Record
	e.held = slices.DeleteFunc(e.held, func(r *kgo.Record) bool {
		if eventTime(r) > e.w {
			return false
		}
		due = append(due, r)
		return true
	})
	slices.SortStableFunc(due, func(a, b *kgo.Record) int {
		if eventTime(a) != eventTime(b) {
			return int(max(-1, min(1, eventTime(a)-eventTime(b))))
		}
		return int(a.Offset - b.Offset)
	})
	due = slices.DeleteFunc(due, func(r *kgo.Record) bool {
		if !e.repeats(r) {
			e.out = append(e.out, r)
			return false
		}
		if e.h.drops {
			e.h.dropped++
		} else {
			e.reject(r, "duplicate")
		}
		return true
	})
	for i, r := range due {
		mark := e.w.Next().Millis() - 1
		if i+1 < len(due) {
			mark = eventTime(due[i+1]).Millis() - 1
		}
		var hs []kgo.RecordHeader
		if e.withMark {
			hs = append(hs, header("watermark", mark))
		}
		hs = append(hs, header("source-offset", r.Offset))
		if e.withET {
			hs = append(hs, header("event-time", eventTime(r).Millis()))
		}
		e.h.ordered = appendTo(e.h.ordered, r, slices.Concat(hs, e.epochHeader(r), e.windowHeaders(r))...)
	}
}

func (e *twin) step(r *kgo.Record, reanchor bool) {
	e.next = r.Offset + 1
	t, err := testTime(r)
	switch {
	case err != nil:
		e.reject(r, "invalid-time")
		return
	case t > 900*watermark.Time(time.Millisecond):
		e.reject(r, "future")
		return
	case t <= e.w && !reanchor && e.repeats(r) && e.remembers():
		e.reject(r, "duplicate")
		return
	case t <= e.w && !reanchor:
		e.reject(r, "behind-watermark")
		return
	case t <= e.w:
		e.flush()
		e.newEpoch()
	}
	e.held = append(e.held, r)
	e.max = max(e.max, t)
	e.release(e.max.Sub(time.Duration(e.bound)) - 1)
}

func (e *twin) flush() {
	w := e.w
	for _, r := range e.held {
		w = max(w, eventTime(r))
	}
	e.release(w)
}

func (e *twin) newEpoch() {
	e.epoch++
	e.w, e.max, e.out = watermark.None, watermark.None, nil
}

// repeat is what a crash leaves in at-least-once mode: the last outputs again.
func repeat(log []*kgo.Record, n int) []*kgo.Record {
	for _, r := range log[len(log)-min(n, len(log)):] {
		log = appendTo(log, r)
	}
	return log
}

func genRaw(t *rapid.T, partition int32, imitate bool) []*kgo.Record {
	payload := rapid.SampledFrom([][]byte{nil, {}, []byte("a"), []byte("bb")})
	names := []string{"h", "h", "trace"}
	if imitate {
		names = append(names, "tidemark-epoch", "tidemark-watermark", "tidemark-source-offset", "tidemark-late-at", "tidemark-window-tumbling:7ms")
	}
	name := rapid.SampledFrom(names)
	raw := make([]*kgo.Record, rapid.IntRange(5, 60).Draw(t, "records"))
	offset := int64(0)
	for i := range raw {
		offset += int64(rapid.SampledFrom([]int{1, 1, 1, 3}).Draw(t, "gap"))
		ns := int64(i)*3_000_000 + int64(rapid.IntRange(-30_000_000, 30_000_000).Draw(t, "disorder"))
		et := strconv.FormatInt(ns, 10)
		switch rapid.IntRange(0, 19).Draw(t, "odd") {
		case 0:
			et = "soon"
		case 1:
			et = "999000000000"
		}
		hs := []kgo.RecordHeader{{Key: "event-time", Value: []byte(et)}}
		for range rapid.IntRange(0, 3).Draw(t, "headers") {
			hs = append(hs, kgo.RecordHeader{Key: name.Draw(t, "name"), Value: payload.Draw(t, "header")})
		}
		raw[i] = &kgo.Record{
			Offset: offset - 1, Key: payload.Draw(t, "key"),
			Value: append(payload.Draw(t, "value"), fmt.Sprint(i)...), Headers: hs,
			Timestamp: time.UnixMilli(int64(10*i) + int64(partition)),
		}
		if rapid.IntRange(0, 9).Draw(t, "tombstone") == 0 {
			raw[i].Value = nil
		}
		if i > 0 && rapid.IntRange(0, 2).Draw(t, "repeat") == 0 {
			of := raw[rapid.IntRange(max(0, i-4), i-1).Draw(t, "of")]
			raw[i].Key, raw[i].Value, raw[i].Headers = of.Key, of.Value, of.Headers
		}
	}
	return raw
}

func genHistory(t *rapid.T, partition int32, alo, rewinds bool) *history {
	h := &history{partition: partition, alo: alo}
	e := &twin{
		h: h, w: watermark.None, max: watermark.None,
		withMark: rapid.IntRange(0, 4).Draw(t, "watermark off") > 0, withET: rapid.Bool().Draw(t, "event-time"), windows: rapid.Bool().Draw(t, "windows"),
		bound: watermark.Time(rapid.SampledFrom([]int{0, 1, 10_000_000, 40_000_000}).Draw(t, "bound")),
	}
	h.identity = rapid.SampledFrom([]emit.Identity{
		{}, {Kind: emit.HeaderIdentity, Header: "h"}, {Kind: emit.KeyIdentity}, {Kind: emit.BytesIdentity},
	}).Draw(t, "identity")
	h.drops = h.identity.Kind != emit.NoIdentity && rapid.IntRange(0, 2).Draw(t, "drops") == 0
	e.remembers = func() bool { return rapid.Bool().Draw(t, "remembered") }
	h.raw, h.marks = genRaw(t, partition, e.withMark), e.withMark
	at := rapid.IntRange(0, 3).Draw(t, "start")
	h.scope.Origin = h.raw[at].Offset
	e.next = h.scope.Origin
	stop := rapid.IntRange(at, len(h.raw)).Draw(t, "stop")
	for ; at < stop; at++ {
		e.step(h.raw[at], rapid.IntRange(0, 30).Draw(t, "re-anchor") == 0)
		switch what := rapid.IntRange(0, 40).Draw(t, "event"); {
		case what == 0 && e.w != watermark.None:
			e.release(e.w.Add(20 * time.Millisecond)) // the wall clock drains
		case what == 1 && rewinds:
			at = rapid.IntRange(0, stop-1).Draw(t, "reset to") - 1
			h.scope.Origin = h.raw[at+1].Offset
			e.held, e.next = nil, h.scope.Origin
			e.newEpoch()
		case what == 2 && h.alo:
			h.ordered = repeat(h.ordered, rapid.IntRange(0, 5).Draw(t, "again"))
			h.late = repeat(h.late, rapid.IntRange(0, 5).Draw(t, "again"))
		}
	}
	s := &h.scope
	s.Next, s.Committed, s.Epoch, s.Quiet, s.W = e.next, e.next, e.epoch, true, e.w
	for _, r := range e.held {
		s.Committed = min(s.Committed, r.Offset)
		s.Buffered++
		s.BufferedSum += reorder.OffsetHash(r.Offset)
	}
	return h
}

// retention deletes the beginning of some of the topics.
func retention(t *rapid.T, h *history) {
	cut := func(log []*kgo.Record) ([]*kgo.Record, int64) {
		if rapid.Bool().Draw(t, "cut") || len(log) == 0 {
			return log, 0
		}
		log = log[rapid.IntRange(0, len(log)).Draw(t, "deleted"):]
		if len(log) == 0 {
			return nil, 1 << 20
		}
		return log, log[0].Offset
	}
	h.raw, h.scope.RawStart = cut(h.raw)
	h.ordered, h.scope.OrderedStart = cut(h.ordered)
	h.late, h.scope.LateStart = cut(h.late)
}

func (h *history) checker() *Checker {
	rules := Rules{
		Topic: testTopic, Partition: h.partition, Prefix: "tidemark-", Required: emit.Headers{Watermark: h.marks},
		EventTime: testTime, AtLeastOnce: h.alo, Identity: h.identity, Dropped: h.drops,
	}
	scope := h.scope
	scope.Epochs = scope.Epoch > 0
	return NewChecker(rules, scope)
}

// prove shows a checker the ordered records once more, if it wants to see them.
func (h *history) prove(c *Checker) {
	if c.Claims() {
		for _, r := range h.ordered {
			c.Original(r)
		}
	}
}

// feedAnyhow interleaves the topics at random.
func (h *history) feedAnyhow(t *rapid.T, c *Checker) {
	logs := [][]*kgo.Record{h.raw, h.ordered, h.late}
	feed := []func(*kgo.Record){c.Raw, c.Ordered, c.Late}
	for len(logs[0])+len(logs[1])+len(logs[2]) > 0 {
		i := rapid.IntRange(0, 2).Draw(t, "topic")
		for range min(rapid.IntRange(0, 20).Draw(t, "stretch"), len(logs[i])) {
			feed[i](logs[i][0])
			logs[i] = logs[i][1:]
		}
		if h.drained(logs) {
			break
		}
	}
	for i := range logs {
		for _, r := range logs[i] {
			feed[i](r)
		}
	}
	h.prove(c)
}

func (h *history) drained(logs [][]*kgo.Record) bool {
	empty := 0
	for _, l := range logs {
		if len(l) == 0 {
			empty++
		}
	}
	return empty >= 2
}

// logs are the three topics of a partition in memory.
type logs struct{ raw, ordered, late []*kgo.Record }

type logCursor struct{ left []*kgo.Record }

func (l *logCursor) Peek() (*kgo.Record, error) {
	if len(l.left) == 0 {
		return nil, nil
	}
	return l.left[0], nil
}

func (l *logCursor) Pop() { l.left = l.left[1:] }

func (l logs) Raw(from int64) cursor {
	i := sort.Search(len(l.raw), func(i int) bool { return l.raw[i].Offset >= from })
	return &logCursor{l.raw[i:]}
}

func (l logs) Ordered() cursor { return &logCursor{l.ordered} }

func (l logs) Late() cursor { return &logCursor{l.late} }

// feedLagging interleaves them as Run does.
func (h *history) feedLagging(c *Checker) {
	if err := examine(c, logs{h.raw, h.ordered, h.late}); err != nil {
		panic(err)
	}
}

func requireHolds(t *rapid.T, r Report) {
	t.Helper()
	if !r.Holds() {
		t.Fatalf("a correct history was flagged: %+v", r.Faults)
	}
	late := int64(0)
	for _, n := range r.Late {
		late += n
	}
	in, out := r.Read+r.Expired+r.Replayed+r.Repeated, r.Ordered+late+r.Dropped+r.Buffered+r.Unproven
	if in != out {
		t.Fatalf("not conserved: %d in, %d out: %+v", in, out, r)
	}
}

func TestCheckerAcceptsCorrectHistories(t *testing.T) {
	t.Run("any interleaving", rapid.MakeCheck(func(t *rapid.T) {
		h := genHistory(t, 0, rapid.Bool().Draw(t, "at-least-once"), false)
		c := h.checker()
		h.feedAnyhow(t, c)
		r := c.Finish()
		requireHolds(t, r)
		if r.Buffered != h.scope.Buffered || r.Dropped != h.dropped || r.Expired+r.Replayed+r.Unproven+r.Bare != 0 {
			t.Fatalf("buffered %d: %+v", h.scope.Buffered, r)
		}
	}))
	t.Run("resets of the group", rapid.MakeCheck(func(t *rapid.T) {
		h := genHistory(t, 0, rapid.Bool().Draw(t, "at-least-once"), true)
		c := h.checker()
		h.feedLagging(c)
		requireHolds(t, c.Finish())
	}))
	t.Run("retention", rapid.MakeCheck(func(t *rapid.T) {
		h := genHistory(t, 0, rapid.Bool().Draw(t, "at-least-once"), rapid.Bool().Draw(t, "rewinds"))
		retention(t, h)
		c := h.checker()
		h.feedLagging(c)
		requireHolds(t, c.Finish())
	}))
	t.Run("commits meanwhile", rapid.MakeCheck(func(t *rapid.T) {
		h := genHistory(t, 0, rapid.Bool().Draw(t, "at-least-once"), false)
		was := *h
		// The commit that was read is older than the outputs.
		older := rapid.Int64Range(h.scope.Origin, h.scope.Committed).Draw(t, "older")
		h.scope.Committed, h.scope.Next, h.scope.Quiet = older, older, false
		h.scope.Buffered, h.scope.BufferedSum = was.scope.Buffered+3, 0
		c := h.checker()
		h.feedAnyhow(t, c)
		if r := c.Finish(); !r.Holds() {
			t.Fatalf("flagged: %+v", r.Faults)
		}
	}))
}
