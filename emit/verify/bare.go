package verify

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/watermark"
)

// bare is an output without identity, for want of room.
type bare struct {
	suspect
	ids     []uint64 // of its identity and event time, as its headers may be taken
	known   bool     // it names its epoch
	behind  int      // how many outputs with identity stand before it in its topic
	earlier bool     // it may be of an earlier generation
}

// bareOutput sets an output aside that does not name its source record.
func (c *Checker) bareOutput(r *kgo.Record) {
	c.report.Bare++
	b := bare{suspect: c.suspected(), known: c.out.Has(emit.WordEpoch), behind: c.named[0]}
	if b.late {
		b.behind = c.named[1]
	} else {
		b.ids = c.identities()
	}
	c.bares = append(c.bares, b)
	source := c.reader(b.late).Name(emit.WordSourceOffset)
	lacks := []string{source}
	if b.late {
		lacks = c.readers[1].Names()
	}
	switch {
	case c.rules.Required.SourceOffset && c.fits(&c.out, r, lacks...):
		c.faultf(KindMissingHeader, "%s, though there is room for it", source)
		return
	case b.late || c.rules.Unnamed || c.out.Has(emit.WordSourceOffset):
		return
	}
	less := func(word string, asked bool) {
		if name := c.readers[0].Name(word); asked && c.out.Has(word) && !carries(&c.out.Source, name) {
			c.faultf(KindMissingHeader, "%s, though it has %s, which is less needed", source, name)
		}
	}
	less(emit.WordWatermark, c.rules.Required.Watermark)
	less(emit.WordEventTime, c.rules.Required.EventTime)
}

// identities returns what c.out may be known by, for its own headers may have been taken
// for ours.
func (c *Checker) identities() (ids []uint64) {
	o := &c.out
	r := o.Source
	for n := len(o.Source.Headers); n <= len(o.Headers); n++ {
		r.Headers = o.Headers[:n]
		if t, err := c.rules.EventTime(&r); err == nil { // what repeats it was judged by that, if anything was
			if id, ok := c.identify(&r, t); ok {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// carries reports whether a source record has a header of a name. Ours of that name then
// stays, whatever the want of room.
func carries(r *kgo.Record, name string) bool {
	return slices.ContainsFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == name })
}

// fits reports whether an output would fit with headers that it lacks. Headers go one
// after the other, so a record without one was too large with that and nothing else;
// but what a late record says of itself goes at once.
func (c *Checker) fits(o *output, r *kgo.Record, lacks ...string) bool {
	limit, size := c.rules.OrderedMax, emit.WireSize(r)
	if o.late {
		limit, size = c.rules.LateMax, size+len(c.rules.Topic)
	}
	if limit == 0 {
		limit = defaultMaxBatch
	}
	for _, name := range lacks {
		size += emit.HeaderFraming + len(name) + longestNumber
	}
	return size <= limit
}

const (
	defaultMaxBatch = 1_000_012 // of brokers that were told nothing
	longestNumber   = 20        // digits and sign of an int64, and longer than any reason
)

// requires judges whether an ordered record has the headers that are asked for. It may
// lack some for want of room, the least needed first.
func (c *Checker) requires(r *kgo.Record) {
	o := &c.out
	var lacks []string
	if c.rules.Required.EventTime && !o.Has(emit.WordEventTime) {
		lacks = append(lacks, c.readers[0].Name(emit.WordEventTime))
	}
	if c.rules.Required.Watermark && !o.Has(emit.WordWatermark) {
		lacks = append(lacks, c.readers[0].Name(emit.WordWatermark))
	}
	if len(lacks) == 0 {
		return
	}
	last := lacks[len(lacks)-1]
	if c.fits(&c.out, r, last) {
		c.settingFault(KindMissingHeader, "%s, though there is room for it", last)
		return
	}
	less := o.Windows
	if !o.Has(emit.WordWatermark) && o.Has(emit.WordEventTime) {
		less = append(slices.Clip(less), kgo.RecordHeader{Key: c.readers[0].Name(emit.WordEventTime)})
	}
	for _, h := range less {
		if !carries(&o.Source, h.Key) {
			c.settingFault(KindMissingHeader, "%s, though it has %s, which is less needed", last, h.Key)
			return
		}
	}
	c.report.Trimmed++
}

// bareRun is the ordered records without identity since the last that has one. Of
// their places only the event times are known, and sometimes the epochs. Event times
// go back only where an epoch begins, so between two records of one epoch they never do.
type bareRun struct {
	begun  bool
	epoch  int64          // the last one known
	last   watermark.Time // of the record before
	falls  int64          // how often event times have gone back since the last known epoch
	lowest watermark.Time // of those without identity since it
	any    bool
}

// bareInOrder judges the order of c.out, which has no identity.
func (c *Checker) bareInOrder() {
	if c.rules.AtLeastOnce {
		return // it may be one that comes again
	}
	o := &c.out
	t, gap, err := c.eventTime(&o.Source, -1, anyEpoch)
	if gap != "" {
		c.skip(gap)
	}
	if err != nil {
		return // its own headers may have been taken for ours
	}
	c.fall(t)
	if o.Has(emit.WordEpoch) {
		c.settleRun(o.Epoch)
	}
	run := &c.ordered.run
	if !run.any || t < run.lowest {
		run.any, run.lowest = true, t
	}
}

// endRun judges the records without identity before one that has a place.
func (c *Checker) endRun(p place) {
	run := &c.ordered.run
	if c.rules.AtLeastOnce {
		return
	}
	if run.any {
		c.fall(p.Time)
	}
	c.bareTruth(p.epoch)
	c.settleRun(p.epoch)
	run.last, run.begun = p.Time, true
}

// bareTruth judges the records without identity before one of an epoch by the watermarks
// before them.
func (c *Checker) bareTruth(epoch int64) {
	run, s := &c.ordered.run, &c.ordered
	if run.any && epoch == s.last.epoch && s.lines > 0 && run.lowest.Millis() <= s.mark {
		c.settingFault(KindWatermarkLie, "event time %d ms, of a record without headers before this one, comes after watermark %d", run.lowest.Millis(), s.mark)
	}
	run.any = false
}

func (c *Checker) fall(t watermark.Time) {
	run := &c.ordered.run
	if run.begun && t < run.last {
		run.falls++
	}
	run.last, run.begun = t, true
}

// settleRun says that an epoch has been reached.
func (c *Checker) settleRun(epoch int64) {
	run := &c.ordered.run
	if run.falls > max(epoch-run.epoch, 0) {
		c.settingFault(KindOutOfOrder, "among the records without headers before this one, event times go back %d times from epoch %d to %d",
			run.falls, run.epoch, epoch)
	}
	run.falls, run.epoch = 0, max(run.epoch, epoch)
}

// settleEarlierBares looks for the source records of the outputs without identity in a
// generation that is over. Those behind its last output with identity may be of the
// next, unless they name their epoch.
func (c *Checker) settleEarlierBares() {
	offsets := c.unmatchedByHash()
	slices.SortStableFunc(c.bares, func(a, b bare) int {
		switch {
		case a.late == b.late:
			return 0
		case b.late:
			return -1
		}
		return 1
	})
	c.bares = slices.DeleteFunc(c.bares, func(b bare) bool {
		last := c.named[0]
		if b.late {
			last = c.named[1]
		}
		if b.behind == last && !(b.known && b.epoch < c.epochs.end()) {
			return false
		}
		source, found := c.homeOf(&b, offsets, true)
		c.repeats.original(&b, -1) // it may be of one from below what is read for this generation
		if found && c.rules.AtLeastOnce && c.epochs.end() > c.epochs.last {
			c.shown.set(source)
		}
		c.report.Replayed++
		return true
	})
	for i := range c.bares {
		c.bares[i].earlier = true
	}
	c.proveByBares()
	if !c.rules.AtLeastOnce {
		c.repeats.bares = nil // what the next drops has its originals there
	}
}

// unmatchedByHash returns the source records that are in no output, lowest first.
func (c *Checker) unmatchedByHash() map[uint64][]int64 {
	offsets := map[uint64][]int64{}
	if len(c.bares) == 0 {
		return offsets
	}
	for source, h := range c.missing {
		offsets[h] = append(offsets[h], source)
	}
	for source, p := range c.raws {
		offsets[p.hash] = append(offsets[p.hash], source)
	}
	if c.final() {
		for h, sources := range c.newer {
			offsets[h] = append(offsets[h], sources...)
		}
	}
	for _, sources := range offsets {
		slices.Sort(sources)
	}
	return offsets
}

// seeksNewer reports whether outputs without identity may be of source records that
// were read after the commit, so that the source is to be read to its end.
func (c *Checker) seeksNewer() bool {
	if len(c.bares) == 0 || c.exact() {
		return false
	}
	if c.newer != nil {
		return true
	}
	c.newer = map[uint64][]int64{}
	for _, b := range c.bares {
		for _, h := range append([]uint64{b.hash}, b.others...) {
			c.newer[h] = nil
		}
	}
	return true
}

// noteNewer takes note of a source record from above Next that is in no output.
func (c *Checker) noteNewer(offset int64, h uint64) {
	if sources, sought := c.newer[h]; sought {
		c.newer[h] = append(sources, offset)
	}
}

// homeOf finds the source record of an output without identity, by its bytes. What the
// commit still owes is out only if it went to the late topic, as from the future.
func (c *Checker) homeOf(b *bare, offsets map[uint64][]int64, owed bool) (source int64, found bool) {
	for _, h := range append([]uint64{b.hash}, b.others...) {
		left := offsets[h]
		i := slices.IndexFunc(left, func(source int64) bool { return owed || !c.owes(source) })
		if i >= 0 {
			source = left[i]
			c.guessed = c.guessed || owed && c.final() && len(left) > 1
			offsets[h] = slices.Delete(left, i, i+1)
			return source, true
		}
	}
	return -1, false
}

// owes reports whether a source record that is in no output was owed by a commit of the
// same instant.
func (c *Checker) owes(source int64) bool {
	p, ok := c.raws[source]
	return ok && c.final() && c.exact() && p.timing == timeUsable && c.mayBeHeld(source, p)
}

// settleBares finds the source records of the outputs without identity, by their bytes:
// first among those that have to be somewhere, for the ordered ones before the late ones,
// of which they may be the originals; then, for the late ones, among those that seem to
// be owed, as long as these are more than the commit owes.
func (c *Checker) settleBares() {
	offsets := c.unmatchedByHash()
	c.findBares(offsets, false, func(b *bare) bool { return !b.late })
	c.findBares(offsets, false, func(b *bare) bool { return b.late })
	c.findBares(offsets, true, func(b *bare) bool { return b.late && int64(len(c.raws)) > c.scope.Buffered })
	for i := range c.bares {
		b := &c.bares[i]
		c.guessed = c.guessed || b.late
		c.repeats.original(b, -1)
		switch {
		case max(c.scope.RawStart, c.scope.OrderedStart, c.scope.LateStart) > 0 || c.compacted:
			c.report.Expired++
		case b.earlier || c.scope.Epoch > 0:
			c.report.Replayed++
		case c.rules.AtLeastOnce:
			c.report.Repeated++
		default:
			b.why = "has no source offset, and no source record without an output has its bytes"
			c.fault(KindDuplicate, b.suspect)
		}
	}
	if run := &c.ordered.run; c.scope.Quiet && run.falls > max(c.scope.Epoch-run.epoch, 0) {
		s := suspect{source: -1, offset: -1}
		s.why = fmt.Sprintf("among the last records of .ordered, which have no headers, event times go back %d times from epoch %d to %d",
			run.falls, run.epoch, c.scope.Epoch)
		c.fault(KindOutOfOrder, s)
	}
}

// unmiss strikes a source record off those without an output.
func (c *Checker) unmiss(source int64) {
	delete(c.missing, source)
	delete(c.raws, source)
}

// findBares looks for the source records of some outputs without identity. Those that
// are found are done with.
func (c *Checker) findBares(offsets map[uint64][]int64, owed bool, which func(*bare) bool) {
	c.bares = slices.DeleteFunc(c.bares, func(b bare) bool {
		if !which(&b) {
			return false
		}
		source, found := c.homeOf(&b, offsets, owed)
		if !found {
			return false
		}
		c.unmiss(source)
		if source >= c.scope.Next {
			c.report.Read++
		}
		if c.compacted || c.scope.RawStart > c.scope.Origin {
			source = -1 // it may be of an equal one that is gone
		}
		c.repeats.original(&b, source)
		return true
	})
}
