package verify

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// A breach breaks a correct triple in a way that the contract forbids and that can be
// proven by what is left of the triple. It returns false where there is no place for it.
type breach struct {
	name  string
	apply func(m *maker, t *triple) bool
}

// one of the outputs for which ok holds, and its index; nil if there is none.
func (m *maker) pick(log []*made, ok func(o *made) bool) (int, *made) {
	fit := []int{}
	for i, o := range log {
		if ok(o) {
			fit = append(fit, i)
		}
	}
	if len(fit) == 0 {
		return -1, nil
	}
	i := fit[m.IntN(len(fit))]
	return i, log[i]
}

func (t *triple) outputs() []*made { return slices.Concat(t.ordered, t.late) }

// exact: commit and outputs are of one instant.
func (t *triple) exact() bool { return t.scope.Quiet && !t.rules.AtLeastOnce }

// judged: what an output says of itself is judged, and not dropped as a repeat.
func (t *triple) judged(o *made) bool { return !o.bare && !t.unsure(o) && !t.repeats }

// unsure: the output has lost its epoch, or what it says of itself, for want of room,
// and its source carries headers that had to be overruled.
func (t *triple) unsure(o *made) bool {
	if t.rules.OrderedMax == 0 {
		return false
	}
	epoch := o.epoch > 0 && o.ours(t.rules.Prefix+emit.WordEpoch) < 0
	return epoch || t.carriesOurs(o) || o.late && o.ours(t.rules.Prefix+emit.WordLateReason) < 0
}

// carriesOurs: the source record has a header with one of our names.
func (t *triple) carriesOurs(o *made) bool {
	return slices.ContainsFunc(o.rec.Headers[:o.own], func(h kgo.RecordHeader) bool {
		return strings.HasPrefix(h.Key, t.rules.Prefix)
	})
}

func (t *triple) rawAt(offset int64) *kgo.Record {
	i, ok := slices.BinarySearchFunc(t.raw, offset, func(r *kgo.Record, offset int64) int { return int(r.Offset - offset) })
	if !ok {
		return nil
	}
	return t.raw[i]
}

// lastGeneration returns the lowest epoch of which it cannot be proven that it was before
// the group was last reset: of all pairs of outputs, by brute force.
func (t *triple) lastGeneration() (last int64) {
	s := &t.scope
	before := func(o *made) { last = max(last, o.epoch+1) }
	known := slices.DeleteFunc(t.outputs(), func(o *made) bool { return o.bare || t.unsure(o) })
	for _, a := range known {
		if a.epoch < s.Epoch && a.source < s.Origin {
			before(a)
		}
		if t.rules.AtLeastOnce {
			continue
		}
		if a.epoch < s.Epoch && a.source >= s.Committed {
			before(a)
		}
		for _, b := range known {
			if a.epoch < b.epoch && a.source >= b.source {
				before(a)
			}
		}
	}
	return last
}

// provablyLost reports whether a source record has to be in an output and is in none.
func (t *triple) provablyLost(offset int64) bool {
	s, r := &t.scope, t.rawAt(offset)
	if r == nil || offset < s.Origin || offset >= s.Next {
		return false
	}
	at, err := t.rules.EventTime(r)
	p := reorder.Position{Time: at, Offset: offset}
	if _, has := framed(r.Value); t.rules.SchemaID != nil && has {
		return false // it may have been judged otherwise
	}
	last := t.lastGeneration()
	if err == nil && s.owed(p) && !t.moreThanBuffered(last) {
		return false
	}
	for _, o := range t.outputs() {
		switch {
		case o.bare || t.unsure(o):
			if string(o.rec.Value) == string(r.Value) {
				return false // it may be that one
			}
		case o.epoch >= last && o.source == offset:
			return false
		}
	}
	if err == nil && t.mayHaveBeenOrdered(p, last) || t.mayHaveBeenLate(offset, last) {
		return false
	}
	return !t.rules.Dropped || err != nil || !t.mayBeDropped(r, p, last)
}

// moreThanBuffered reports whether more records are in no output and may be buffered
// than are.
func (t *triple) moreThanBuffered(last int64) bool {
	if !t.whole() || t.scope.LateStart > 0 {
		return false
	}
	n := int64(0)
	for _, r := range t.raw {
		at, err := t.rules.EventTime(r)
		if err == nil && t.scope.owed(reorder.Position{Time: at, Offset: r.Offset}) &&
			!slices.ContainsFunc(t.outputs(), func(o *made) bool { return o.source == r.Offset && o.epoch >= last }) {
			n++
		}
	}
	return n > t.scope.Buffered
}

func (t *triple) mayHaveBeenOrdered(p reorder.Position, last int64) bool {
	if t.scope.OrderedStart == 0 {
		return false
	}
	i := slices.IndexFunc(t.ordered, func(o *made) bool { return !o.bare && !t.unsure(o) })
	if i < 0 {
		return true
	}
	f := t.ordered[i]
	if f.epoch < last {
		return false
	}
	from, above := false, false
	for _, o := range t.outputs() {
		if known := !o.bare && !t.unsure(o); known && o.source <= p.Offset {
			from, above = from || o.epoch >= f.epoch, above || o.epoch > f.epoch
		}
	}
	return !above && (!from && f.epoch > last || p.Before(reorder.Position{Time: f.time, Offset: f.source}))
}

func (t *triple) mayHaveBeenLate(offset, last int64) bool {
	if t.scope.LateStart == 0 {
		return false
	}
	i := slices.IndexFunc(t.late, func(o *made) bool { return !o.bare && !t.unsure(o) && o.verdict != reorder.Duplicate })
	if i < 0 {
		return true
	}
	f := t.late[i]
	return f.epoch >= last && offset < f.source
}

func (t *triple) mayBeDropped(r *kgo.Record, p reorder.Position, last int64) bool {
	id := t.rules.Identity.OfRecord(r)
	if len(id) == 0 {
		return false
	}
	if t.scope.OrderedStart > 0 {
		return true
	}
	return slices.ContainsFunc(t.ordered, func(o *made) bool { return o.time == p.Time && o.epoch >= last || o.bare || t.unsure(o) })
}

// replace puts another in the place of an output's record.
func (o *made) replace(change func(r *kgo.Record)) {
	r := *o.rec
	r.Headers = slices.Clone(r.Headers)
	change(&r)
	o.rec = &r
}

// set gives a header of ours another value.
func (t *triple) set(o *made, word string, value any) bool {
	i := o.ours(t.rules.Prefix + word)
	if i >= 0 {
		o.replace(func(r *kgo.Record) { r.Headers[i].Value = []byte(fmt.Sprint(value)) })
	}
	return i >= 0
}

func (t *triple) number(o *made, word string) (n int64, has bool) {
	i := o.ours(t.rules.Prefix + word)
	if i < 0 {
		return 0, false
	}
	n, err := strconv.ParseInt(string(o.rec.Headers[i].Value), 10, 64)
	return n, err == nil
}

func remove(log *[]*made, i int) { *log = slices.Delete(slices.Clone(*log), i, i+1) }

func insert(log *[]*made, i int, o *made) { *log = slices.Insert(slices.Clone(*log), i, o) }

// either picks one of the two output topics.
func (t *triple) either(m *maker) *[]*made {
	if m.one(2) {
		return &t.late
	}
	return &t.ordered
}

// lie returns a breach of what an output says of itself.
func lie(name string, late bool, change func(m *maker, t *triple, o *made) bool) breach {
	return breach{name, func(m *maker, t *triple) bool {
		log := t.ordered
		if late {
			log = t.late
		}
		_, o := m.pick(log, t.judged)
		return o != nil && change(m, t, o)
	}}
}

// changes reports whether other bytes than those of the source prove something: the
// source is there, and it is no other topic's.
func (t *triple) changes(o *made) bool {
	if o.bare || t.unsure(o) || t.repeats || t.rawAt(o.source) == nil || o.topic != t.topic {
		return false
	}
	if o.epoch >= t.scope.Epoch {
		return true
	}
	if t.rules.AtLeastOnce || t.compacted {
		return false
	}
	same := 0
	for _, p := range t.outputs() {
		if p.bare || t.unsure(p) || p.epoch != o.epoch || p == o {
			continue
		}
		if t.rawAt(p.source) != nil {
			same++
		} else if p.source >= t.scope.RawStart {
			return false
		}
	}
	return same >= 1
}

var breaches = []breach{
	{"an output is missing", func(m *maker, t *triple) bool {
		log := t.either(m)
		i, o := m.pick(*log, func(o *made) bool { return t.scope.Epoch == 0 || o.epoch > 0 })
		if o == nil {
			return false
		}
		remove(log, i)
		return t.provablyLost(o.source) && o.topic == t.topic
	}},
	{"outputs are missing", func(m *maker, t *triple) bool {
		log := t.either(m)
		i, o := m.pick(*log, func(*made) bool { return true })
		if o == nil {
			return false
		}
		n := min(1+m.IntN(10), len(*log)-i)
		gone := (*log)[i : i+n]
		*log = slices.Delete(slices.Clone(*log), i, i+n)
		return slices.ContainsFunc(gone, func(o *made) bool { return o.topic == t.topic && t.provablyLost(o.source) })
	}},
	{"an output comes twice", func(m *maker, t *triple) bool {
		log := t.either(m)
		i, o := m.pick(*log, func(o *made) bool { return !o.bare && !t.unsure(o) })
		if o == nil || t.rules.AtLeastOnce {
			return false
		}
		insert(log, i+1+m.IntN(len(*log)-i), o)
		return true
	}},
	{"an ordered record is late, too", func(m *maker, t *triple) bool {
		_, o := m.pick(t.ordered, func(o *made) bool { return !o.bare && !t.unsure(o) && o.time != watermark.None })
		if o == nil || t.rules.AtLeastOnce {
			return false
		}
		in := *o.rec
		in.Headers, in.Offset = in.Headers[:o.own], o.source
		why := emit.Lateness{Verdict: reorder.Future, Time: o.time, Watermark: watermark.None, Epoch: uint32(o.epoch), AtMs: 1}
		late := *o
		late.late, late.rec = true, emit.NewOutbox(emit.Headers{Prefix: t.rules.Prefix}).Late(m.source(), &in, why)
		at := slices.IndexFunc(t.late, func(l *made) bool { return l.epoch > o.epoch || l.epoch == o.epoch && l.source > o.source })
		if at < 0 {
			at = len(t.late)
		}
		insert(&t.late, at, &late)
		return true
	}},
	{"two ordered records change places", func(m *maker, t *triple) bool {
		for i := range t.ordered {
			i = (i + m.IntN(len(t.ordered))) % len(t.ordered)
			if i == 0 {
				continue
			}
			a, b := t.ordered[i-1], t.ordered[i]
			if a.epoch != b.epoch || !t.judged(a) || !t.judged(b) || t.rules.AtLeastOnce && t.scope.OrderedStart > 0 {
				continue
			}
			t.ordered = slices.Clone(t.ordered)
			t.ordered[i-1], t.ordered[i] = b, a
			return true
		}
		return false
	}},
	{"a record without headers changes places", func(m *maker, t *triple) bool {
		for i := range t.ordered {
			if i == 0 || t.scope.Epoch > 0 || !t.exact() || t.scope.OrderedStart > 0 {
				continue
			}
			a, b := t.ordered[i-1], t.ordered[i]
			if a.time == b.time || !a.bare && !b.bare || t.unsure(a) != a.bare && t.carriesOurs(a) || t.carriesOurs(b) || t.carriesOurs(a) {
				continue
			}
			t.ordered = slices.Clone(t.ordered)
			t.ordered[i-1], t.ordered[i] = b, a
			return true
		}
		return false
	}},
	{"another value", func(m *maker, t *triple) bool {
		_, o := m.pick(*t.either(m), t.changes)
		if o == nil {
			return false
		}
		o.replace(func(r *kgo.Record) { r.Value = append(slices.Clone(r.Value), '!') })
		return true
	}},
	{"another timestamp", func(m *maker, t *triple) bool {
		_, o := m.pick(*t.either(m), t.changes)
		if o == nil {
			return false
		}
		o.replace(func(r *kgo.Record) { r.Timestamp = r.Timestamp.Add(time.Millisecond) })
		return true
	}},
	{"a header of the source less", func(m *maker, t *triple) bool {
		_, o := m.pick(*t.either(m), t.changes)
		if o == nil {
			return false
		}
		o.replace(func(r *kgo.Record) { r.Headers = slices.Delete(r.Headers, 0, 1) })
		return true
	}},
	{"null for an empty key, or the other way round", func(m *maker, t *triple) bool {
		_, o := m.pick(*t.either(m), func(o *made) bool { return t.changes(o) && len(o.rec.Key) == 0 })
		if o == nil {
			return false
		}
		o.replace(func(r *kgo.Record) {
			if r.Key == nil {
				r.Key = []byte{}
			} else {
				r.Key = nil
			}
		})
		return true
	}},
	{"a source offset that holds no record", func(m *maker, t *triple) bool {
		_, o := m.pick(*t.either(m), func(o *made) bool {
			return !o.bare && !t.unsure(o) && o.epoch >= t.scope.Epoch && !t.repeats
		})
		if o == nil {
			return false
		}
		hole := t.scope.RawEnd + int64(m.IntN(3))
		if !t.compacted && m.one(2) {
			hole = max(t.scope.RawStart, t.scope.Origin)
			for t.rawAt(hole) != nil {
				hole++
			}
		}
		o.source = hole
		return t.set(o, emit.WordSourceOffset, hole)
	}},
	{"an output of before the group began", func(m *maker, t *triple) bool {
		_, o := m.pick(t.ordered, func(o *made) bool { return t.judged(o) && o.epoch == t.scope.Epoch })
		if o == nil || t.rules.AtLeastOnce || t.scope.Origin == 0 {
			return false
		}
		return t.set(o, emit.WordSourceOffset, m.Int64N(t.scope.Origin))
	}},
	lie("a watermark that the next record breaks", false, func(m *maker, t *triple, o *made) bool {
		i := slices.Index(t.ordered, o)
		if i+1 == len(t.ordered) || t.ordered[i+1].epoch != o.epoch || !t.judged(t.ordered[i+1]) || !t.rules.Required.Watermark {
			return false
		}
		return t.set(o, emit.WordWatermark, t.ordered[i+1].time.Millis()+int64(m.IntN(2)))
	}),
	lie("a watermark that goes back", false, func(_ *maker, t *triple, o *made) bool {
		i := slices.Index(t.ordered, o)
		if i == 0 || t.ordered[i-1].epoch != o.epoch || !t.judged(t.ordered[i-1]) || !t.rules.Required.Watermark {
			return false
		}
		w, has := t.number(t.ordered[i-1], emit.WordWatermark)
		return has && t.set(o, emit.WordWatermark, w-1)
	}),
	lie("a watermark behind its record", false, func(_ *maker, t *triple, o *made) bool {
		return t.rules.Required.Watermark && t.set(o, emit.WordWatermark, o.time.Millis()-2)
	}),
	lie("a watermark above the group's own", false, func(_ *maker, t *triple, o *made) bool {
		if !t.exact() || o.epoch != t.scope.Epoch || t.scope.W == watermark.None || !t.rules.Required.Watermark {
			return false
		}
		return t.set(o, emit.WordWatermark, t.scope.W.Next().Millis())
	}),
	lie("a watermark that is no number", false, func(_ *maker, t *triple, o *made) bool {
		return t.rules.Required.Watermark && t.set(o, emit.WordWatermark, "soon")
	}),
	lie("another event time in its header", false, func(_ *maker, t *triple, o *made) bool {
		return t.set(o, emit.WordEventTime, o.time.Millis()+1)
	}),
	lie("another window", false, func(_ *maker, t *triple, o *made) bool {
		return o.time != watermark.None && t.set(o, "window-tumbling:7ms", fmt.Sprintf("%d,%d", o.time.Millis()+1, o.time.Millis()+8))
	}),
	lie("another window of a late record", true, func(_ *maker, t *triple, o *made) bool {
		return o.time != watermark.None && t.set(o, "window-tumbling:7ms", fmt.Sprintf("%d,%d", o.time.Millis()+1, o.time.Millis()+8))
	}),
	lie("an epoch that the group has not come to", false, func(_ *maker, t *triple, o *made) bool {
		return t.exact() && t.scope.Epochs && t.set(o, emit.WordEpoch, t.scope.Epoch+1)
	}),
	lie("a required header is missing", false, func(m *maker, t *triple, o *made) bool {
		word := choose(m, emit.WordWatermark, emit.WordEventTime)
		if word == emit.WordWatermark && !t.rules.Required.Watermark || word == emit.WordEventTime && !t.rules.Required.EventTime || t.carriesOurs(o) {
			return false
		}
		i := o.ours(t.rules.Prefix + word)
		if i < 0 || t.rules.OrderedMax > 0 && emit.WireSize(o.rec) > t.rules.OrderedMax-40 {
			return false
		}
		o.replace(func(r *kgo.Record) { r.Headers = slices.Delete(r.Headers, i, i+1) })
		return true
	}),
	{"a small record has lost all our headers", func(m *maker, t *triple) bool {
		_, o := m.pick(*t.either(m), func(o *made) bool {
			return !o.bare && !t.carriesOurs(o) && (t.rules.OrderedMax == 0 || emit.WireSize(o.rec) <= t.rules.OrderedMax-250)
		})
		if o == nil {
			return false
		}
		o.replace(func(r *kgo.Record) { r.Headers = r.Headers[:o.own] })
		return true
	}},
	lie("late by another time", true, func(_ *maker, t *triple, o *made) bool {
		by, has := t.number(o, emit.WordLateByMs)
		return has && t.set(o, emit.WordLateByMs, by+1)
	}),
	lie("behind a watermark that it is above", true, func(_ *maker, t *triple, o *made) bool {
		return t.set(o, emit.WordLateByMs, -1) && t.set(o, emit.WordWatermark, o.time.Millis()-1)
	}),
	lie("an unknown reason", true, func(_ *maker, t *triple, o *made) bool { return t.set(o, emit.WordLateReason, "bored") }),
	lie("another topic", true, func(_ *maker, t *triple, o *made) bool { return t.set(o, emit.WordSourceTopic, "others") }),
	lie("another partition", true, func(_ *maker, t *triple, o *made) bool { return t.set(o, emit.WordSourcePartition, 4) }),
	lie("a time of coming that is none", true, func(_ *maker, t *triple, o *made) bool { return t.set(o, emit.WordLateAt, "noon") }),
	lie("an invalid time passed for another reason", true, func(_ *maker, t *triple, o *made) bool {
		return o.verdict == reorder.InvalidTime && t.unreadable(o) && t.set(o, emit.WordLateReason, "future")
	}),
	lie("an invalid time that is none", true, func(_ *maker, t *triple, o *made) bool {
		return o.verdict == reorder.Future && t.set(o, emit.WordLateReason, "invalid-time")
	}),
	lie("a duplicate of nothing", true, func(_ *maker, t *triple, o *made) bool {
		if t.rules.Identity.Kind == emit.NoIdentity || o.verdict != reorder.Future || t.scope.OrderedStart > 0 {
			return false
		}
		if slices.ContainsFunc(t.ordered, func(p *made) bool { return p.bare || t.unsure(p) || p.time == o.time }) {
			return false
		}
		return t.set(o, emit.WordLateReason, "duplicate")
	}),
	lie("a late watermark that goes back", true, func(_ *maker, t *triple, o *made) bool {
		i := slices.Index(t.late, o)
		if i == 0 || t.late[i-1].epoch != o.epoch || !t.judged(t.late[i-1]) || t.rules.AtLeastOnce {
			return false
		}
		w, has := t.number(t.late[i-1], emit.WordWatermark)
		return has && t.set(o, emit.WordWatermark, w-1)
	}),
	lie("a late watermark above the group's own", true, func(_ *maker, t *triple, o *made) bool {
		if t.rules.AtLeastOnce || o.epoch != t.scope.Epoch || o.source >= t.scope.Next || t.scope.W == watermark.None {
			return false
		}
		return (t.scope.Quiet || o.verdict != reorder.Duplicate) && t.set(o, emit.WordWatermark, t.scope.W.Millis()+1)
	}),
	{"an ordered record below the watermark of a late one from before it", func(m *maker, t *triple) bool {
		stands := func(o *made) bool {
			_, has := t.number(o, emit.WordWatermark)
			return t.judged(o) && has && o.verdict != reorder.Duplicate
		}
		_, l := m.pick(t.late, stands)
		if l == nil || t.rules.AtLeastOnce {
			return false
		}
		_, o := m.pick(t.ordered, func(o *made) bool { return t.judged(o) && o.epoch == l.epoch && o.source > l.source })
		if o == nil {
			return false
		}
		w := o.time.Millis()
		if int64(o.time)%1e6 != 0 {
			w++
		}
		if now, _ := t.number(l, emit.WordWatermark); now >= w {
			return false
		}
		// All that comes behind it says so, too, that nothing else is wrong.
		for _, p := range t.late[slices.Index(t.late, l):] {
			if now, has := t.number(p, emit.WordWatermark); p.epoch == l.epoch && has && now < w {
				t.set(p, emit.WordWatermark, w)
				if _, has := t.number(p, emit.WordLateByMs); has {
					t.set(p, emit.WordLateByMs, w-p.time.Millis())
				}
			}
		}
		return true
	}},
	{"late records change places", func(m *maker, t *triple) bool {
		for i := range t.late {
			if i == 0 || t.rules.AtLeastOnce {
				continue
			}
			a, b := t.late[i-1], t.late[i]
			ordinary := func(o *made) bool { return t.judged(o) && o.verdict != reorder.Duplicate }
			if a.epoch != b.epoch || !ordinary(a) || !ordinary(b) || m.one(2) {
				continue
			}
			t.late = slices.Clone(t.late)
			t.late[i-1], t.late[i] = b, a
			return true
		}
		return false
	}},
	{"more is buffered than has not come out", func(_ *maker, t *triple) bool {
		t.scope.Buffered++
		return t.whole() && t.scope.LateStart == 0 && t.scope.RawStart <= t.scope.Committed && !t.compacted
	}},
	{"less is buffered than has not come out", func(_ *maker, t *triple) bool {
		t.scope.Buffered--
		return t.scope.Buffered >= 0 && t.whole() && t.scope.LateStart == 0 && t.scope.RawStart <= t.scope.Committed && !t.compacted
	}},
	{"others are buffered than have not come out", func(_ *maker, t *triple) bool {
		t.scope.BufferedSum++
		return t.scope.Buffered > 0 && t.whole() && t.scope.LateStart == 0 && t.scope.RawStart <= t.scope.Committed && !t.compacted
	}},
	{"what is buffered is out", func(m *maker, t *triple) bool {
		if !t.exact() || len(t.raw) == 0 {
			return false
		}
		for range 10 {
			r := t.raw[m.IntN(len(t.raw))]
			at, err := t.rules.EventTime(r)
			if _, has := framed(r.Value); has || err != nil || at > 600e6 || !t.scope.owed(reorder.Position{Time: at, Offset: r.Offset}) {
				continue
			}
			body := make([]byte, emit.BodySize(r))
			emit.PutBody(body, r)
			box := emit.NewOutbox(t.rules.Required)
			rel := reorder.Release{Position: reorder.Position{Time: at, Offset: r.Offset}, Epoch: uint32(t.scope.Epoch), Watermark: at.Millis() - 1, Body: body}
			o := &made{rec: box.Ordered(m.source(), &rel), own: len(r.Headers), source: r.Offset, epoch: t.scope.Epoch, time: at, topic: t.topic}
			t.ordered = append(slices.Clone(t.ordered), o)
			return true
		}
		return false
	}},
}

// unreadable: no event time can be had of it now.
func (t *triple) unreadable(o *made) bool {
	r := *o.rec
	r.Headers = r.Headers[:o.own]
	_, err := t.rules.EventTime(&r)
	return err != nil
}

// whole: what is in [L, H) and in no output is what is buffered.
func (t *triple) whole() bool {
	return t.exact() && (t.rules.SchemaID == nil || !slices.ContainsFunc(t.raw, func(r *kgo.Record) bool { _, has := framed(r.Value); return has })) &&
		!slices.ContainsFunc(t.late, func(o *made) bool { return o.bare || t.unsure(o) })
}

// TestCheckerOfBrokenTriples: no broken triple passes. The seed makes the triple and the
// breach.
func TestCheckerOfBrokenTriples(t *testing.T) {
	n, first := histories(2000)
	failed, broken := 0, map[string]int{}
	for seed, done := first, 0; done < n; seed++ {
		m := newMaker(seed)
		tr := m.make()
		b := breaches[seed%uint64(len(breaches))]
		if !b.apply(m, tr) {
			if seed-first > uint64(20*n+100) {
				t.Fatalf("only %d of %d triples could be broken", done, n)
			}
			continue
		}
		done++
		broken[b.name]++
		if tr.check().Holds() {
			t.Errorf("TIDEMARK_TEST_SEED=%d: %s, and it is said to hold", seed, b.name)
			if failed++; failed == 10 {
				return
			}
		}
	}
	for _, b := range breaches {
		if n >= 20_000 && broken[b.name] == 0 {
			t.Errorf("never: %s", b.name)
		}
	}
	t.Logf("%v", broken)
}
