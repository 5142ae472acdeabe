package watermark

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestDisorderClasses: every delay is in the first class that ends at or after it.
func TestDisorderClasses(t *testing.T) {
	for _, c := range []struct {
		d   time.Duration
		end time.Duration
	}{
		{math.MinInt64, 0},
		{0, 0},
		{1, time.Millisecond},
		{time.Millisecond, time.Millisecond},
		{time.Millisecond + 1, 2 * time.Millisecond},
		{16 * time.Millisecond, 16 * time.Millisecond},
		{16*time.Millisecond + 1, 18 * time.Millisecond},
		{18 * time.Millisecond, 18 * time.Millisecond},
		{33 * time.Millisecond, 36 * time.Millisecond},
		{time.Second, 1024 * time.Millisecond},
		{MostBound, MostBound},
		{MostBound + 1, MostBound}, // there is no other
		{math.MaxInt64, MostBound},
	} {
		if got := endOf(classOf(c.d)); got != c.end {
			t.Errorf("%v is in the class up to %v, want %v", c.d, got, c.end)
		}
	}
	for class := 1; class < classes; class++ {
		end := endOf(class)
		if classOf(end) != class || classOf(endOf(class-1)+1) != class {
			t.Fatalf("class %d does not go from %v to %v", class, endOf(class-1)+1, end)
		}
		if width := end - endOf(class-1); width > max(time.Millisecond, endOf(class-1)/8) {
			t.Fatalf("class %d is %v wide at %v", class, width, end)
		}
	}
}

// TestDisorder holds the bound to its definition, and what is written to what is
// read, after every record of random streams.
func TestDisorder(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 0))
		late := []int{500_000, 300_000, 100_000, 10_000, 1000}[rng.IntN(5)]
		h := NewDisorder(late)
		spread := time.Duration(1) << rng.IntN(40)
		for i := range 2000 {
			d := time.Duration(0)
			switch rng.IntN(4) {
			case 0:
				d = upTo(rng, spread)
			case 1:
				d = upTo(rng, 10*time.Millisecond)
			}
			before := slices.Clone(h.counts)
			h.Add(d)
			before[classOf(d)]++
			if want := faded(before, late); !slices.Equal(h.counts, want) {
				t.Fatalf("seed %d record %d: %v became %v, want %v", seed, i, before, h.counts, want)
			}
			bound, known := h.Bound()
			if want, enough := boundBy(h.counts, late); bound != want || known != enough {
				t.Fatalf("seed %d record %d: bound %v %v, by definition %v %v: %v", seed, i, bound, known, want, enough, h.counts)
			}
			if i%50 > 0 {
				continue
			}
			text := h.Append(nil)
			again, err := ReadDisorder(text, late)
			if err != nil || !slices.Equal(again.counts, h.counts) || again.total != h.total || again.bound != h.bound ||
				again.beyond != h.beyond || again.highest < highestOf(h.counts) || !bytes.Equal(again.Append(nil), text) {
				t.Fatalf("seed %d record %d: %+v was read as %+v, %v", seed, i, h, again, err)
			}
			h = again
		}
	}
}

// boundBy is the smallest end of a class beyond which no more lie than may be
// late; and whether one could be.
func boundBy(counts []uint32, late int) (time.Duration, bool) {
	total := 0
	for _, n := range counts {
		total += int(n)
	}
	beyond := total
	for class, n := range counts {
		if beyond -= int(n); beyond*1_000_000 <= late*total {
			return endOf(class), late*total >= 1_000_000
		}
	}
	panic("more beyond the last class")
}

// faded halves the number of records beyond any delay, when there are too many.
func faded(counts []uint32, late int) []uint32 {
	total := uint32(0)
	for _, n := range counts {
		total += n
	}
	if int(total)*late < 16_000_000 {
		return counts
	}
	half := make([]uint32, len(counts))
	for class := range counts {
		from, after := uint32(0), uint32(0)
		for c, n := range counts {
			if c >= class {
				from += n
			}
			if c > class {
				after += n
			}
		}
		half[class] = from/2 - after/2
	}
	return half
}

func highestOf(counts []uint32) int {
	for class := len(counts) - 1; class > 0; class-- {
		if counts[class] > 0 {
			return class
		}
	}
	return 0
}

// TestDisorderReacts: when a stream becomes worse, at most sixteen records come
// beyond the bound and two for the share itself before the bound covers them,
// however long the stream was calm; and the share that is late is what was asked for, within a
// half of it, when all is steady.
func TestDisorderReacts(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		h := NewDisorder(1000)
		for range 200_000 {
			h.Add(upTo(rng, 20*time.Millisecond))
		}
		calm, _ := h.Bound()
		if calm > 24*time.Millisecond {
			t.Fatalf("seed %d: bound %v of delays up to 20 ms", seed, calm)
		}
		beyond := 0
		for bound := calm; bound < 3*time.Second; bound, _ = h.Bound() {
			h.Add(3 * time.Second)
			if beyond++; beyond > 18 {
				t.Fatalf("seed %d: %d records beyond the bound did not raise it", seed, beyond)
			}
		}
		late, all := 0, 0
		for i := range 400_000 {
			d := time.Duration(rng.ExpFloat64() * float64(100*time.Millisecond))
			if bound, _ := h.Bound(); i > 200_000 { // the three seconds have faded
				all++
				if d > bound {
					late++
				}
			}
			h.Add(d)
		}
		if share := float64(late) / float64(all); share > 0.0015 || share < 0.0005 {
			t.Errorf("seed %d: %.5f of the records were late, asked for 0.001", seed, share)
		}
	}
}

func FuzzReadDisorder(f *testing.F) {
	h := NewDisorder(100)
	for i := range 1000 {
		h.Add(time.Duration(i*i) * time.Millisecond)
	}
	f.Add(h.Append(nil), 100)
	f.Add([]byte{0, 0}, 1)
	f.Add([]byte{240, 1, 1}, 500_000)
	f.Fuzz(func(t *testing.T, b []byte, late int) {
		if late < 1 || late > 500_000 {
			return
		}
		h, err := ReadDisorder(b, late)
		if err != nil {
			return
		}
		want, enough := boundBy(h.counts, late)
		if bound, known := h.Bound(); bound != want || known != enough {
			t.Errorf("bound %v %v, by definition %v %v", bound, known, want, enough)
		}
		h.Add(time.Second)
	})
}

func BenchmarkDisorder(b *testing.B) {
	h := NewDisorder(100)
	rng := rand.New(rand.NewPCG(1, 1))
	delays := make([]time.Duration, 1<<12)
	for i := range delays {
		delays[i] = time.Duration(rng.ExpFloat64() * float64(100*time.Millisecond))
	}
	b.ReportAllocs()
	for i := range b.N {
		h.Add(delays[i%len(delays)])
	}
}

func upTo(rng *rand.Rand, d time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(d))) }
