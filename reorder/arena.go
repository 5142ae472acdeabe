package reorder

import (
	"encoding/binary"
	"math/bits"
)

// arena keeps the payloads of a partition in order of arrival, in chunks
// without pointers: nothing for the garbage collector to follow, and a record
// held for five seconds does not pin the fetch it came in.
//
// It also answers which record is the lowest still owed. Records leave in
// another order than they came, so each chunk counts what is left in it. A
// chunk with nothing left is set aside until what was taken from it is
// durable, and used again after that.
//
//	left:      0      0        2         5       1
//	chunks:  spent  spent  [..x...x] [.xxxxx] [x___]
//	                        ^ scan: lowest owed   ^ tail
type arena struct {
	pool   *chunkPool
	chunks []*chunk // numbered from first on; nil where spent
	first  uint32
	spent  []*chunk
	bytes  int64 // of all chunks, the spent ones too
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
	MaxPayload = goneBit - 1 - markSize

	minChunk = 4 << 10
	maxChunk = 256 << 10
)

// add makes room for a payload and returns where it is and the bytes to fill.
func (a *arena) add(offset int64, leaderEpoch int32, size int) (ref uint64, body []byte) {
	c := a.tail(markSize + size)
	at := len(c.buf)
	c.buf = c.buf[:at+markSize+size]
	m := c.buf[at:]
	binary.LittleEndian.PutUint64(m, uint64(offset))
	binary.LittleEndian.PutUint32(m[8:], uint32(leaderEpoch))
	binary.LittleEndian.PutUint32(m[12:], uint32(size))
	c.left++
	return uint64(a.first+uint32(len(a.chunks)-1))<<32 | uint64(at), m[markSize : markSize+size : markSize+size]
}

// take marks a payload as gone and returns it. The bytes stay as they are
// until recycle.
func (a *arena) take(ref uint64) []byte {
	i := int(uint32(ref>>32) - a.first)
	c := a.chunks[i]
	m := c.buf[uint32(ref):]
	size := binary.LittleEndian.Uint32(m[12:])
	binary.LittleEndian.PutUint32(m[12:], size|goneBit)
	if c.left--; c.left == 0 && i < len(a.chunks)-1 {
		a.retire(i)
	}
	return m[markSize : markSize+size : markSize+size]
}

// lowest returns the offset and leader epoch of the lowest record still owed.
func (a *arena) lowest() (offset int64, leaderEpoch int32, ok bool) {
	if len(a.chunks) == 0 || a.chunks[0].left == 0 {
		return 0, 0, false // the first chunk is never nil, and empty only as the tail
	}
	c := a.chunks[0]
	for {
		m := c.buf[c.scan:]
		size := binary.LittleEndian.Uint32(m[12:])
		if size&goneBit == 0 {
			return int64(binary.LittleEndian.Uint64(m)), int32(binary.LittleEndian.Uint32(m[8:])), true
		}
		c.scan += markSize + int(size&^goneBit)
	}
}

// recycle gives the chunks back from which everything has been taken. Nothing
// that take returned may be in use any more.
func (a *arena) recycle() {
	for i, c := range a.spent {
		a.bytes -= int64(cap(c.buf))
		a.pool.put(c)
		a.spent[i] = nil
	}
	a.spent = a.spent[:0]
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

// retire sets a chunk aside and drops the spent ones at the front.
func (a *arena) retire(i int) {
	a.spent = append(a.spent, a.chunks[i])
	a.chunks[i] = nil
	n := 0
	for n < len(a.chunks) && a.chunks[n] == nil {
		n++
	}
	a.chunks = a.chunks[n:]
	a.first += uint32(n)
}

// chunkPool holds unused chunks for all partitions of an engine, by the power
// of two of their size.
type chunkPool struct {
	free  [32][]*chunk
	bytes int
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
