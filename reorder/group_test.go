package reorder

import (
	"encoding/binary"
	"testing"
	"time"
)

// Two identities may have the same hash, and are two all the same.
func TestSameHashIsNotSameIdentity(t *testing.T) {
	store := arena{pool: &chunkPool{flight: 1}}
	g := &group{of: firstByte{}}
	for i, c := range []struct {
		id   byte
		want relation
	}{{1, original}, {2, original}, {1, repeat}, {2, repeat}, {3, original}} {
		ref, body := store.add(int64(i), 0, 1)
		body[0] = c.id
		if got := g.insert(&store, 7, body, ref); got != c.want {
			t.Errorf("#%d, known by %d, is taken for %d, want %d", i, c.id, got, c.want)
		}
	}
}

// Very many records may have one event time: what it costs to tell them apart
// grows with their number, and what it took is given back. Payloads are whole
// until they have landed, though those of the group are needed for longer.
func TestLargeGroup(t *testing.T) {
	const n = 200_000
	e := NewEngine(Options{Bound: time.Second, Identity: firstWord{}}, 1<<40)
	p := e.Assign(Fresh(0, 0, 0), 0)
	for i := range int64(n) {
		_, body := p.Step(Record{Offset: i, Time: 5, Size: 50}, 0)
		binary.LittleEndian.PutUint64(body, uint64(i%(n/2)))
		binary.LittleEndian.PutUint64(body[42:], uint64(i))
	}
	p.Step(Record{Offset: n, Time: 5e9}, 0)
	var flown []Release
	var r Release
	for i := int64(0); p.Next(&r); i++ {
		if r.Offset != i || r.Duplicate != (i >= n/2) {
			t.Fatalf("#%d came out as the %dth, duplicate=%v", r.Offset, i, r.Duplicate)
		}
		if i < n-1 && p.Low() != 0 {
			t.Fatalf("L=%d in the midst of the group", p.Low())
		}
		if flown = append(flown, r); len(flown) == 1000 {
			for _, r := range flown {
				if at := int64(binary.LittleEndian.Uint64(r.Body[42:])); at != r.Offset {
					t.Fatalf("the payload of #%d is that of #%d", r.Offset, at)
				}
			}
			flown = flown[:0]
			flight := e.pool.flight
			e.Flight(flight + 1)
			e.Landed(flight)
		}
	}
	if p.Low() != n || p.Status().Records != 1 {
		t.Errorf("L=%d, %d held", p.Low(), p.Status().Records)
	}
	if g := p.group; g.known != nil || g.out != nil || g.aside != nil {
		t.Errorf("room for %d identities is kept", cap(g.known))
	}
}

// A log that loses its end while repeats are set aside: those that are lost do
// not come out, and the group ends with what is left of it.
func TestRewindAmongRepeats(t *testing.T) {
	for _, end := range []int64{1, 2, 3, 4} {
		e := NewEngine(Options{Bound: time.Second, Identity: firstByte{}}, 1<<40)
		p := e.Assign(Fresh(0, 0, 0), 0)
		for i := range int64(4) {
			_, body := p.Step(Record{Offset: i, Time: 5, Size: 1}, 0)
			body[0] = 1
		}
		p.Step(Record{Offset: 4, Time: 5e9}, 0)
		var r Release
		if !p.Next(&r) || r.Offset != 0 || p.Snapshot().Repeats != 3 {
			t.Fatalf("#%d came out, %+v", r.Offset, p.Snapshot())
		}
		p.Rewind(end)
		for i := int64(1); i < end; i++ {
			if p.Low() != 0 || !p.Next(&r) || r.Offset != i || !r.Duplicate {
				t.Errorf("end %d: #%d came out, not the duplicate #%d; L=%d", end, r.Offset, i, p.Low())
			}
		}
		if p.Next(&r) || p.Low() != end || p.Status().Records != 0 || e.Bytes() != 0 {
			t.Errorf("end %d: L=%d, %d held in %d bytes, #%d came out", end, p.Low(), p.Status().Records, e.Bytes(), r.Offset)
		}
	}
}
