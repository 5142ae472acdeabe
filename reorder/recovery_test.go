package reorder

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
)

// crash loses everything that is not durable, and recovers. Nothing may be
// found missing.
func (w *world) crash() {
	w.tracef("crash")
	if loss := w.assign(false); loss != nil {
		w.failf("a loss where nothing is lost: %v", loss)
	}
}

// move lets one thing happen, and maybe a fault after it. With clock, the
// broker answers and memory runs short as well.
func (w *world) move(s source, clock bool) {
	switch {
	case w.due:
		w.next()
	case clock && s.maybe(4):
		w.now += watermark.Instant(oneOf(s, 0, time.Second, 2*time.Second))
		w.begins(event{now: w.now, sent: w.now, answer: quiet, looked: true})
	case clock && s.maybe(10):
		w.begins(event{now: w.now, force: true})
	case w.more():
		if r := w.log[w.pick(w.p.Position())]; s.maybe(4) {
			w.p.Skip(r.Offset, r.LeaderEpoch)
		}
		w.read()
	}
	switch s(40) {
	case 0:
		w.commit()
		w.p.Advance()
	case 1: // the crash comes before the committer hears of it
		w.commit()
		w.crash()
	case 2:
		w.crash()
	case 3: // again while recovering
		w.begin()
		if end, _ := w.p.Replaying(); end > 0 {
			for i := w.pick(w.low); i < len(w.log) && w.log[i].Offset < end && !s.maybe(4); i++ {
				w.againOne(w.log[i])
			}
		}
		w.crash()
	case 4: // looking changes nothing
		w.p.Snapshot()
		w.p.Status()
		w.p.Changed()
	}
}

func (w *world) run(s source, clock bool) {
	for w.due || w.more() {
		w.move(s, clock)
	}
}

// TestCrashEverywhere tries every pair of moments for a commit and a crash:
// before and after each step and each record of a release.
func TestCrashEverywhere(t *testing.T) {
	hunt(t, 60, func(s source, trace *strings.Builder) {
		o := s.options()
		log := s.log(o, 9)
		want := expected(o, log, 0)
		eng := NewEngine(o, 0)
		history := func(commit, crash int) (moments int) {
			w := newWorld(eng, log)
			w.trace = trace
			if trace != nil {
				trace.Reset()
			}
			w.tracef("%+v", o)
			w.crash()
			for ; w.due || w.more(); moments++ {
				if moments == commit {
					w.commit()
				}
				if moments == crash {
					w.crash()
				} else if w.due {
					w.next()
				} else {
					w.read()
				}
			}
			w.commit()
			if !reflect.DeepEqual(w.out, want) {
				w.failf("commit at %d, crash at %d: put out\n%swithout a crash:\n%s", commit, crash, list(w.out), list(want))
			}
			w.eng.Revoke(w.p)
			return moments
		}
		n := history(-1, -1)
		for crash := range n {
			for commit := range crash + 1 {
				history(commit, crash)
			}
		}
		if eng.Bytes() != 0 {
			(&world{}).failf("%d bytes left in an empty engine", eng.Bytes())
		}
	})
}

// TestLossIsDetected damages the log between a commit and the restart. It has
// to be reported; and if it is accepted, the partition goes on, and the same
// loss is not reported again.
func TestLossIsDetected(t *testing.T) {
	tried := map[string]int{}
	hunt(t, 2500, func(s source, trace *strings.Builder) {
		o := s.options()
		w := newWorld(NewEngine(o, 0), s.log(o, 30))
		w.trace = trace
		w.tracef("%+v", o)
		w.crash()
		for (w.due || w.more()) && !s.maybe(20) {
			w.move(s, true)
		}
		w.commit()
		damage, parted := w.damage(s)
		if damage == "" {
			return
		}
		tried[damage]++
		w.tracef("damage: %s, end=%d", damage, w.end)
		loss := w.assign(false)
		if loss == nil {
			w.failf("%s went unnoticed", damage)
		}
		if loss.NewLeader != (damage == "newer leader") || loss.Shortage != (damage == "shortage") || loss.Error() == "" {
			w.failf("%s is called %+v", damage, loss)
		}
		if _, replaying := w.p.Replaying(); !replaying {
			w.failf("went on although the loss was not accepted")
		}
		if again := w.p.EndReplay(w.end, true); again == nil || *again != *loss {
			w.failf("accepted %+v after %+v", again, loss)
		}
		if damage == "newer leader" && w.p.Position() != parted {
			w.failf("the logs part at %d, next to read is %d", parted, w.p.Position())
		}
		w.p.Rewind(w.end) // which may lie below L
		w.tracef("accepted, next to read is %d", w.p.Position())
		w.goOn(s)
	})
	for _, kind := range []string{"deleted", "altered", "added", "swapped", "newer leader", "shortage"} {
		if from, to := histories(1000); to-from > 100 && tried[kind] == 0 {
			t.Errorf("%q was never tried", kind)
		}
	}
}

// damage changes the log in [L, H) in a way that has to be noticed; "" if
// there is nothing to damage. From parted on the log is a newer leader's.
func (w *world) damage(s source) (kind string, parted int64) {
	c := w.committed()
	if c.Low == c.Next {
		return "", 0
	}
	out := map[int64]bool{}
	for _, o := range w.out {
		out[o.Offset] = true
	}
	var owed, settled []int
	for i := w.pick(c.Low); i < w.pick(c.Next); i++ {
		if spans(c.Settled).has(w.log[i].Offset) {
			continue // what stands there does not matter
		} else if out[w.log[i].Offset] {
			settled = append(settled, i)
		} else {
			owed = append(owed, i)
		}
	}
	w.log = append([]logged(nil), w.log...)
	switch s(6) {
	case 5: // as many as before, but not the same
		if len(settled) == 0 || c.W == watermark.Max || c.Steps != nil {
			return "", 0
		}
		w.log[oneOf(s, owed...)].Invalid = true
		r := &w.log[oneOf(s, settled...)]
		r.Time, r.Invalid = c.W.Next(), false
		return "swapped", 0
	case 0:
		i := oneOf(s, owed...)
		w.log = append(w.log[:i], w.log[i+1:]...)
		return "deleted", 0
	case 1:
		w.log[oneOf(s, owed...)].Invalid = true
		return "altered", 0
	case 2:
		if len(settled) == 0 || c.W == watermark.Max || c.Steps != nil {
			return "", 0
		}
		r := &w.log[oneOf(s, settled...)]
		r.Time, r.Invalid = c.W.Next(), false
		return "added", 0
	case 3:
		from := w.pick(c.Low) + s(w.pick(c.Next)-w.pick(c.Low))
		newer := int32(1000)
		for i := from; i < len(w.log); i++ {
			w.log[i].LeaderEpoch += newer
			newer += int32(s(2))
			if c.W != watermark.None && s.maybe(3) {
				w.log[i].Time = c.W
			}
		}
		return "newer leader", w.log[from].Offset
	default:
		w.end = int64(s(int(c.Next))) // below L even
		w.log = w.log[:w.pick(w.end)]
		return "shortage", 0
	}
}

// goOn continues after an accepted loss, with a log that a new leader writes
// on. Everything held, and every record from the position on, has to come out
// exactly once, ordered or late.
func (w *world) goOn(s source) {
	from := w.p.Position()
	held := w.p.Status().Records
	rest := w.pick(from)
	var leader int32 = 1000
	if len(w.log) > 0 {
		leader += w.log[len(w.log)-1].LeaderEpoch
	}
	last := watermark.Time(0)
	if rest > 0 {
		last = w.log[rest-1].Time
	}
	fresh := s.log(w.opts, 10)
	for _, r := range fresh {
		r.LeaderEpoch += leader
		r.Offset += w.end
		if s.maybe(2) {
			r.Time, r.wall = last, max(last, r.wall)
		}
		w.log = append(w.log, r)
	}
	w.end += int64(len(fresh)) * 3
	w.due, w.pending, w.bodies = true, nil, nil
	w.out, w.last, w.put, w.base = nil, nil, map[int64]bool{}, rest-held
	w.accepted()
	w.commit()
	w.crash()
	w.run(s, true)
	w.finish()
	for _, r := range w.log[w.pick(from):] {
		if !w.put[r.Offset] {
			w.failf("#%d, read after the loss, never came out", r.Offset)
		}
	}
	w.all()
}

// TestRewind cuts the log below the position of a running partition. What it
// held from there on is as lost as it would be after a restart.
func TestRewind(t *testing.T) {
	hunt(t, 2000, func(s source, trace *strings.Builder) {
		o := s.options()
		w := newWorld(NewEngine(o, 0), s.log(o, 30))
		w.trace = trace
		w.tracef("%+v", o)
		w.crash()
		for (w.due || w.more()) && !s.maybe(20) {
			w.move(s, true)
		}
		if _, replaying := w.p.Replaying(); replaying {
			return
		}
		w.end = int64(s(int(w.p.Position()) + 1))
		w.log = w.log[:w.pick(w.end):w.pick(w.end)]
		w.p.Rewind(w.end + 100) // says nothing
		w.p.Rewind(w.end)
		w.tracef("log ends at %d, %d held", w.end, w.p.Status().Records)
		if w.p.Position() != w.end || w.eng.Bytes() != w.p.Status().Bytes {
			w.failf("next to read is %d, the engine counts %d bytes", w.p.Position(), w.eng.Bytes())
		}
		w.goOn(s)
	})
}

// TestShortageKeepsVerdicts: offsets that are read a second time, after the log
// lost its end, are judged by the limit in force, and a third time too.
func TestShortageKeepsVerdicts(t *testing.T) {
	at := func(offset int64, ms watermark.Time, wall watermark.Time) logged {
		return logged{Record: Record{Offset: offset, Time: ms * 1e6}, wall: wall * 1e6, marker: watermark.None}
	}
	var trace strings.Builder
	err := try(func() {
		o := Options{Bound: time.Second, MaxFuture: 40 * time.Millisecond}
		w := newWorld(NewEngine(o, 0), []logged{at(0, 0, 0), at(1, 90, 0), at(2, 60, 60)})
		w.trace = &trace
		w.crash()
		w.run(seeded(0), false)
		w.commit()
		w.log, w.end = w.log[:1:1], 1
		if w.assign(true) == nil {
			w.failf("the shortage went unnoticed")
		}
		w.log, w.end = append(w.log, at(1, 80, 60)), 2
		w.run(seeded(0), false)
		w.commit()
		w.crash()
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, trace.String())
	}
}

// TestChanged: there is something to commit after whatever changes L, the
// metadata or the outputs, and not otherwise.
func TestChanged(t *testing.T) {
	const s = watermark.Instant(time.Second)
	e := NewEngine(Options{Bound: time.Second / 2, IdleTimeout: time.Second}, 0)
	p := e.Assign(Fresh(0, 0, 0), 0)
	offset := int64(0)
	step := func(at watermark.Time) func() {
		return func() { p.Step(Record{Offset: offset, Time: at, LeaderEpoch: 3}, 0); offset++ }
	}
	var snapshot Snapshot
	var heard watermark.Stretch
	observe := func(sent watermark.Instant) {
		heard.Answer(sent, 4, 4)
		p.Observe(heard)
	}
	for i, c := range []struct {
		do   func()
		want bool
	}{
		{func() {}, false},
		{step(5e9), true},
		{func() { p.Step(Record{Offset: 1, Invalid: true}, 0); offset++ }, true},
		{step(1), true}, // late
		{func() { p.Skip(3, 3) }, false},
		{func() { p.Skip(4, 7); offset = 4 }, true},
		{func() { observe(1 * s) }, false},
		{func() { observe(2 * s) }, false},
		{func() { observe(3 * s) }, true},
		{func() { p.Next(new(Release)) }, true},
		{func() { p.Next(new(Release)) }, false},
		{func() { observe(5 * s) }, false}, // nothing is held
		{func() { snapshot = p.Snapshot() }, false},
		{step(9e9), true},
		{func() { e.Relieve() }, true},
		{func() { snapshot = p.Snapshot() }, false},
		{func() { e.Revoke(p); p = e.Assign(snapshot, 0) }, false},
		{func() { p.Step(Record{Offset: 4, Time: 9e9, LeaderEpoch: 3}, 0) }, false},
		{func() { p.EndReplay(5, false) }, false},
		{func() { p.Next(new(Release)) }, true},
		{func() { e.Revoke(p); p = e.Assign(snapshot, 0) }, false},
		{func() { p.EndReplay(4, true) }, true},
		{func() { p.Rewind(4) }, false},
		{func() { p.Rewind(2) }, true},
	} {
		c.do()
		if i == 5 {
			if got := p.Snapshot(); got.Low != 0 || got.LowEpoch != 3 || got.Next != 4 || got.NextEpoch != 7 {
				t.Errorf("after Skip: %+v", got)
			}
		}
		if i == 9 {
			if got := p.Snapshot(); got.Low != 4 || got.LowEpoch != 7 {
				t.Errorf("with nothing owed: %+v", got)
			}
		}
		if p.Changed() != c.want {
			t.Errorf("%d: changed is %v", i, p.Changed())
		}
		if _, replaying := p.Replaying(); replaying && e.Relieve() != nil {
			t.Errorf("%d: relieved while replaying", i)
		}
		p.Advance()
	}
}

// TestIdlenessBeginsAtAssignment: what the broker answered another instance, or
// this one before, proves nothing for a partition taken up since; nor does what
// it answers while the partition reads again.
func TestIdlenessBeginsAtAssignment(t *testing.T) {
	const s = watermark.Instant(time.Second)
	for _, again := range []bool{false, true} {
		e := NewEngine(Options{Bound: time.Hour, IdleTimeout: time.Second}, 0)
		// The engine's last look at the clock was long ago.
		p := e.Assign(Snapshot{Next: 1, W: 5, Natural: 5, Max: 1e12, Count: 1, Sum: OffsetHash(0)}, 10*s)
		var heard watermark.Stretch
		observe := func(sent watermark.Instant) {
			heard.Answer(sent, 1, 1)
			p.Observe(heard)
		}
		first := 10 * s
		if again {
			observe(10 * s)
			first = 11 * s
			e.Tick(first)
		}
		p.Step(Record{Time: 1e12}, 0)
		if loss := p.EndReplay(1, false); loss != nil {
			t.Fatal(loss)
		}
		observe(8 * s)
		observe(9*s + s/2)
		observe(first)
		observe(first + s)
		if p.Watermark() != 5 {
			t.Errorf("W moved to %d", p.Watermark())
		}
		if observe(first + s + 1); p.Watermark() != 6 {
			t.Errorf("W=%d, a nanosecond beyond the timeout", p.Watermark())
		}
	}
}
