package verify

import (
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/watermark"
)

// lateState is what the truth of late records needs of those before.
type lateState struct {
	seen              bool  // one that is no duplicate
	first, firstEpoch int64 // source offset and epoch of the first of them
	source, epoch     int64 // and of the last
	marked            bool  // this epoch had a watermark
	mark              int64 // the last of it, ms
}

// behind says which reasons mean "behind a watermark".
var behind = map[string]bool{
	"behind-watermark": true, "overflow": true,
	"future": false, "invalid-time": false, "duplicate": false,
}

// Late takes the next record of `.late`. A late record says where it comes
// from, why it is there and by how much; all of it is checked but the wall
// clock's `late-at`. Late records come in the order of their source, but for
// duplicates, which come when they would have come out in order.
func (c *Checker) Late(r *kgo.Record) {
	o, s := &c.out, &c.late
	known := c.open(r, true)
	c.report.Late[c.reason()]++
	if !known {
		c.bareOutput(r)
		return
	}
	if v, has, err := o.Number(emit.WordSourcePartition); has && err == nil && v != int64(c.rules.Partition) {
		stray := o.suspect()
		stray.kind, stray.why = KindWrongPartition, fmt.Sprintf("comes from partition %d", v)
		c.stray(stray)
		return
	}
	seen := c.match()
	released := c.reason() == "duplicate"
	if !s.seen && !released && seen != foreign {
		s.seen, s.first, s.firstEpoch = true, o.SourceOffset, o.Epoch
	}
	if !c.counts(seen) {
		return
	}
	if !o.Has(emit.WordLateReason) && !c.fits(&c.out, r, c.readers[1].Names()...) {
		// It would be bare, were it not that what its source record says of the same
		// name had to be overruled.
		c.report.Trimmed++
		return
	}
	switch {
	case c.rules.AtLeastOnce && (o.Epoch < s.epoch || o.Epoch == s.epoch && !released && o.SourceOffset < s.source):
		c.judgeLate(true) // put out by a process that crashed, or by the one after it
		return
	case o.Epoch < s.epoch:
		c.faultf(KindWrongLate, "epoch %d follows epoch %d", o.Epoch, s.epoch)
		return
	case o.Epoch > s.epoch:
		s.epoch, s.source, s.marked = o.Epoch, -1, false
	}
	switch {
	case released:
	case o.SourceOffset < s.source:
		c.faultf(KindWrongLate, "comes after source offset %d", s.source)
	default:
		s.source = o.SourceOffset
	}
	c.judgeLate(released)
}

// reason returns the reason of c.out if it is one of the contract's.
func (c *Checker) reason() string {
	v := string(c.out.Value(emit.WordLateReason))
	if _, ok := behind[v]; !ok {
		return "unknown"
	}
	return v
}

// judgeLate judges what a late record says of itself. One stands elsewhere than its
// source record if it came out as a duplicate, or once more.
func (c *Checker) judgeLate(elsewhere bool) {
	o := &c.out
	why := c.reason()
	w, marked := c.lateMark(elsewhere)
	if marked && !elsewhere {
		c.noteMark(o.SourceOffset, w)
	}
	if marked {
		c.markByTheCommit(w, elsewhere)
	}
	if _, has, err := o.Number(emit.WordLateAt); !has || err != nil {
		c.faultf(KindWrongLate, "says that it was written here at %s", emit.Shown(o.Value(emit.WordLateAt)))
	}
	if why == "unknown" {
		c.faultf(KindWrongLate, "its reason (%s) does not exist", emit.KindOf(o.Value(emit.WordLateReason)))
		return
	}
	if says, has, err := o.Number(emit.WordLateTimestamp); has {
		if _, inside := watermark.FromMillis(says); err != nil || inside {
			c.faultf(KindWrongLate, "says that its source's timestamp is %s, which could have been written", emit.Shown(o.Value(emit.WordLateTimestamp)))
		}
	}
	if v := o.Value(emit.WordSourceTopic); string(v) != c.rules.Topic {
		c.faultf(KindWrongLate, "source topic is another one (%s)", emit.KindOf(v))
	}
	if !o.Has(emit.WordSourcePartition) || string(o.Value(emit.WordSourcePartition)) != strconv.Itoa(int(c.rules.Partition)) {
		c.faultf(KindWrongLate, "source partition is %s", emit.Shown(o.Value(emit.WordSourcePartition)))
	}
	t, gap, err := c.eventTime(&o.Source, o.SourceOffset, o.Epoch)
	if gap != "" {
		c.skip(gap)
		return
	}
	if err == nil {
		if wrong := c.wrongWindows(t); wrong != "" {
			c.settingFault(KindWrongLate, "%s", wrong)
		}
	}
	unknown := c.judgeSchema(why)
	switch {
	case why == "invalid-time" && err == nil && unknown:
		c.report.Registered++
	case why == "invalid-time" && err == nil:
		c.settingFault(KindWrongLate, "invalid-time, but its event time is %d ms", t.Millis())
	case why != "invalid-time" && err != nil:
		c.settingFault(KindWrongLate, "%s, but its event time is unusable: %v", why, err)
	case why == "invalid-time" && len(o.Windows) > 0:
		c.faultf(KindWrongLate, "invalid-time, but in windows")
	case behind[why]:
		c.judgeBehind(why, t, w, marked)
	case o.Has(emit.WordLateByMs):
		c.faultf(KindWrongLate, "%s, but late by %s", why, emit.Shown(o.Value(emit.WordLateByMs)))
	case why == "duplicate":
		c.claimDuplicate(t)
	}
}

// judgeSchema judges what is said of a schema, and reports whether it is, in truth as
// far as can be seen, that the registry did not have it. What a registry has said once
// nobody can check: by now it may have the schema. What it names must be the schema
// of the value.
func (c *Checker) judgeSchema(why string) (unknown bool) {
	o := &c.out
	for _, word := range []string{emit.WordUnknownSchema, emit.WordSchema} {
		if !o.Has(word) {
			continue
		}
		ours := why == "invalid-time" && c.rules.SchemaID != nil
		if ours {
			id, ok := c.rules.SchemaID(&o.Source)
			ours = ok && string(o.Value(word)) == id
		}
		if !ours {
			c.faultf(KindWrongLate, "%s for schema %s, which is not that of its value", why, emit.Shown(o.Value(word)))
			continue
		}
		unknown = unknown || word == emit.WordUnknownSchema
	}
	return unknown
}

// judgeBehind judges a record that is late because of the watermark it names.
func (c *Checker) judgeBehind(why string, t watermark.Time, w int64, marked bool) {
	by, has, err := c.out.Number(emit.WordLateByMs)
	switch {
	case !marked:
		c.faultf(KindWrongLate, "%s, but no watermark", why)
	case t.Millis() > w:
		c.settingFault(KindWrongLate, "%s, but its event time %d ms is above watermark %d", why, t.Millis(), w)
	case !has || err != nil || by != w-t.Millis():
		c.settingFault(KindWrongLate, "late by %s, which is %d ms", emit.Shown(c.out.Value(emit.WordLateByMs)), w-t.Millis())
	}
}

// lateMark reads the watermark of a late record, which never goes back. At least once,
// that of one that stands elsewhere than its source record may be of a process that
// crashed.
func (c *Checker) lateMark(elsewhere bool) (w int64, ok bool) {
	s := &c.late
	w, has, err := c.out.Number(emit.WordWatermark)
	switch {
	case !has:
		return 0, false
	case err != nil:
		c.faultf(KindWrongLate, "watermark (%s) is no number", emit.KindOf(c.out.Value(emit.WordWatermark)))
		return 0, false
	case elsewhere && c.rules.AtLeastOnce:
		return w, true
	case s.marked && w < s.mark:
		c.faultf(KindWrongLate, "watermark %d follows watermark %d", w, s.mark)
	}
	s.marked, s.mark = true, w
	return w, true
}

// markByTheCommit judges the watermark of a late record by that of the commit, which
// is as high at least.
func (c *Checker) markByTheCommit(w int64, elsewhere bool) {
	s := &c.scope
	switch o := &c.out; {
	case c.rules.AtLeastOnce || !c.final() || !s.Quiet && elsewhere:
	case o.Epoch > s.Epoch && s.Quiet:
		c.faultf(KindWrongLate, "epoch %d, but the group has only reached epoch %d", o.Epoch, s.Epoch)
	case o.Epoch == s.Epoch && o.SourceOffset < s.Next && w > s.W.Millis():
		c.faultf(KindWrongLate, "watermark %d, but the group's watermark has only reached %d ns", w, int64(s.W))
	}
}
