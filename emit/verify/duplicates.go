package verify

import (
	"hash/maphash"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// repeats is what the checks of duplicates need. Two ordered records with one
// identity stand side by side. That a late or a dropped record is a duplicate is
// a claim: there has to be an ordered record of the same identity and event time
// from a lower offset. It may be far off, so it is looked for in a second reading
// of .ordered, if there are claims at all.
type repeats struct {
	at    place            // of the last ordered record
	group map[uint64]int64 // at its event time: the source offsets of identities

	claims map[uint64][]claim // by identity and event time
	bares  []bareOriginal
	quiet  map[int64]quiet // source records without an output, where duplicates are dropped
	untold Gap             // there are originals whose event time is not known, for this reason
}

// claim is a record that is said to repeat another.
type claim struct {
	suspect
	at     watermark.Time
	epoch  int64 // anyEpoch: of the last generation
	proven bool
}

const anyEpoch = -1

// quiet is a source record that may have been dropped.
type quiet struct {
	identity uint64
	at       reorder.Position
	gap      Gap // why nobody can tell what it repeats
}

// identify returns a hash of a record's identity and event time, if it has both.
func (c *Checker) identify(r *kgo.Record, t watermark.Time) (hash uint64, ok bool) {
	id := c.rules.Identity.OfRecord(r)
	if len(id) == 0 {
		return 0, false
	}
	var h maphash.Hash
	h.SetSeed(seed)
	maphash.WriteComparable(&h, t)
	h.Write(id)
	return h.Sum64(), true
}

// judgeGroup judges an ordered record by those of its event time before it.
func (c *Checker) judgeGroup(p place) {
	g := &c.repeats
	if c.rules.Identity.Kind == emit.NoIdentity {
		return
	}
	if p.epoch != g.at.epoch || p.Time != g.at.Time {
		clear(g.group)
	}
	g.at = p
	id, ok := c.identify(&c.out.Source, p.Time)
	if !ok {
		return
	}
	if first, found := g.group[id]; found {
		c.settingFault(KindDuplicate, "repeats source offset %d, which has the same identity and event time", first)
		return
	}
	g.group[id] = p.Offset
}

// claimDuplicate takes note that c.out, a late record, says it is a duplicate.
func (c *Checker) claimDuplicate(t watermark.Time) {
	if c.rules.Identity.Kind == emit.NoIdentity {
		return
	}
	id, ok := c.identify(&c.out.Source, t)
	if !ok {
		c.faultf(KindWrongLate, "duplicate, but it has no identity")
		return
	}
	c.repeats.claims[id] = append(c.repeats.claims[id], claim{suspect: c.out.suspect(), at: t, epoch: c.out.Epoch})
}

// mayBeDropped takes note of a source record that has no output yet.
func (c *Checker) mayBeDropped(r *kgo.Record) {
	if !c.rules.Dropped {
		return
	}
	t, gap, err := c.eventTime(r, r.Offset, anyEpoch)
	switch {
	case gap != "" && len(c.rules.Identity.OfRecord(r)) > 0:
		c.repeats.quiet[r.Offset] = quiet{gap: gap}
		return
	case err != nil:
		return
	}
	if id, ok := c.identify(r, t); ok {
		c.repeats.quiet[r.Offset] = quiet{identity: id, at: reorder.Position{Time: t, Offset: r.Offset}}
	}
}

// Claims says that all has been read, and reports whether .ordered has to be read
// once more, each record of it to be given to Original.
func (c *Checker) Claims() bool {
	c.OutputsEnd()
	owed := c.exact() || c.heldAreCommitted()
	for offset, q := range c.repeats.quiet {
		if q.gap != "" {
			if _, missing := c.missing[offset]; missing {
				delete(c.missing, offset)
				c.skip(q.gap)
			}
			continue
		}
		s := claim{suspect: suspect{source: offset, offset: -1}, at: q.at.Time, epoch: anyEpoch}
		if _, held := c.raws[offset]; held {
			if owed {
				continue
			}
			s.epoch = c.scope.Epoch
		} else if _, missing := c.missing[offset]; !missing {
			continue
		}
		// What it repeats may be gone.
		if c.orderedGone(reorder.Position{Time: q.at.Time, Offset: offset}) || c.begins != nil && q.at.Time == c.begins.Time {
			if _, missing := c.missing[offset]; missing {
				delete(c.missing, offset)
				c.report.Unproven++
			}
			continue
		}
		c.repeats.claims[q.identity] = append(c.repeats.claims[q.identity], s)
	}
	c.repeats.quiet = nil
	return len(c.repeats.claims) > 0
}

// heldAreCommitted reports whether the source records without an output are those that the
// commit says were buffered. None of them had been dropped by then.
func (c *Checker) heldAreCommitted() bool {
	return int64(len(c.raws)) == c.scope.Buffered && c.heldSum() == c.scope.BufferedSum
}

// heldSum returns the sum that the commit has of the source records without an output.
func (c *Checker) heldSum() (sum uint32) {
	for source := range c.raws {
		sum += reorder.OffsetHash(source)
	}
	return sum
}

// Original takes an ordered record, which may be what claims are about.
func (c *Checker) Original(r *kgo.Record) {
	var o output
	if !c.read(&o, r, false) {
		if c.rules.Unnamed {
			c.originalUnnamed(&o)
		}
		return
	}
	// Its own headers may have our names: see stripLess.
	for n := len(o.Source.Headers); n <= len(o.Headers); n++ {
		o.Source.Headers = o.Headers[:n]
		if t, _, err := c.eventTime(&o.Source, o.SourceOffset, o.Epoch); err == nil {
			c.prove(&o, t)
		}
	}
}

// prove settles the claims that an ordered record is the original of.
func (c *Checker) prove(o *output, t watermark.Time) {
	if id, ok := c.identify(&o.Source, t); ok {
		c.settleClaim(id, func(s *claim) bool {
			return o.SourceOffset < s.source && (s.epoch == anyEpoch && o.Epoch >= c.epochs.last || s.epoch == o.Epoch)
		})
	}
}

// bareOriginal is an ordered record without identity that claims may be about.
type bareOriginal struct {
	id     uint64
	source int64 // -1: unknown
}

// original takes note of one, whose source offset is known by its bytes, or not at all.
func (p *repeats) original(b *bare, source int64) {
	for _, id := range b.ids {
		p.bares = append(p.bares, bareOriginal{id, source})
	}
}

// proveByBares settles the claims that they are the originals of.
func (c *Checker) proveByBares() {
	for _, b := range c.repeats.bares {
		c.settleClaim(b.id, func(s *claim) bool { return b.source < s.source })
	}
}

func (c *Checker) settleClaim(id uint64, proven func(*claim) bool) {
	claims := c.repeats.claims[id]
	for i := range claims {
		claims[i].proven = claims[i].proven || proven(&claims[i])
	}
}

// without reports whether a source record is known to be in no output.
func (c *Checker) without(source int64) bool {
	_, missing := c.missing[source]
	_, held := c.raws[source]
	return missing || held
}

// settleClaims judges the claims. What a late record repeats may be gone where
// retention has shortened .ordered; what was not dropped is lost, or held.
func (c *Checker) settleClaims() {
	c.proveByBares()
	var left []claim
	for claims := range maps.Values(c.repeats.claims) {
		left = append(left, claims...)
	}
	slices.SortFunc(left, func(a, b claim) int { return int(a.source - b.source) })
	for _, s := range left {
		switch {
		case !s.late && s.proven && c.without(s.source):
			c.unmiss(s.source)
			c.report.Dropped++
		case s.late && !s.proven && !c.originalGone(&s) && c.scope.OrderedHidden:
			c.skip(GapOriginal)
		case s.late && !s.proven && !c.originalGone(&s) && c.repeats.untold != "":
			c.skip(c.repeats.untold)
		case s.late && !s.proven && !c.originalGone(&s):
			s.why = "duplicate, but no ordered record from before it has its identity and event time"
			c.fault(KindWrongLate, s.suspect)
		}
	}
}

// originalGone reports whether retention may have deleted what a late record repeats,
// an ordered record of the same epoch and event time. At least once, that may have been
// put out by a process that crashed, and be anywhere.
func (c *Checker) originalGone(s *claim) bool {
	switch b := c.begins; {
	case c.scope.OrderedStart == 0:
		return false
	case b == nil || c.rules.AtLeastOnce:
		return true
	default:
		return s.epoch < b.epoch || s.epoch == b.epoch && s.at <= b.Time
	}
}
