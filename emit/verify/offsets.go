package verify

import "sort"

// chunkBits is how many offsets share a chunk, as a power of two.
const chunkBits = 12

// chunk has a bit for each of 4096 offsets.
type chunk [1 << chunkBits / 64]uint64

func (c *chunk) has(offset int64) bool { return c[offset>>6%int64(len(c))]>>(offset%64)&1 != 0 }

func (c *chunk) set(offset int64) { c[offset>>6%int64(len(c))] |= 1 << (offset % 64) }

// offsets is a set of offsets, in any order. Its zero value is empty.
type offsets struct {
	chunks map[int64]*chunk
}

func (o *offsets) has(offset int64) bool {
	c, ok := o.chunks[offset>>chunkBits]
	return ok && c.has(offset)
}

// set adds an offset and reports whether it was there.
func (o *offsets) set(offset int64) (was bool) {
	if o.chunks == nil {
		o.chunks = map[int64]*chunk{}
	}
	c, ok := o.chunks[offset>>chunkBits]
	if !ok {
		c = &chunk{}
		o.chunks[offset>>chunkBits] = c
	}
	was = c.has(offset)
	c.set(offset)
	return was
}

// present is the set of the source offsets that hold a record, which come in order.
// Chunks without a hole take no room. Its zero value is empty.
type present struct {
	begun     bool
	first, at int64 // chunks: the first, and the one being filled
	filling   chunk
	n         int
	holed     map[int64]*chunk
	empty     [][2]int64 // chunks from, to
}

func (p *present) add(offset int64) {
	id := offset >> chunkBits
	switch {
	case !p.begun:
		p.begun, p.first, p.at, p.holed = true, id, id, map[int64]*chunk{}
	case id > p.at:
		if p.n < 1<<chunkBits {
			full := p.filling
			p.holed[p.at] = &full
		}
		if id > p.at+1 {
			p.empty = append(p.empty, [2]int64{p.at + 1, id})
		}
		p.at, p.n, p.filling = id, 0, chunk{}
	}
	p.filling.set(offset)
	p.n++
}

func (p *present) has(offset int64) bool {
	id := offset >> chunkBits
	switch {
	case !p.begun || id < p.first || id > p.at:
		return false
	case id == p.at:
		return p.filling.has(offset)
	}
	if c, ok := p.holed[id]; ok {
		return c.has(offset)
	}
	i := sort.Search(len(p.empty), func(i int) bool { return id < p.empty[i][1] })
	return i == len(p.empty) || id < p.empty[i][0]
}

// recent remembers the hashes of the source records that came out last. At least once,
// some of them come again.
type recent struct {
	on       bool
	now, old map[int64]uint64
}

// maxRecent is far more than comes out between two commits.
const maxRecent = 1 << 16

func (r *recent) add(source int64, h uint64) {
	if !r.on {
		return
	}
	if r.now == nil || len(r.now) >= maxRecent {
		r.now, r.old = map[int64]uint64{}, r.now
	}
	r.now[source] = h
}

func (r *recent) get(source int64) (h uint64, ok bool) {
	if h, ok = r.now[source]; !ok {
		h, ok = r.old[source]
	}
	return h, ok
}
