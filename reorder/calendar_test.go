package reorder

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
	"pgregory.net/rapid"
)

// TestCalendar compares the calendar with a sorted slice.
func TestCalendar(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCalendar()
		var twin []entry
		near := []watermark.Time{0, 1_763_700_000_000e6, watermark.None + 1, watermark.Max, -1, 1 << 40}
		draw := func(label string) watermark.Time {
			about := rapid.SampledFrom(near).Draw(t, "about")
			// Steps as wide as a slot of each level, and as small as can be.
			unit := rapid.SampledFrom([]time.Duration{0, 1, 1e5, 1e6, 256e6, 256 * 256e6, 1 << 54, 1 << 61}).Draw(t, "unit")
			d := unit * time.Duration(rapid.IntRange(-3, 3).Draw(t, "steps"))
			at := max(about.Add(d).Add(time.Duration(rapid.IntRange(-2, 2).Draw(t, "ns"))), watermark.None+1)
			if len(near) < 40 {
				near = append(near, at)
			}
			return at
		}
		var offset int64
		check := func(w watermark.Time) bool {
			e, ok := c.peek(w)
			want := len(twin) > 0 && twin[0].Time <= w
			if ok != want || ok && (e.Position != twin[0].Position || e.ref != twin[0].ref) {
				t.Fatalf("peek(%s) = %v %v, want %v of %v", ms(w), e, ok, want, twin)
			}
			return ok
		}
		t.Repeat(map[string]func(*rapid.T){
			"push": func(*rapid.T) {
				at := draw("time")
				for range rapid.IntRange(1, 3).Draw(t, "equal") {
					e := entry{Position: Position{at, offset}, ref: uint64(offset) * 7}
					offset += int64(rapid.IntRange(1, 3).Draw(t, "hole"))
					c.push(e)
					i, _ := slices.BinarySearchFunc(twin, e, func(a, b entry) int { return a.compare(b.Position) })
					twin = slices.Insert(twin, i, e)
				}
			},
			"peek": func(*rapid.T) { check(draw("limit")) },
			"peek none": func(*rapid.T) {
				if _, ok := c.peek(watermark.None); ok {
					t.Fatal("something is due at no watermark")
				}
			},
			"release": func(*rapid.T) {
				for w := draw("watermark"); check(w); {
					c.pop()
					twin = twin[1:]
				}
				c.skipTo(watermark.None) // says nothing
			},
			"release few": func(*rapid.T) {
				for w, n := draw("watermark"), 2; n > 0 && check(w); n-- {
					c.pop()
					twin = twin[1:]
				}
			},
			"skip": func(*rapid.T) { c.skipTo(draw("watermark")) },
			"rewind": func(*rapid.T) {
				c.rewind()
			},
			"": func(t *rapid.T) {
				if c.n != len(twin) {
					t.Fatalf("n = %d, want %d", c.n, len(twin))
				}
			},
		})
		for check(watermark.Max) {
			c.pop()
			twin = twin[1:]
		}
		if c.n != 0 || len(twin) != 0 {
			t.Fatalf("%d left, want %d", c.n, len(twin))
		}
	})
}

// TestCalendarCrowd fills more than a block of entries, several times, through
// ticks that are crowded and ticks that are not.
func TestCalendarCrowd(t *testing.T) {
	s := seeded(1)
	c := newCalendar()
	var offset int64
	for range 20 {
		var twin []Position
		base := watermark.Time(s(1 << 40))
		spread := 1 << s(40)
		for range s(3 * blockSize * packSize) {
			p := Position{base + watermark.Time(s(spread)), offset}
			offset++
			c.push(entry{Position: p})
			twin = append(twin, p)
		}
		slices.SortFunc(twin, Position.compare)
		for _, want := range twin {
			if e, ok := c.peek(watermark.Max); !ok || e.Position != want {
				t.Fatalf("peek = %v %v, want %v", e.Position, ok, want)
			}
			c.pop()
		}
		if _, ok := c.peek(watermark.Max); ok || len(c.blocks) > 1 {
			t.Fatalf("an empty calendar keeps %d blocks", len(c.blocks))
		}
		c.rewind()
	}
}

// TestSkipSavesTheDescent: skipTo is there so that entries begin where they
// will be taken from, and that can only be seen from inside.
func TestSkipSavesTheDescent(t *testing.T) {
	const now = watermark.Time(1_763_700_000_000e6)
	c := newCalendar()
	c.skipTo(now)
	c.push(entry{Position: Position{now + 3e6, 0}})
	for i, l := range c.wheel {
		if i > 0 && l != nil {
			t.Errorf("level %d is in use", i)
		}
	}
	if _, ok := c.peek(now); ok || c.cur != tickOf(now.Next())&^slotMask {
		t.Errorf("looking for what is due moved cur from %d to %d", tickOf(now.Next()), c.cur)
	}
	c.skipTo(now.Add(time.Hour)) // not empty: says nothing
	if e, ok := c.peek(now + 3e6); !ok || e.Offset != 0 {
		t.Errorf("peek = %v %v", e, ok)
	}
	c.pop()
	c.rewind()
	if c.cur != 0 {
		t.Errorf("rewound to %d", c.cur)
	}
}

// TestArena compares the arena with a map of what it has been given.
func TestArena(t *testing.T) {
	type held struct {
		ref  uint64
		body []byte
		want byte
		size int

		flight uint64 // that it was taken with
	}
	rapid.Check(t, func(t *rapid.T) {
		pool := &chunkPool{}
		arenas := []*arena{{pool: pool}, {pool: pool}} // what one gives back the other gets
		twins := make([]map[int64]held, len(arenas))
		var taken []held
		for i := range twins {
			twins[i] = map[int64]held{}
		}
		var offset int64
		lowest := func(i int) (int64, bool) {
			low, ok := int64(0), false
			for o := range twins[i] {
				if !ok || o < low {
					low, ok = o, true
				}
			}
			return low, ok
		}
		intact := func(h held, body []byte) {
			if len(body) != h.size || cap(body) != h.size || bytes.Count(body, []byte{h.want}) != h.size {
				t.Fatalf("%d bytes of %d are not what was put in", len(body), h.want)
			}
		}
		which := func() int { return rapid.IntRange(0, len(arenas)-1).Draw(t, "arena") }
		t.Repeat(map[string]func(*rapid.T){
			"add": func(*rapid.T) {
				i := which()
				for range rapid.IntRange(1, 8).Draw(t, "n") {
					size := rapid.OneOf(rapid.IntRange(0, 40), rapid.IntRange(0, 9000), rapid.SampledFrom([]int{
						0, minChunk - markSize, minChunk - markSize + 1, maxChunk - markSize, maxChunk - markSize + 1, 300 << 10,
					})).Draw(t, "size")
					ref, body := arenas[i].add(offset, int32(offset/3), size)
					h := held{ref: ref, body: body, want: byte(offset), size: size}
					for j := range body {
						body[j] = h.want
					}
					intact(h, body)
					twins[i][offset] = h
					offset += int64(rapid.IntRange(1, 2).Draw(t, "hole"))
				}
			},
			"take": func(*rapid.T) {
				i := which()
				for range rapid.IntRange(1, 8).Draw(t, "n") {
					all := make([]int64, 0, len(twins[i]))
					for o := range twins[i] {
						all = append(all, o)
					}
					if len(all) == 0 {
						return
					}
					slices.Sort(all)
					o := rapid.SampledFrom(all).Draw(t, "offset")
					h := twins[i][o]
					delete(twins[i], o)
					if rapid.Bool().Draw(t, "warm") {
						arenas[i].warm([]entry{{ref: h.ref}})
					}
					h.body, h.flight = arenas[i].take(h.ref), pool.flight
					intact(h, h.body)
					taken = append(taken, h)
				}
			},
			"new flight": func(*rapid.T) { pool.flight++ },
			"land": func(*rapid.T) {
				flight := rapid.Uint64Range(0, pool.flight).Draw(t, "flight")
				taken = slices.DeleteFunc(taken, func(h held) bool {
					intact(h, h.body)
					return h.flight <= flight
				})
				pool.landed(flight)
				for _, s := range pool.spent {
					if s.flight <= flight {
						t.Fatal("a chunk whose flight has landed is not free")
					}
				}
				pool.flight = max(pool.flight, flight+1)
			},
			"": func(t *rapid.T) {
				for i, a := range arenas {
					low, ok := lowest(i)
					if o, e, found := a.lowest(); found != ok || ok && (o != low || e != int32(low/3)) {
						t.Fatalf("lowest is %d %d %v, want %d %d %v", o, e, found, low, low/3, ok)
					}
					var sum int64
					for _, c := range a.chunks {
						if c != nil {
							sum += int64(cap(c.buf))
						}
					}
					if sum != a.bytes {
						t.Fatalf("%d bytes, counted as %d", sum, a.bytes)
					}
					left := int64(0)
					for _, h := range twins[i] {
						left += int64(h.size) + markSize
					}
					if held := a.held(); held < left || held > sparse*left+fewBytes+2*maxChunk {
						t.Fatalf("%d bytes are kept for %d", held, left)
					}
				}
				for _, h := range taken {
					intact(h, h.body)
				}
				pooled := 0
				for _, class := range pool.free {
					for _, c := range class {
						pooled += cap(c.buf)
						if len(c.buf) != 0 || c.left != 0 || c.scan != 0 {
							t.Fatal("a pooled chunk is not clean")
						}
					}
				}
				if pooled != pool.bytes || pooled > maxPooled {
					t.Fatalf("%d bytes pooled, counted as %d", pooled, pool.bytes)
				}
			},
		})
		// Everything out: no more than the chunk that is being filled is kept.
		for i, a := range arenas {
			for _, h := range twins[i] {
				intact(h, a.take(h.ref))
			}
			pool.landed(pool.flight)
			if len(a.chunks) > 1 || len(a.chunks) == 0 && a.bytes != 0 {
				t.Fatalf("%d chunks, %d bytes left when everything is gone", len(a.chunks), a.bytes)
			}
		}
	})
}

// TestStragglersPinLittle: a record that stays does not keep those that came
// with it, and the lowest is known through all generations.
func TestStragglersPinLittle(t *testing.T) {
	a := arena{pool: &chunkPool{}}
	type stays struct {
		ref    uint64
		offset int64
	}
	var all []stays
	const every, size = 1000, 250
	for o := range int64(400_000) {
		ref, body := a.add(o, 7, size)
		body[0] = byte(o / every)
		if o%every == 0 {
			all = append(all, stays{ref, o})
		} else {
			a.take(ref)
		}
		if o%5000 == 0 {
			a.pool.landed(a.pool.flight)
			a.pool.flight++
		}
		if low, _, _ := a.lowest(); low != 0 {
			t.Fatalf("lowest is %d with 0 still there", low)
		}
	}
	if held := a.held(); held > 2<<20 {
		t.Errorf("%d records of %d bytes keep %d bytes", len(all), size, held)
	}
	for i, s := range all {
		if body := a.take(s.ref); len(body) != size || body[0] != byte(s.offset/every) {
			t.Fatalf("%d bytes of offset %d, and not its own", len(body), s.offset)
		}
		if i+1 < len(all) {
			if low, e, ok := a.lowest(); low != all[i+1].offset || e != 7 || !ok {
				t.Fatalf("lowest is %d, want %d", low, all[i+1].offset)
			}
		}
	}
	if len(a.moved) != 0 {
		t.Errorf("%d places are still remembered", len(a.moved))
	}
}

// TestChunksGrow: what a partition keeps for its first record is small, and
// what it keeps for many comes in large pieces.
func TestChunksGrow(t *testing.T) {
	a := arena{pool: &chunkPool{}}
	a.add(0, 0, 10)
	if a.bytes != minChunk {
		t.Errorf("the first record costs %d bytes", a.bytes)
	}
	for o := range int64(40 << 10) {
		a.add(o+1, 0, 200)
	}
	if last := a.chunks[len(a.chunks)-1]; cap(last.buf) != maxChunk {
		t.Errorf("after %d bytes, a chunk has %d", a.bytes, cap(last.buf))
	}
	if used := int64(40<<10) * (200 + markSize); a.bytes > used+used/8 {
		t.Errorf("%d bytes are kept for %d", a.bytes, used)
	}
}
