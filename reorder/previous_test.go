package reorder

import (
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
)

// keyed makes a log of records of one key, those with a negative time without one.
func keyed(times ...time.Duration) (log []logged) {
	for i, t := range times {
		r := logged{Record: Record{Offset: int64(i), Time: watermark.Time(t), Key: 4}, marker: watermark.None}
		if t < 0 {
			r.Time, r.Previous = watermark.None, true
		}
		log = append(log, r)
	}
	return log
}

// TestRewindOfLenders: what a lost record has lent is lost with it, and then the one
// before it lends.
func TestRewindOfLenders(t *testing.T) {
	for _, lose := range []int{1, 2, 3} {
		log := keyed(10, 20, -1, -1)
		w := newWorld(NewEngine(Options{Bound: time.Second, Previous: true}, 1<<40), log)
		w.assign(false)
		for w.more() {
			w.read()
			w.drain()
		}
		w.commit()
		w.p.Advance()
		at := int64(lose)
		w.log, w.end = log[:lose], at
		w.p.Rewind(at)
		w.forget(at)
		w.accepted()
		w.log, w.end = append(w.log[:lose:lose], logged{Record: Record{Offset: at, LeaderEpoch: 1, Key: 4, Previous: true}, marker: watermark.None}), at+1
		if v := w.read(); v != OnTime {
			t.Fatalf("lost from #%d: the record without a time is %v", lose, v)
		}
		w.commit()
		w.p.Advance()
		if loss := w.assign(false); loss != nil {
			t.Fatalf("lost from #%d: after a crash: %v", lose, loss)
		}
		w.finish()
		want := []Position{{10, 0}, {20, 1}, {20, 2}, {20, 3}}[:lose]
		want = append(want, Position{max(want[len(want)-1].Time, 10), at})
		if len(w.out) != len(want) {
			t.Fatalf("lost from #%d: %d came out:\n%s", lose, len(w.out), list(w.out))
		}
		for i, o := range w.out {
			if o.Position != want[i] {
				t.Errorf("lost from #%d: #%d comes out at %d ns, want #%d at %d", lose, o.Offset, o.Time, want[i].Offset, want[i].Time)
			}
		}
	}
}

// TestLenderIsGone: where the record that has lent its time is gone from the log, the
// loss is noticed, and whoever accepts it goes on.
func TestLenderIsGone(t *testing.T) {
	w := newWorld(NewEngine(Options{Bound: time.Second, Previous: true}, 1<<40), keyed(10, -1))
	w.assign(false)
	for w.more() {
		w.read()
	}
	w.drain()
	w.commit()
	w.p.Advance()
	w.log = w.log[1:]
	loss := w.assign(false)
	if loss == nil || loss.Owed != 2 || loss.Found != 0 {
		t.Fatalf("loss = %+v, want both of 2", loss)
	}
	if loss := w.p.EndReplay(w.end, true); loss == nil || w.p.Low() != 2 || w.p.Status().Records != 0 {
		t.Errorf("goes on with %+v, loss %v", w.p.Status(), loss)
	}
}

// TestRepeatLends: a repeat that has lent its time, and is known by nothing any more, stays
// until its event time is out. It is too rare for the simulation: usually its original stays.
func TestRepeatLends(t *testing.T) {
	var free []int64 // offsets that are known by nothing once the identity is another
	for o := int64(0); len(free) < 2; o++ {
		if idOf(secondByte{}, o) == 0 {
			free = append(free, o)
		}
	}
	a, b := free[0], free[1]
	at := func(offset, key int64, t time.Duration) logged {
		return logged{Record: Record{Offset: offset, Key: uint64(key) << 8, Time: watermark.Time(t)}, marker: watermark.None}
	}
	log := []logged{at(a, 1, 10), at(b, 2, 10), at(b+1, 2, 0), at(b+2, 3, 100)}
	log[2].Previous = true
	w := newWorld(NewEngine(Options{Bound: 50, Identity: firstByte{}, Previous: true}, 1<<40), log)
	w.ids = map[int64]byte{a: 1, b: 1}
	again := func(by Identity) {
		w.eng = NewEngine(Options{Bound: 50, Identity: by, Previous: true}, 1<<40)
		w.opts, w.p = w.eng.opts, nil
		if loss := w.assign(false); loss != nil {
			t.Fatal(loss)
		}
	}
	w.assign(false)
	for w.more() {
		w.read()
	}
	w.next()
	w.commit()
	again(secondByte{})
	w.next()
	if s := w.commit(); s.Low != b || s.Frontier != (Position{10, b + 1}) {
		t.Errorf("L=%d at %v, and #%d has its time from #%d", s.Low, s.Frontier, b+1, b)
	}
	again(secondByte{})
	w.finish()
	want := []output{{Position: Position{10, a}}, {Position: Position{10, b}, verdict: Duplicate}, {Position: Position{10, b + 1}}, {Position: Position{100, b + 2}}}
	for i, o := range w.out {
		if o.Position != want[i].Position || o.verdict != want[i].verdict {
			t.Errorf("%d: #%d t=%d %v", i, o.Offset, o.Time, o.verdict)
		}
	}
}

// TestEdgeBehindFlush: where what was to begin a new epoch is not a record with a time any
// more, and one without a time is held meanwhile, that is released before the epoch begins.
func TestEdgeBehindFlush(t *testing.T) {
	p := NewEngine(Options{Bound: 5, ReanchorAfter: 1, Previous: true}, 1<<40).Assign(Fresh(0, 0, 0), 0)
	var r Release
	drain := func() (n int) {
		for p.Next(&r) {
			n++
		}
		return n
	}
	late := Record{Offset: 1, Time: 10}
	p.Step(Record{Time: 100}, 0)
	if v, _ := p.Step(late, 0); v != Flush || drain() != 1 {
		t.Fatalf("a late record is %v", v)
	}
	if v, _ := p.Step(Record{Offset: 1, Previous: true}, 0); v != OnTime {
		t.Fatalf("at the edge: %v", v)
	}
	late.Offset = 2
	if v, _ := p.Step(late, 0); v != Flush || drain() != 1 || r.Epoch != 0 || r.Time != 101 || !r.Previous {
		t.Errorf("the next late record is %v, and before it came out %+v", v, r)
	}
	if v, _ := p.Step(late, 0); v != OnTime || p.Epoch() != 1 {
		t.Errorf("then it is %v in epoch %d", v, p.Epoch())
	}
}

// TestLendersAreAccounted: what is known of keys counts as memory, and goes with what
// is held.
func TestLendersAreAccounted(t *testing.T) {
	e := NewEngine(Options{Bound: time.Second, Previous: true}, 1<<40)
	p := e.Assign(Fresh(0, 0, 0), 0)
	step := func(offset int64, key uint64, at watermark.Time) {
		before := e.Bytes()
		p.Step(Record{Offset: offset, Key: key, Time: at}, 0)
		if offset > 0 && offset < 100 && e.Bytes()-before < entrySize+markSize+tagSize+lenderSize {
			t.Fatalf("#%d costs %d bytes", offset, e.Bytes()-before)
		}
	}
	for i := range int64(100) {
		step(i, uint64(i)<<8, watermark.Time(i))
	}
	step(100, 1<<20, watermark.Time(time.Hour))
	var r Release
	for p.Next(&r) {
	}
	if len(p.lenders) != 1 || p.count != 1 {
		t.Errorf("%d keys of %d records are known", len(p.lenders), p.count)
	}
	p.Step(Record{Offset: 101, Key: 1 << 20, Previous: true}, 0)
	p.Step(Record{Offset: 102, Time: watermark.Time(2 * time.Hour)}, 0)
	for p.Next(&r) {
	}
	p.force()
	for p.Next(&r) {
	}
	if len(p.lenders) != 0 || e.Bytes() != 0 {
		t.Errorf("%d keys and %d bytes are left of nothing", len(p.lenders), e.Bytes())
	}
}

// TestPreviousMakesNoGarbage: in the steady state nothing is allocated for a record, with
// or without a time.
func TestPreviousMakesNoGarbage(t *testing.T) {
	e := NewEngine(Options{Bound: 5 * time.Second, Previous: true}, 1<<40)
	p := e.Assign(Fresh(0, 0, 0), 0)
	var r Release
	offset, flight := int64(0), uint64(1)
	one := func() {
		in := Record{Offset: offset, Key: uint64(offset/4%20_000) << 8, Size: 100, Time: watermark.Time(offset) * watermark.Time(time.Millisecond)}
		in.Previous = offset%4 == 3
		p.Step(in, 0)
		for p.Next(&r) {
		}
		if offset++; offset%1000 == 0 {
			e.Landed(flight)
			flight++
			e.Flight(flight)
			p.Advance()
		}
	}
	for range 200_000 {
		one()
	}
	const batch = 10_000
	allocs := testing.AllocsPerRun(10, func() {
		for range batch {
			one()
		}
	})
	if perRecord := allocs / batch; perRecord > 0.001 {
		t.Errorf("%g allocations a record", perRecord)
	}
	if p.Status().Records < 4000 {
		t.Errorf("only %d held", p.Status().Records)
	}
}
