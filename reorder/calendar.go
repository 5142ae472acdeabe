package reorder

import (
	"math/bits"
	"slices"

	"github.com/tidemarkhq/tidemark/watermark"
)

// calendar is the queue of the records held, ordered by Position. Records
// come in offset order and leave by event time, always from the front, and
// what has left is never again behind what comes: that makes a calendar
// possible, where putting a record in its day costs nothing like a search.
//
// A day is one millisecond, a tick. Ticks hang in a wheel of six levels, each
// of 256 slots, as the digits of a number do: level 0 has the ticks that
// differ from cur in the last digit only, level 1 those that differ in the
// last two, and so on. A slot of a higher level is spread over the lower ones
// when cur enters it, so a record moves down a few times at most, and for the
// usual bounds once:
//
//	                     cur
//	front: ticks < cur    |  level 0: one tick a slot   level 1: 256 a slot
//	[sorted run] [heap]   |  [][][x][xx][]..[x]         [xxx][][xx].........
//	 ^ next out           |
//
// The front holds the slots that the watermark has reached: a sorted run, and
// a small heap for what arrives out of order behind cur. Records of one tick
// are chained in order of arrival, which is their order unless event times
// finer than a millisecond say otherwise; only then is a slot sorted.
type calendar struct {
	cur    uint64 // ticks below are in front, the others in the wheel
	n      int
	run    []entry // sorted; run[head:] is left
	head   int
	heap   []entry
	wheel  [wheelLevels]*level
	blocks []*[blockSize]entry // the entries in the wheel, by index
	free   int32               // chain of unused entries
}

type entry struct {
	Position
	ref  uint64 // where the payload is, see arena
	next int32  // chain of the slot
}

type level struct {
	used [slots / 64]uint64
	slot [slots]struct{ head, tail int32 }
}

const (
	wheelLevels = 6 // 48 bits of ticks: more than int64 nanoseconds have
	slots       = 256
	slotMask    = slots - 1
	blockSize   = 1024
	none        = int32(-1)
	// tickBias makes the tick of every time positive.
	tickBias = 1 << 44
)

func tickOf(t watermark.Time) uint64 { return uint64(t.Millis() + tickBias) }

func newCalendar() calendar { return calendar{free: none} }

// push puts an entry in. One that lies behind what the front has taken in
// already costs a little more.
func (c *calendar) push(e entry) {
	c.n++
	t := tickOf(e.Time)
	if t < c.cur {
		c.pushFront(e)
		return
	}
	c.hang(c.alloc(e), t)
}

// skipTo tells an empty calendar where the next entries will be, which saves
// them the way down from the top.
func (c *calendar) skipTo(w watermark.Time) {
	if c.n == 0 {
		c.cur = max(c.cur, tickOf(w.Next()))
	}
}

// rewind makes an empty calendar ready for earlier times.
func (c *calendar) rewind() {
	if c.n == 0 {
		c.cur = 0
	}
}

// peek returns the first entry in order if its time is at most w.
func (c *calendar) peek(w watermark.Time) (entry, bool) {
	if c.n == 0 || w == watermark.None {
		return entry{}, false
	}
	if c.head == len(c.run) && len(c.heap) == 0 && !c.load(tickOf(w)) {
		return entry{}, false
	}
	e := c.first()
	return *e, e.Time <= w
}

// pop removes the entry that peek returned.
func (c *calendar) pop() {
	c.n--
	if len(c.heap) > 0 && (c.head == len(c.run) || c.heap[0].Before(c.run[c.head].Position)) {
		c.popHeap()
	} else if c.head++; c.head == len(c.run) {
		c.run, c.head = c.run[:0], 0
	}
	if c.n == 0 && len(c.blocks) > 1 {
		c.blocks, c.free = nil, none // what a burst needed is not kept
	}
}

// first returns the smallest entry of a front that is not empty.
func (c *calendar) first() *entry {
	if len(c.heap) > 0 && (c.head == len(c.run) || c.heap[0].Before(c.run[c.head].Position)) {
		return &c.heap[0]
	}
	return &c.run[c.head]
}

func (c *calendar) pushFront(e entry) {
	if len(c.heap) == 0 && c.head < len(c.run) && !e.Before(c.run[len(c.run)-1].Position) {
		c.run = append(c.run, e)
		return
	}
	c.heap = append(c.heap, e)
	for i := len(c.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !c.heap[i].Before(c.heap[up].Position) {
			break
		}
		c.heap[i], c.heap[up] = c.heap[up], c.heap[i]
		i = up
	}
}

func (c *calendar) popHeap() {
	last := len(c.heap) - 1
	c.heap[0] = c.heap[last]
	c.heap = c.heap[:last]
	for i := 0; ; {
		least := i
		for d := 2*i + 1; d <= 2*i+2 && d < last; d++ {
			if c.heap[d].Before(c.heap[least].Position) {
				least = d
			}
		}
		if least == i {
			return
		}
		c.heap[i], c.heap[least] = c.heap[least], c.heap[i]
		i = least
	}
}

// load moves the first slot that is not empty into the front, if it starts at
// limit or before. The front is empty.
func (c *calendar) load(limit uint64) bool {
	for {
		at, lvl := c.nextSlot()
		if lvl < 0 || at > limit {
			return false
		}
		if lvl == 0 {
			c.takeSlot(at)
			c.advance(at + 1)
			return true
		}
		c.advance(at)
	}
}

// nextSlot finds the first slot in use: the tick it starts at and its level.
func (c *calendar) nextSlot() (at uint64, lvl int) {
	for i, l := range c.wheel {
		if l == nil {
			continue
		}
		shift := 8 * i
		digit := int(c.cur>>shift) & slotMask
		if s := l.firstUsed(digit); s >= 0 {
			above := c.cur >> (shift + 8) << (shift + 8)
			return above | uint64(s)<<shift, i
		}
	}
	return 0, -1
}

func (l *level) firstUsed(from int) int {
	word := from / 64
	b := l.used[word] >> (from % 64) << (from % 64)
	for {
		if b != 0 {
			return word*64 + bits.TrailingZeros64(b)
		}
		if word++; word == len(l.used) {
			return -1
		}
		b = l.used[word]
	}
}

// takeSlot makes the one tick at the front's end the new run.
func (c *calendar) takeSlot(tick uint64) {
	sorted := true
	for i := c.unhang(0, tick); i != none; {
		e := c.at(i)
		if n := len(c.run); n > 0 && e.Before(c.run[n-1].Position) {
			sorted = false
		}
		c.run = append(c.run, *e)
		i = c.release(i)
	}
	if !sorted {
		slices.SortFunc(c.run, func(a, b entry) int { return a.compare(b.Position) })
	}
}

// advance moves cur and spreads the slots it enters over the levels below.
func (c *calendar) advance(to uint64) {
	from := c.cur
	c.cur = to
	for i := wheelLevels - 1; i > 0; i-- {
		if from>>(8*i) == to>>(8*i) || c.wheel[i] == nil {
			continue
		}
		for j := c.unhang(i, to); j != none; {
			next := c.at(j).next
			c.hang(j, tickOf(c.at(j).Time))
			j = next
		}
	}
}

// hang chains an entry to its slot.
func (c *calendar) hang(i int32, tick uint64) {
	lvl := max(bits.Len64(tick^c.cur)-1, 0) / 8
	l := c.wheel[lvl]
	if l == nil {
		l = new(level)
		c.wheel[lvl] = l
	}
	c.at(i).next = none
	s := int(tick>>(8*lvl)) & slotMask
	if bit := uint64(1) << (s % 64); l.used[s/64]&bit == 0 {
		l.used[s/64] |= bit
		l.slot[s].head = i
	} else {
		c.at(l.slot[s].tail).next = i
	}
	l.slot[s].tail = i
}

// unhang empties the slot of a level that tick lies in and returns its chain.
func (c *calendar) unhang(lvl int, tick uint64) int32 {
	l, s := c.wheel[lvl], int(tick>>(8*lvl))&slotMask
	bit := uint64(1) << (s % 64)
	if l.used[s/64]&bit == 0 {
		return none
	}
	l.used[s/64] &^= bit
	return l.slot[s].head
}

func (c *calendar) at(i int32) *entry { return &c.blocks[i/blockSize][i%blockSize] }

func (c *calendar) alloc(e entry) int32 {
	if c.free == none {
		c.grow()
	}
	i := c.free
	p := c.at(i)
	c.free = p.next
	*p = e
	return i
}

// release gives an entry back and returns the next of its chain.
func (c *calendar) release(i int32) (next int32) {
	p := c.at(i)
	next, p.next = p.next, c.free
	c.free = i
	return next
}

func (c *calendar) grow() {
	b := new([blockSize]entry)
	first := int32(len(c.blocks)) * blockSize
	c.blocks = append(c.blocks, b)
	for i := range b {
		b[i].next = first + int32(i) + 1
	}
	b[blockSize-1].next = none
	c.free = first
}
