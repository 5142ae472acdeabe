package reorder

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// arena keeps the payloads of a partition in order of arrival, in chunks
// without pointers: nothing for the garbage collector to follow, and a record
// held for five seconds does not pin the fetch it came in.
//
// It also answers which record is the lowest still owed. Records leave in
// another order than they came, so each chunk counts what is left in it. One
// with nothing left goes to the pool, which uses it again once nobody needs what
// was taken from it.
//
//	left:      0      0        2         5       1
//	chunks:   nil    nil   [..x...x] [.xxxxx] [x___]
//	                        ^ scan: lowest owed   ^ tail
//
// A record that stays much longer than its neighbours would keep their chunk.
// When little is left in the chunks as a whole, the oldest are copied together
// into an arena of an older generation. Everything there came before
// everything here, so the order of arrival is kept.
type arena struct {
	pool   *chunkPool
	chunks []*chunk // numbered from first on; nil where spent
	first  uint32
	bytes  int64 // of all chunks
	left   int64 // payloads not taken, with their marks
	tags   int   // bytes behind each payload for the partition's own use; see previous.go

	older *arena
	moved map[uint64]uint64 // what has been copied: where it was, where it is there
}

type chunk struct {
	buf  []byte // payloads, each behind its mark; len(buf) is what is used
	left int
	scan int // everything before is gone
}

// A mark stands before each payload: offset (8 bytes), leader epoch (4), size
// (4, the top bit set when the record is gone).
const (
	markSize = 16
	goneBit  = 1 << 31
	// MaxPayload is the largest payload that can be held, in bytes.
	MaxPayload = goneBit - 1 - markSize - tagSize

	minChunk = 4 << 10
	maxChunk = 256 << 10

	// Chunks of which less than a quarter is left are copied together, unless
	// it is all too little to matter. So what is kept is at most four times
	// what is left, and each byte freed costs a third of a byte copied.
	sparse   = 4
	fewBytes = 1 << 20
)

// add makes room for a payload and returns where it is and the bytes to fill.
func (a *arena) add(offset int64, leaderEpoch int32, size int) (ref uint64, body []byte) {
	n := size
	size += a.tags
	c := a.tail(markSize + size)
	at := len(c.buf)
	c.buf = c.buf[:at+markSize+size]
	m := c.buf[at:]
	binary.LittleEndian.PutUint64(m, uint64(offset))
	binary.LittleEndian.PutUint32(m[8:], uint32(leaderEpoch))
	binary.LittleEndian.PutUint32(m[12:], uint32(size))
	c.left++
	a.left += int64(markSize + size)
	return uint64(a.first+uint32(len(a.chunks)-1))<<32 | uint64(at), m[markSize : markSize+n : markSize+n]
}

// tag returns the bytes behind a payload that has not been taken.
func (a *arena) tag(ref uint64) []byte {
	i, here := a.chunkOf(ref)
	if !here {
		return a.older.tag(a.moved[ref])
	}
	m := a.chunks[i].buf[uint32(ref):]
	end := markSize + int(binary.LittleEndian.Uint32(m[12:]))
	return m[end-a.tags : end]
}

// look returns a payload that has not been taken.
func (a *arena) look(ref uint64) []byte {
	i, here := a.chunkOf(ref)
	if !here {
		return a.older.look(a.moved[ref])
	}
	m := a.chunks[i].buf[uint32(ref):]
	end := markSize + int(binary.LittleEndian.Uint32(m[12:])) - a.tags
	return m[markSize:end:end]
}

// offset returns the offset of a record whose payload has not been taken.
func (a *arena) offset(ref uint64) int64 {
	i, here := a.chunkOf(ref)
	if !here {
		return a.older.offset(a.moved[ref])
	}
	offset, _ := readMark(a.chunks[i].buf[uint32(ref):])
	return offset
}

// take marks a payload as gone and returns it. The bytes stay as they are
// until their flight has landed.
func (a *arena) take(ref uint64) []byte {
	i, here := a.chunkOf(ref)
	if !here {
		there := a.moved[ref]
		delete(a.moved, ref)
		return a.older.take(there)
	}
	c := a.chunks[i]
	m := c.buf[uint32(ref):]
	size := binary.LittleEndian.Uint32(m[12:])
	binary.LittleEndian.PutUint32(m[12:], size|goneBit)
	a.left -= markSize + int64(size)
	if c.left--; c.left == 0 && i < len(a.chunks)-1 {
		a.retire(i)
	}
	for a.wasteful() {
		a.evacuate()
	}
	end := markSize + int(size) - a.tags
	return m[markSize:end:end]
}

// chunkOf returns the chunk that a payload is in, unless it has been copied to
// the older arena.
func (a *arena) chunkOf(ref uint64) (i int, here bool) {
	i = int(int32(uint32(ref>>32) - a.first))
	return i, i >= 0 && a.chunks[i] != nil
}

// held returns the bytes that cannot be given back because of what has not
// been taken.
func (a *arena) held() int64 {
	n := a.bytes
	if last := len(a.chunks) - 1; last >= 0 {
		c := a.chunks[last]
		n -= int64(cap(c.buf) - len(c.buf))
		if c.left == 0 {
			n -= int64(len(c.buf))
		}
	}
	if a.older != nil {
		n += a.older.held()
	}
	return n
}

func (a *arena) wasteful() bool {
	return a.bytes > fewBytes && a.left*sparse < a.bytes && len(a.chunks) > 1
}

// evacuate copies what is left in the oldest chunk, and retires it.
func (a *arena) evacuate() {
	if a.older == nil {
		a.older, a.moved = &arena{pool: a.pool, tags: a.tags}, map[uint64]uint64{}
	}
	c := a.chunks[0]
	for at := c.scan; c.left > 0; {
		m := c.buf[at:]
		size := binary.LittleEndian.Uint32(m[12:])
		if size&goneBit == 0 {
			offset, leaderEpoch := readMark(m)
			there, body := a.older.add(offset, leaderEpoch, int(size)-a.tags)
			copy(body, m[markSize:])
			copy(a.older.tag(there), m[markSize+len(body):])
			a.moved[uint64(a.first)<<32|uint64(at)] = there
			a.left -= markSize + int64(size)
			c.left--
		}
		at += markSize + int(size&^goneBit)
	}
	a.retire(0)
}

func readMark(m []byte) (offset int64, leaderEpoch int32) {
	return int64(binary.LittleEndian.Uint64(m)), int32(binary.LittleEndian.Uint32(m[8:]))
}

// lowest returns the offset and leader epoch of the lowest record still owed.
func (a *arena) lowest() (offset int64, leaderEpoch int32, ok bool) {
	if a.older != nil {
		if offset, leaderEpoch, ok = a.older.lowest(); ok {
			return offset, leaderEpoch, true
		}
	}
	if len(a.chunks) == 0 || a.chunks[0].left == 0 {
		return 0, 0, false // the first chunk is never nil, and empty only as the tail
	}
	c := a.chunks[0]
	for {
		m := c.buf[c.scan:]
		size := binary.LittleEndian.Uint32(m[12:])
		if size&goneBit == 0 {
			offset, leaderEpoch = readMark(m)
			return offset, leaderEpoch, true
		}
		c.scan += markSize + int(size&^goneBit)
	}
}

// warm reads the beginnings of payloads that will be taken soon: all of them
// are fetched from memory at once then, where take would wait for one after the
// other. It returns something, so that the reading is not left out.
func (a *arena) warm(entries []entry) (sum byte) {
	const mark, rest = 0, markSize + 28 // what is read of a usual record when it goes out
	for i := range entries {
		ref := entries[i].ref
		n, here := a.chunkOf(ref)
		if !here {
			continue
		}
		b := a.chunks[n].buf[uint32(ref):]
		sum += b[mark]
		if len(b) > rest {
			sum += b[rest]
		}
	}
	return sum
}

// tail returns a chunk with room for n bytes.
func (a *arena) tail(n int) *chunk {
	if last := len(a.chunks) - 1; last >= 0 {
		c := a.chunks[last]
		if cap(c.buf)-len(c.buf) >= n {
			return c
		}
		if c.left == 0 {
			a.retire(last)
		}
	}
	// Chunks grow with what is held: a thousand quiet partitions must not
	// cost what one busy one may.
	size := min(max(a.bytes/8, minChunk), maxChunk)
	c := a.pool.get(max(int(size), n))
	a.bytes += int64(cap(c.buf))
	a.chunks = append(a.chunks, c)
	return c
}

// retire gives a chunk up and drops those at the front that have been.
func (a *arena) retire(i int) {
	a.bytes -= int64(cap(a.chunks[i].buf))
	a.pool.retire(a.chunks[i])
	a.chunks[i] = nil
	n := 0
	for n < len(a.chunks) && a.chunks[n] == nil {
		n++
	}
	a.chunks = a.chunks[n:]
	a.first += uint32(n)
}

// chunkPool holds the chunks that no partition of an engine uses: those that
// are free, by the power of two of their size, and those of which something taken
// is still in use.
type chunkPool struct {
	free   [32][]*chunk
	bytes  int
	flight uint64 // of what is being taken
	spent  []spent
}

type spent struct {
	*chunk
	flight uint64 // the last that something of it went with
}

func (p *chunkPool) retire(c *chunk) { p.spent = append(p.spent, spent{c, p.flight}) }

// landed frees what was retired up to a flight.
func (p *chunkPool) landed(flight uint64) {
	n := 0
	for n < len(p.spent) && p.spent[n].flight <= flight {
		p.put(p.spent[n].chunk)
		n++
	}
	p.spent = slices.Delete(p.spent, 0, n)
}

// maxPooled is what the pool keeps, in bytes; more goes to the collector.
const maxPooled = 16 << 20

func (p *chunkPool) get(size int) *chunk {
	class := bits.Len(uint(size - 1))
	if class < len(p.free) {
		if n := len(p.free[class]); n > 0 {
			c := p.free[class][n-1]
			p.free[class] = p.free[class][:n-1]
			p.bytes -= cap(c.buf)
			return c
		}
	}
	if size > maxChunk {
		return &chunk{buf: make([]byte, 0, size)} // a giant has a chunk to itself
	}
	return &chunk{buf: make([]byte, 0, 1<<class)}
}

func (p *chunkPool) put(c *chunk) {
	size := cap(c.buf)
	if size > maxChunk || p.bytes+size > maxPooled {
		return
	}
	c.buf, c.left, c.scan = c.buf[:0], 0, 0
	class := bits.Len(uint(size - 1))
	p.free[class] = append(p.free[class], c)
	p.bytes += size
}
