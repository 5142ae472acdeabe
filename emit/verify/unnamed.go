package verify

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
)

// Where TIDEMARK_HEADERS leaves out the source offset, ordered records do not say which
// source records they are. Their bytes do: the source is read until it has shown a record
// with the bytes of the next output, and of several that are equal the lowest offset comes
// out first. From there on that output is judged like any other.
//
// What cannot be told is of which epoch's source records a copy is, where there are more
// epochs than one: a copy of before may stand in for one that is missing.

// unnamed is what is needed to find source records by their bytes.
type unnamed struct {
	offsets map[uint64][]int64 // of source records without an output, by hash; some have one since
	recent  recent             // at least once: hashes of what came out last
	most    int                // source records without an output to look through
	gaveUp  bool               // for an output, for there were too many to look through
}

// maxUnnamed is how many source records without an output are looked through, most: as many
// as a sidecar may hold.
const maxUnnamed = 1 << 21

func (u *unnamed) add(offset int64, h uint64) {
	if u.offsets == nil {
		u.offsets = map[uint64][]int64{}
	}
	u.offsets[h] = append(u.offsets[h], offset)
}

// find returns the lowest source offset with a hash.
func (u *unnamed) find(c *Checker, h uint64) (offset int64, found bool) {
	list := u.offsets[h]
	for len(list) > 0 {
		if p, ok := c.raws[list[0]]; ok && p.hash == h {
			break
		}
		list = list[1:]
	}
	if len(list) == 0 {
		delete(u.offsets, h)
		return -1, false
	}
	u.offsets[h] = list
	return list[0], true
}

// seeks reports whether more of the source is to be read before an ordered record, because
// nothing so far has its bytes.
func (c *Checker) seeks(r *kgo.Record) bool {
	var o output
	if !c.rules.Unnamed || c.read(&o, r, false) {
		return false
	}
	for n := len(o.Source.Headers); n <= len(o.Headers); n++ {
		h := c.hash(&o.Source, o.Headers[:n])
		if _, found := c.unnamed.find(c, h); found {
			return false
		}
		if _, came := c.unnamed.recent.get(int64(h)); came {
			return false
		}
	}
	if len(c.raws) >= c.unnamed.most {
		c.unnamed.gaveUp = true
		return false
	}
	return true
}

// nameUnnamed gives c.out, an ordered record that does not name its source record, the
// offset that its bytes tell. A record that comes again, at least once, is counted.
func (c *Checker) nameUnnamed() (named bool) {
	o := &c.out
	for n := len(o.Source.Headers); n <= len(o.Headers); n++ {
		h := c.hash(&o.Source, o.Headers[:n])
		source, found := c.unnamed.find(c, h)
		if !found {
			continue
		}
		if n > len(o.Source.Headers) {
			c.readers[0].Keep(&o.Parts, n)
		}
		o.SourceOffset, o.Source.Offset, o.hash = source, source, h
		if c.rules.AtLeastOnce {
			c.unnamed.recent.on = true
			c.unnamed.recent.add(int64(h), h)
		}
		return true
	}
	return false
}

// cameBefore reports whether c.out, for which there is no source record, has come out
// already, as it may at least once.
func (c *Checker) cameBefore() bool {
	_, came := c.unnamed.recent.get(int64(c.out.hash))
	return came
}

// skipUnnamed counts what cannot be told.
func (c *Checker) skipUnnamed() {
	if !c.rules.Unnamed {
		return
	}
	if c.scope.Epochs {
		c.report.Unjudged[GapEpochs] += c.report.Ordered
	}
	if !c.unnamed.gaveUp {
		return
	}
	n := int64(len(c.missing)) + c.lost
	for _, b := range c.bares {
		if !b.late {
			n++
		}
	}
	c.report.Unjudged[GapUnnamed] += n
	c.bares = slices.DeleteFunc(c.bares, func(b bare) bool { return !b.late })
	clear(c.missing)
	c.lost = 0
}

// originalUnnamed takes an ordered record that does not name its source record as what
// claims may be about.
func (c *Checker) originalUnnamed(o *output) {
	r := o.Source
	for n := len(o.Source.Headers); n <= len(o.Headers) && c.rules.Identity.Kind != emit.NoIdentity; n++ {
		r.Headers = o.Headers[:n]
		if t, err := c.rules.EventTime(&r); err == nil { // what repeats it was judged by that, if anything was
			if id, ok := c.identify(&r, t); ok {
				c.settleClaim(id, func(*claim) bool { return true })
			}
		}
	}
}
