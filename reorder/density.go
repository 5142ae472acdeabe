package reorder

import (
	"math/bits"

	"github.com/tidemarkhq/tidemark/watermark"
)

// HeldCells is into how many equal parts Held divides event time.
const HeldCells = 32

// Held is how the records that a partition holds lie over event time.
type Held struct {
	From, To watermark.Time // of the oldest and of the newest; None when nothing is held
	// Cells has the number of records in each of the equal parts of the time From
	// to To. Where more is held than was to be looked at, it is estimated.
	Cells [HeldCells]int64
}

// Held returns how the records lie that are held, by looking at so many of them, more
// or less, and at no payload. It changes nothing. Where it would have to look at too
// many, From may be somewhat earlier than the oldest.
func (p *Partition) Held(most int) Held {
	h := Held{From: watermark.None, To: watermark.None}
	if p.queue.n > 0 {
		h.From, h.To = p.queue.oldest(most), p.newest()
		p.queue.spread(&h, most)
	}
	return h
}

// oldest returns the least event time in the calendar, which is not empty. Other than
// peek it moves nothing. A slot with more than so many entries is not searched; then
// it is the slot's beginning.
func (c *calendar) oldest(most int) watermark.Time {
	first, at := watermark.Max, c.near
	if e := c.first(); e != nil {
		if first = e.Time; at == noTick || tickOf(first) < at {
			return first
		}
	}
	if at == noTick {
		at, _ = c.nextDay()
	}
	lvl := max(bits.Len64(at^c.cur)-1, 0) / 8
	left := most
	for i := c.wheel[lvl].slot[int(at>>(8*lvl))&slotMask].head; i != none; i = c.at(i).next {
		p := c.at(i)
		if left -= int(p.n); left < 0 {
			begin, _ := watermark.FromMillis(int64(at) - tickBias)
			return begin
		}
		for j := range p.of[:p.n] {
			first = min(first, p.of[j].Time)
		}
	}
	return first
}

// spread counts the entries of the calendar into cells.
func (c *calendar) spread(h *Held, most int) {
	run := c.run[c.head:]
	h.sample(run, most/4)
	h.sample(c.heap, most/4)
	hung := c.n - len(run) - len(c.heap)
	var part [HeldCells]int64
	if hung <= most {
		for _, l := range c.wheel {
			if l != nil {
				c.spreadLevel(h, l, &part)
			}
		}
	} else {
		// One pack in so many, wherever it hangs: to follow the chains would
		// mean to wait for each of them.
		step := len(c.blocks)*blockSize*packSize/most + 1
		for i := 0; i < len(c.blocks)*blockSize; i += step {
			h.count(&part, c.at(int32(i)))
		}
	}
	h.add(&part, hung)
}

func (c *calendar) spreadLevel(h *Held, l *level, part *[HeldCells]int64) {
	for word, used := range l.used {
		for ; used != 0; used &= used - 1 {
			for i := l.slot[word*64+bits.TrailingZeros64(used)].head; i != none; i = c.at(i).next {
				h.count(part, c.at(i))
			}
		}
	}
}

func (h *Held) count(part *[HeldCells]int64, p *pack) {
	for i := range p.of[:p.n] {
		part[h.cell(p.of[i].Time)]++
	}
}

func (h *Held) sample(entries []entry, most int) {
	var part [HeldCells]int64
	for i, step := 0, len(entries)/max(most, 1)+1; i < len(entries); i += step {
		part[h.cell(entries[i].Time)]++
	}
	h.add(&part, len(entries))
}

// add adds what was counted of n entries.
func (h *Held) add(part *[HeldCells]int64, n int) {
	seen := int64(0)
	for _, k := range part {
		seen += k
	}
	for i, k := range part {
		if k > 0 {
			h.Cells[i] += k * int64(n) / seen
		}
	}
}

// cell returns the cell of an event time.
func (h *Held) cell(t watermark.Time) int {
	if t <= h.From {
		return 0
	}
	width := (uint64(h.To)-uint64(h.From))/HeldCells + 1
	return min(int((uint64(t)-uint64(h.From))/width), HeldCells-1)
}
