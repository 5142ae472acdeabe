package reorder

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
)

// TestHeld compares what is said of the records held with what is: exactly where
// all are looked at, and roughly where it is an estimate. The calendar stays as it was,
// to the last pointer.
func TestHeld(t *testing.T) {
	for seed := range uint64(60) {
		s := seeded(seed)
		c := newCalendar()
		base := watermark.Time(s(1 << 40))
		spread := 1 << (10 + s(32))
		held := map[int64]watermark.Time{}
		n := 1 + s(60_000)
		for i := range n {
			at := base + watermark.Time(s(spread))
			held[int64(i)] = at
			c.push(entry{Position: Position{at, int64(i)}})
			if e, ok := c.peek(base + watermark.Time(s(spread))/2); ok && i%3 == 0 && c.n > 1 {
				c.pop()
				delete(held, e.Offset)
			}
		}
		times := slices.Sorted(maps.Values(held))
		before := fmt.Sprintf("%+v", shape(&c))
		for _, most := range []int{n * packSize, 2000} {
			exact := most > n
			p := Partition{queue: c, clock: watermark.Clock{Max: times[len(times)-1]}}
			h := p.Held(most)
			if exact && h.From != times[0] || h.From > times[0] || h.To != p.clock.Max {
				t.Fatalf("seed %d: held from %d to %d, want %d to %d", seed, h.From, h.To, times[0], p.clock.Max)
			}
			want := Held{From: h.From, To: h.To}
			for _, at := range times {
				want.Cells[want.cell(at)]++
			}
			sum := int64(0)
			for i, k := range h.Cells {
				sum += k
				if off := k - want.Cells[i]; exact && off != 0 || max(off, -off) > want.Cells[i]/2+int64(n)/50+20 {
					t.Fatalf("seed %d, %d of %d looked at: cells %v, want %v", seed, most, n, h.Cells, want.Cells)
				}
			}
			if sum > int64(c.n) || sum < int64(c.n)-3*HeldCells {
				t.Fatalf("seed %d: %d in all, want %d", seed, sum, c.n)
			}
		}
		if after := fmt.Sprintf("%+v", shape(&c)); after != before {
			t.Fatalf("seed %d: looking changed the calendar", seed)
		}
	}
}

// shape is what a look must not change.
func shape(c *calendar) any {
	used := [][]uint64{}
	for _, l := range c.wheel {
		if l != nil {
			used = append(used, slices.Clone(l.used[:]))
		}
	}
	return []any{c.cur, c.near, c.n, c.head, len(c.run), len(c.heap), c.free, len(c.blocks), used}
}

// TestHeldCells: the cells cover the range, whatever that is.
func TestHeldCells(t *testing.T) {
	for _, h := range []Held{{From: watermark.None + 1, To: watermark.Max}, {From: 5, To: 5}, {From: 0, To: HeldCells - 1}, {From: -7, To: 1 << 50}} {
		if first, last := h.cell(h.From), h.cell(h.To); first != 0 || h.To != h.From && last < HeldCells*9/10 || last >= HeldCells {
			t.Errorf("%d to %d: cells %d to %d", h.From, h.To, first, last)
		}
	}
	if h := new(Partition).Held(100); h.From != watermark.None || h.Cells != [HeldCells]int64{} {
		t.Errorf("nothing is held, and it says %+v", h)
	}
}

// TestOwedWhileReplaying: what is owed while a partition is read again is what its commit
// says, and a look at it is not written down.
func TestOwedWhileReplaying(t *testing.T) {
	e := NewEngine(Options{Bound: time.Second, IdleTimeout: time.Second}, 1<<20)
	p := e.Assign(Fresh(0, 0, 0), 0)
	for i := range int64(10) {
		p.Step(Record{Offset: i, Time: watermark.Time(i)}, 0)
	}
	if p.Owed() != 10 || p.Newest() != 9 {
		t.Fatalf("%d owed, newest %d", p.Owed(), p.Newest())
	}
	snap := p.Snapshot()
	p.Held(5)
	if again := p.Snapshot(); !reflect.DeepEqual(snap, again) {
		t.Errorf("a look changed %+v to %+v", snap, again)
	}
	p = e.Assign(snap, 0)
	p.Step(Record{Offset: 0, Time: 0}, 0)
	if st := p.Status(); st.Owed != 10 || st.Records != 1 || !st.Replaying || st.Again != 1 {
		t.Errorf("%+v", st)
	}
	var heard watermark.Stretch
	observe := func(sent watermark.Instant) {
		heard.Answer(sent, 10, 10)
		p.Observe(heard)
	}
	observe(0)
	observe(watermark.Instant(time.Second))
	if p.Status().Quiet != 0 {
		t.Error("quiet while it is read again")
	}
	for i := range int64(9) {
		p.Step(Record{Offset: i + 1, Time: watermark.Time(i + 1)}, 0)
	}
	e.Tick(watermark.Instant(2 * time.Second))
	if loss := p.EndReplay(10, false); loss != nil {
		t.Fatal(loss)
	}
	observe(watermark.Instant(2 * time.Second))
	observe(watermark.Instant(2400 * time.Millisecond))
	if q := p.Status().Quiet; q != 400*time.Millisecond {
		t.Errorf("quiet for %v", q)
	}
}

// BenchmarkHeld: what a look costs with a million held.
func BenchmarkHeld(b *testing.B) {
	for _, n := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			_, p := steady(n, nil)
			for b.Loop() {
				p.Held(1 << 14)
			}
		})
	}
}
