package verify

import (
	"maps"
	"math"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Epochs are of two kinds. One that begins with re-anchoring goes on where the one
// before ended, and together they show every source record once. One that begins with
// a reset of the group reads the source again, from anywhere, or even another topic of
// the same name: it owes all that it reads, whatever earlier epochs have put out. All
// epochs from one reset to the next are a generation; each generation is compared with
// a reading of the source of its own:
//
//	epoch            0            1      2        3
//	source offsets   0 ..... 40   41..60 61..90   30 ........ 120
//	                 └──── generation ─────┘      └─ generation ─┘
//	                                          reset to 30
//
// The last one owes all of [Origin, Next); what of the earlier ones never came out may
// have been held when the group was reset.
//
// Nothing says by which of the two an epoch began; it is told from what cannot be
// otherwise. In a generation the source offsets of an epoch lie below those of the
// next and not below the group's origin, and what an epoch before the commit's has put
// out lies below all that the commit holds. Where one of these is broken, there was a
// reset. So an epoch that may as well have begun with re-anchoring is taken for one
// that did.
//
// At least once, a crash may leave outputs of an epoch that never was: whether the clock
// has jumped back is judged once more, and by then memory or the wall clock may have
// moved the watermark. There only an output from below the origin shows that its epoch
// was before a reset; what any other epoch has put out is not demanded of the last. And
// a generation may begin only where epochs do not come back.
type epochs struct {
	reach map[int64]*reach // by epoch
	high  [2]int64         // the highest epoch so far, of ordered and late
	mixed []reach          // epochs that came back: from, the highest before

	all  []reach // by epoch, ascending
	min  []int64 // by the same index: the lowest source offset of it and of all later ones
	gens []int64 // the first epochs of the generations
	gen  int     // the generation being fed
	last int64   // the first epoch that may be of the last generation
}

// reach is how far the source offsets of an epoch reach.
type reach struct{ epoch, from, to int64 }

func newEpochs() epochs { return epochs{reach: map[int64]*reach{}} }

// Foresee takes an output before the outputs are fed. Where Scope says that there is
// more than one epoch, it has to be shown all of them.
func (c *Checker) Foresee(r *kgo.Record, late bool) {
	epoch, source := c.Place(r, late)
	if source < 0 {
		return
	}
	e, ok := c.epochs.reach[epoch]
	if !ok {
		e = &reach{epoch, source, source}
		c.epochs.reach[epoch] = e
	}
	e.from, e.to = min(e.from, source), max(e.to, source)
	i := 0
	if late {
		i = 1
	}
	if high := &c.epochs.high[i]; epoch < *high {
		c.epochs.comesBack(reach{from: epoch, to: *high})
	} else {
		*high = epoch
	}
}

// comesBack takes note of an epoch after a higher one.
func (e *epochs) comesBack(m reach) {
	if !slices.ContainsFunc(e.mixed, func(o reach) bool { return o.from <= m.from && m.to <= o.to }) {
		e.mixed = append(e.mixed, m)
	}
}

// divide finds the generations.
func (e *epochs) divide(s *Scope, atLeastOnce bool) {
	for _, epoch := range slices.Sorted(maps.Keys(e.reach)) {
		e.all = append(e.all, *e.reach[epoch])
	}
	e.reach = nil
	e.min = make([]int64, len(e.all)+1)
	e.min[len(e.all)] = math.MaxInt64
	for i := len(e.all) - 1; i >= 0; i-- {
		e.min[i] = min(e.min[i+1], e.all[i].from)
	}
	e.gens = []int64{0}
	for i, r := range e.all {
		cut, before := r.epoch+1, r.epoch < s.Epoch
		below := before && r.from < s.Origin
		again := r.to >= e.min[i+1] || before && r.to >= s.Committed
		if below || again && !atLeastOnce {
			e.last = cut
		}
		mixed := func(m reach) bool { return m.from < cut && cut <= m.to }
		if (below || again) && !(atLeastOnce && slices.ContainsFunc(e.mixed, mixed)) {
			e.gens = append(e.gens, cut)
		}
	}
}

// after returns the lowest source offset of all epochs above one.
func (e *epochs) after(epoch int64) int64 {
	i, _ := slices.BinarySearchFunc(e.all, epoch+1, func(r reach, epoch int64) int { return int(r.epoch - epoch) })
	if i >= len(e.min) {
		return math.MaxInt64
	}
	return e.min[i]
}

// current returns the first epoch of the generation being fed.
func (e *epochs) current() int64 {
	if len(e.gens) == 0 {
		return 0
	}
	return e.gens[e.gen]
}

// end returns the first epoch of the next generation.
func (e *epochs) end() int64 {
	if e.gen+1 >= len(e.gens) {
		return math.MaxInt64
	}
	return e.gens[e.gen+1]
}

// within returns the source offsets that the outputs of the generation being fed show.
func (e *epochs) within() (from, to int64) {
	from, to = math.MaxInt64, 0
	for _, r := range e.all {
		if r.epoch >= e.current() && r.epoch < e.end() {
			from, to = min(from, r.from), max(to, r.to+1)
		}
	}
	return min(from, to), to
}

// final reports whether the generation being fed is the last, the one that the commit
// is about.
func (c *Checker) final() bool { return c.epochs.gen+1 >= len(c.epochs.gens) }

// first begins with the first generation, and next with the one after, if there is one.
func (c *Checker) first() {
	c.epochs.divide(&c.scope, c.rules.AtLeastOnce)
	c.reread()
}

func (c *Checker) next() (more bool) {
	if c.final() {
		return false
	}
	c.unborn()
	c.settleEarlierBares()
	c.epochs.gen++
	c.reread()
	return true
}

// reread forgets the source, which is read from the beginning for each generation.
func (c *Checker) reread() {
	from, _ := c.reading()
	clear(c.raws)
	clear(c.arrived)
	clear(c.outside)
	c.unnamed.offsets = nil
	c.present, c.orphans, c.dubious, c.assumed = present{}, offsets{}, nil, 0
	c.recent = recent{on: c.rules.AtLeastOnce}
	c.rawNext, c.lowest = c.scope.RawStart, max(from, c.scope.RawStart)
}

// reading returns which of the source a generation is compared with.
func (c *Checker) reading() (from, to int64) {
	if c.final() {
		return c.scope.Origin, c.scope.Next
	}
	return c.epochs.within()
}

// vote is how many outputs of an epoch are what the source has at their offsets, and
// how many are not. The topic of now is that of the commit. In an earlier epoch it may
// have been another of the same name, which was deleted since. Then next to nothing is the
// same.
type vote struct {
	same, other int64
	first       []suspect // of the others
}

func (c *Checker) vote(epoch int64) *vote {
	v, ok := c.votes[epoch]
	if !ok {
		v = &vote{}
		c.votes[epoch] = v
	}
	return v
}

// mismatch judges an output that is not what the source has at its offset.
func (c *Checker) mismatch(s suspect) appearance {
	if s.epoch >= c.scope.Epoch {
		c.stray(s)
		return foreign
	}
	if c.orphans.set(s.source) {
		return again
	}
	v := c.vote(s.epoch)
	if v.other++; len(v.first) < maxFirst {
		v.first = append(v.first, s)
	}
	return orphan
}

// settleVotes says of the mismatches of earlier epochs whether they are changed records
// or those of another topic.
func (c *Checker) settleVotes() {
	for _, epoch := range slices.Sorted(maps.Keys(c.votes)) {
		v := c.votes[epoch]
		if v.other > v.same {
			v.first = slices.DeleteFunc(v.first, func(s suspect) bool { return !c.missed(epoch, s.source) })
			c.report.Expired += v.other - int64(len(v.first))
			v.other = int64(len(v.first))
		}
		for _, s := range v.first {
			c.unmiss(s.source)
			c.fault(s.kind, s)
		}
		if rest := v.other - int64(len(v.first)); rest > 0 {
			c.faults(KindChanged, suspect{source: -1, offset: -1}, rest)
		}
	}
}

// missed reports whether a source record that an output of an epoch claims to be is
// missing, so that something is wrong in either case.
func (c *Checker) missed(epoch, source int64) bool {
	_, missing := c.missing[source]
	return missing && epoch >= c.epochs.last
}
