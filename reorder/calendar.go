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
// The unit is one millisecond, a tick. Ticks hang in a wheel of six levels, each
// of 256 slots, as the digits of a number do: level 0 has the ticks that
// differ from cur in the last digit only, level 1 those that differ in the
// last two, and so on. A slot of level 1, a day, is put in order as a whole when
// cur enters it; one above is spread over the levels below. So a record is
// moved twice for the usual bounds:
//
//	           cur
//	front:      |  level 0: one tick a slot    level 1: 256 a slot
//	[run] [heap]|  [][][x][xx][]..[x]          [xxx][][xx].........
//	 ^ next out |
//
// The run is the day of cur as it was when cur entered it, sorted. What comes
// for this day later hangs in level 0, one tick a slot, and joins the front when
// the run has come to its tick: as the run, if nothing is left of that,
// else in a small heap, where what lies before cur is put at once.
//
// What is held for seconds is not in the processor's cache any more, and an
// entry at a time would be waited for each. So entries stand in packs, a few
// cache lines that can be read at once.
type calendar struct {
	cur    uint64 // start of a day; ticks before are in front
	near   uint64 // the first tick in level 0, or noTick
	n      int
	run    []entry // sorted; run[head:] is left
	head   int
	heap   []entry
	wheel  [wheelLevels]*level
	blocks []*[blockSize]pack // the entries in the wheel, by index
	free   int32              // chain of unused packs
}

type entry struct {
	Position
	ref uint64 // where the payload is, see arena
}

// pack is a link of a slot's chain.
type pack struct {
	next int32
	n    int32
	of   [packSize]entry
}

type level struct {
	used [slots / 64]uint64
	slot [slots]struct{ head, tail int32 }
}

const (
	wheelLevels = 6 // 48 bits of ticks: more than int64 nanoseconds have
	slots       = 256
	slotMask    = slots - 1
	packSize    = 10 // 248 bytes, four cache lines
	blockSize   = 64
	none        = int32(-1)
	noTick      = ^uint64(0)
	// fewEntries are sorted faster than counted.
	fewEntries = 48
	keptRun    = 32 << 10 // entries for which a run always has room once it had
	// tickBias makes the tick of every time positive.
	tickBias = 1 << 44
)

func tickOf(t watermark.Time) uint64 { return uint64(t.Millis() + tickBias) }

func newCalendar() calendar { return calendar{near: noTick, free: none} }

// push puts an entry in. One that lies before the day of cur costs a little more.
func (c *calendar) push(e entry) {
	c.n++
	if t := tickOf(e.Time); t >= c.cur {
		c.hang(e, t)
	} else {
		c.pushHeap(e)
	}
}

// skipTo tells an empty calendar where the next entries will be, which saves
// them the way down from the top.
func (c *calendar) skipTo(w watermark.Time) {
	if c.n == 0 {
		c.cur = max(c.cur, tickOf(w.Next())&^slotMask)
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
	for {
		if e := c.first(); e != nil && (c.near == noTick || tickOf(e.Time) < c.near) {
			return *e, e.Time <= w
		}
		if !c.load(tickOf(w)) {
			return entry{}, false
		}
	}
}

// pop removes the entry that peek returned.
func (c *calendar) pop() {
	c.n--
	if c.heapFirst() {
		c.popHeap()
	} else {
		c.head++
	}
	if c.n == 0 && len(c.blocks) > 1 {
		c.blocks, c.free = nil, none // what a burst needed is not kept
		c.run, c.head = nil, 0
	}
}

// first returns the smallest entry of the front, nil if there is none.
func (c *calendar) first() *entry {
	switch {
	case c.heapFirst():
		return &c.heap[0]
	case c.head < len(c.run):
		return &c.run[c.head]
	}
	return nil
}

func (c *calendar) heapFirst() bool {
	return len(c.heap) > 0 && (c.head == len(c.run) || c.heap[0].Before(c.run[c.head].Position))
}

// soon returns some of the entries that are likely to be the next.
func (c *calendar) soon(n int) []entry {
	left := c.run[c.head:]
	return left[:min(n, len(left))]
}

func (c *calendar) pushHeap(e entry) {
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
// limit or before. Nothing in the front comes before it.
func (c *calendar) load(limit uint64) bool {
	if c.near != noTick {
		if c.near > limit {
			return false
		}
		c.takeTick()
		return true
	}
	if at, found := c.nextDay(); found && at <= limit {
		c.enter(at)
		return true
	}
	return false
}

// nextDay finds the first slot in use above level 0. The front and level 0 are
// empty.
func (c *calendar) nextDay() (at uint64, found bool) {
	for i, l := range c.wheel {
		if i == 0 || l == nil {
			continue
		}
		shift := 8 * i
		if s := l.firstUsed(int(c.cur>>shift) & slotMask); s >= 0 {
			above := c.cur >> (shift + 8) << (shift + 8)
			return above | uint64(s)<<shift, true
		}
	}
	return 0, false
}

// firstUsed returns the first slot in use from one on, -1 if there is none.
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

// takeTick moves the first tick of level 0 to the front.
func (c *calendar) takeTick() {
	chain := c.unhang(0, c.near)
	if c.head == len(c.run) {
		c.run, c.head = c.run[:0], 0
		for ; chain != none; chain = c.release(chain) {
			p := c.at(chain)
			c.run = append(c.run, p.of[:p.n]...)
		}
		inOrder(c.run)
	} else {
		for ; chain != none; chain = c.release(chain) {
			p := c.at(chain)
			for _, e := range p.of[:p.n] {
				c.pushHeap(e)
			}
		}
	}
	if s := c.wheel[0].firstUsed(int(c.near) & slotMask); s >= 0 {
		c.near = c.near&^slotMask | uint64(s)
	} else {
		c.near = noTick
	}
}

// enter moves cur to the start of a day. The front and level 0 are empty.
func (c *calendar) enter(day uint64) {
	from := c.cur
	c.cur = day
	for i := wheelLevels - 1; i > 0; i-- {
		if c.wheel[i] == nil || i > 1 && from>>(8*i) == day>>(8*i) {
			continue
		}
		chain := c.unhang(i, day)
		if i == 1 {
			c.arrange(chain)
			return
		}
		for ; chain != none; chain = c.release(chain) {
			p := c.at(chain)
			for _, e := range p.of[:p.n] {
				c.hang(e, tickOf(e.Time))
			}
		}
	}
}

// arrange makes a day the run: each entry is put where the number of those
// that come before says. Entries of one tick are chained in order of arrival,
// which is their order unless event times finer than a millisecond say
// otherwise; only then they are sorted.
func (c *calendar) arrange(chain int32) {
	var begins [slots + 1]int32 // of the ticks, in the run
	n := int32(0)
	for i := chain; i != none; i = c.at(i).next {
		p := c.at(i)
		n += p.n
		for j := range p.of[:p.n] {
			begins[tickOf(p.of[j].Time)&slotMask+1]++
		}
	}
	if cap(c.run) > keptRun && int(n) < cap(c.run)/8 {
		c.run = nil // what a burst needed is not kept
	}
	c.run, c.head = slices.Grow(c.run[:0], int(n))[:n], 0
	if n <= fewEntries {
		at := int32(0)
		for ; chain != none; chain = c.release(chain) {
			p := c.at(chain)
			at += int32(copy(c.run[at:], p.of[:p.n]))
		}
		inOrder(c.run)
		return
	}
	for i := range slots {
		begins[i+1] += begins[i]
	}
	next := begins
	for ; chain != none; chain = c.release(chain) {
		p := c.at(chain)
		for j := range p.of[:p.n] {
			tick := tickOf(p.of[j].Time) & slotMask
			c.run[next[tick]] = p.of[j]
			next[tick]++
		}
	}
	for i := range slots {
		inOrder(c.run[begins[i]:begins[i+1]])
	}
}

// inOrder sorts entries that most likely are sorted, or few.
func inOrder(entries []entry) {
	for i := 1; i < len(entries); i++ {
		e, at := entries[i], i
		for ; at > 0 && e.Before(entries[at-1].Position); at-- {
			if i-at > fewEntries {
				entries[at] = e
				slices.SortFunc(entries, func(a, b entry) int { return a.compare(b.Position) })
				return
			}
			entries[at] = entries[at-1]
		}
		entries[at] = e
	}
}

// hang puts an entry at the end of its slot's chain.
func (c *calendar) hang(e entry, tick uint64) {
	lvl := max(bits.Len64(tick^c.cur)-1, 0) / 8
	l := c.wheel[lvl]
	if l == nil {
		l = new(level)
		c.wheel[lvl] = l
	}
	if lvl == 0 {
		c.near = min(c.near, tick)
	}
	s := int(tick>>(8*lvl)) & slotMask
	var p *pack
	if bit := uint64(1) << (s % 64); l.used[s/64]&bit == 0 {
		i := c.alloc()
		l.used[s/64] |= bit
		l.slot[s].head, l.slot[s].tail = i, i
		p = c.at(i)
	} else if p = c.at(l.slot[s].tail); p.n == packSize {
		i := c.alloc()
		p.next, l.slot[s].tail = i, i
		p = c.at(i)
	}
	p.of[p.n] = e
	p.n++
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

func (c *calendar) at(i int32) *pack { return &c.blocks[i/blockSize][i%blockSize] }

// alloc returns an empty pack.
func (c *calendar) alloc() int32 {
	if c.free == none {
		c.grow()
	}
	i := c.free
	p := c.at(i)
	c.free, p.next, p.n = p.next, none, 0
	return i
}

// release gives a pack back and returns the next of its chain.
func (c *calendar) release(i int32) (next int32) {
	p := c.at(i)
	next, p.next, p.n = p.next, c.free, 0
	c.free = i
	return next
}

func (c *calendar) grow() {
	b := new([blockSize]pack)
	first := int32(len(c.blocks)) * blockSize
	c.blocks = append(c.blocks, b)
	for i := range b {
		b[i].next = first + int32(i) + 1
	}
	b[blockSize-1].next = none
	c.free = first
}
