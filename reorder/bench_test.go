package reorder

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
)

// workload makes the event times of a stream of ten records a millisecond: most
// come within 20 ms, exponentially, and 5 % up to 2 s late. It is drawn before
// the clock of the benchmark starts.
type workload struct {
	lag [1 << 16]time.Duration
	n   int64
}

func newWorkload() *workload {
	rng := rand.New(rand.NewPCG(1, 2))
	w := new(workload)
	for i := range w.lag {
		if w.lag[i] = time.Duration(rng.ExpFloat64() * float64(5*time.Millisecond)); rng.IntN(20) == 0 {
			w.lag[i] = time.Duration(rng.Int64N(int64(2 * time.Second)))
		}
		if w.lag[i] > 2*time.Second {
			w.lag[i] = 2 * time.Second
		}
	}
	return w
}

// next returns the next record's position and how far the stream has come.
func (w *workload) next() (p Position, now watermark.Time) {
	const start = watermark.Time(1_763_700_000_000e6)
	now = start + watermark.Time(w.n)*watermark.Time(100*time.Microsecond)
	p = Position{now.Sub(w.lag[w.n&(1<<16-1)]), w.n}
	w.n++
	return p, now
}

var heldCounts = []int{50_000, 5_000_000}

// bound is the one that keeps about n records of the workload.
func bound(n int) time.Duration { return time.Duration(n) * 100 * time.Microsecond }

func BenchmarkCalendar(b *testing.B) {
	for _, n := range heldCounts {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w, c := newWorkload(), newCalendar()
			one := func() {
				p, now := w.next()
				c.push(entry{Position: p})
				for limit := now.Sub(bound(n)); ; c.pop() {
					if _, ok := c.peek(limit); !ok {
						break
					}
				}
			}
			for range n + n/8 {
				one()
			}
			b.ReportAllocs()
			for b.Loop() {
				one()
			}
			b.ReportMetric(float64(c.n), "held")
		})
	}
}

// pointers is the queue one would write first.
type pointers []*entry

func (h pointers) Len() int           { return len(h) }
func (h pointers) Less(i, j int) bool { return h[i].Before(h[j].Position) }
func (h pointers) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *pointers) Push(x any)        { *h = append(*h, x.(*entry)) }

func (h *pointers) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}

func BenchmarkHeap(b *testing.B) {
	for _, n := range heldCounts {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w, h := newWorkload(), &pointers{}
			one := func() {
				p, now := w.next()
				heap.Push(h, &entry{Position: p})
				for limit := now.Sub(bound(n)); len(*h) > 0 && (*h)[0].Time <= limit; {
					heap.Pop(h)
				}
			}
			for range n + n/8 {
				one()
			}
			b.ReportAllocs()
			for b.Loop() {
				one()
			}
			b.ReportMetric(float64(h.Len()), "held")
		})
	}
}

// steady is a partition under the workload, with 200 bytes a record and a
// commit every thousand. Where records have an identity, their event times are
// whole milliseconds, and every second repeats the one before it if it has its
// time.
func steady(held int, id Identity) (one func(), p *Partition) {
	e := NewEngine(Options{Bound: bound(held), MaxFuture: 5 * time.Minute, Identity: id}, 1<<40)
	p = e.Assign(Fresh(0, 0, 0), 0)
	w := newWorkload()
	payload := make([]byte, 200)
	var out Release
	one = func() {
		at, now := w.next()
		if id != nil {
			at.Time -= at.Time % watermark.Time(time.Millisecond)
			binary.LittleEndian.PutUint64(payload, uint64(at.Offset/2))
		}
		if v, body := p.Step(Record{Offset: at.Offset, Time: at.Time, Size: len(payload)}, now); v == OnTime {
			copy(body, payload)
		}
		for p.Next(&out) {
		}
		if at.Offset%1000 == 0 {
			p.Advance()
			e.Flight(uint64(at.Offset/1000) + 1)
			e.Landed(uint64(at.Offset / 1000))
		}
	}
	for range held + held/8 {
		one()
	}
	return one, p
}

// firstWord takes the first eight bytes of a payload for its identity.
type firstWord struct{}

func (firstWord) Of(body []byte) []byte { return body[:8] }

func BenchmarkPartition(b *testing.B) { benchmarkPartition(b, nil) }

func BenchmarkPartitionApart(b *testing.B) { benchmarkPartition(b, firstWord{}) }

func benchmarkPartition(b *testing.B, id Identity) {
	for _, n := range heldCounts {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			one, p := steady(n, id)
			b.SetBytes(200)
			b.ReportAllocs()
			for b.Loop() {
				one()
			}
			b.ReportMetric(float64(p.Status().Records), "held")
		})
	}
}

// TestNoGarbage: a record that passes through leaves nothing to collect.
func TestNoGarbage(t *testing.T) {
	for _, id := range []Identity{nil, firstWord{}} {
		one, p := steady(50_000, id)
		for range 200_000 {
			one()
		}
		const batch = 10_000
		allocs := testing.AllocsPerRun(10, func() {
			for range batch {
				one()
			}
		})
		// What is left over are the lists of chunks, a few a million records.
		if perRecord := allocs / batch; perRecord > 0.001 {
			t.Errorf("%g allocations a record", perRecord)
		}
		if held := p.Status().Records; held < 40_000 {
			t.Errorf("only %d held", held)
		}
	}
}
