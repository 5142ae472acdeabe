package watermark

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

const skew = 400 * time.Millisecond

func TestGuardStep(t *testing.T) {
	const ms = Time(time.Millisecond)
	g := Guard{Skew: skew}
	for i, r := range []struct {
		t, wall Time
		future  bool
		limit   Time // in force afterwards
	}{
		{1400*ms + 1, 1000 * ms, true, None},     // beyond wall + skew: no step
		{1400 * ms, 1000 * ms, false, 1501 * ms}, // at it: wall + skew + skew/4, up to the next ms
		{1501 * ms, 0, false, 1501 * ms},         // at the limit, whatever the clock says
		{1501*ms + 1, 1101 * ms, true, 1501 * ms},
		{1501*ms + 1, 1101*ms + 1, false, 1602 * ms},
		{-5, 0, false, 1602 * ms},
	} {
		if got := g.Future(int64(i), r.t, r.wall); got != r.future || g.Limit() != r.limit {
			t.Errorf("record %d: %v, limit %d; want %v, %d", i, got, g.Limit(), r.future, r.limit)
		}
	}
	off := Guard{}
	if off.Future(0, Max, 0) || len(off.Steps()) != 0 {
		t.Error("a guard that is off judges")
	}
}

// TestGuardIsRemembered drives a guard through random records, restarts,
// switches and prunings, and asks for every verdict again.
func TestGuardIsRemembered(t *testing.T) {
	for seed := range uint64(4000) {
		rng := rand.New(rand.NewPCG(seed, 0))
		type verdict struct {
			offset int64
			t      Time
			future bool
		}
		var given []verdict
		on := skew
		g := Guard{Skew: on}
		g.Restore(nil)
		var offset int64
		var kept int64 // the offset up to which verdicts may be forgotten
		wall := Time(rng.IntN(1e12))
		var steps []Time // the wall clock at each
		for range rng.IntN(300) {
			switch rng.IntN(12) {
			case 0: // restart, perhaps with another skew
				if rng.IntN(2) == 0 {
					on = []time.Duration{0, skew, skew / 2}[rng.IntN(3)]
				}
				saved := slices.Clone(g.Steps())
				g = Guard{Skew: on}
				g.Restore(saved)
				for _, v := range given {
					if v.offset >= kept && g.Recall(v.offset, v.t) != v.future {
						t.Fatalf("seed %d: record %d is recalled otherwise", seed, v.offset)
					}
				}
				steps = nil
			case 1:
				kept += rng.Int64N(offset - kept + 1)
				g.Forget(kept)
			case 2:
				wall = wall.Add(time.Duration(rng.Int64N(int64(skew))))
			default:
				at := wall.Add(time.Duration(rng.Int64N(4*int64(skew))) - 2*skew)
				n, limit := len(g.Steps()), g.Limit()
				future := g.Future(offset, at, wall)
				given = append(given, verdict{offset, at, future})
				if on > 0 && future && at <= wall.Add(on) && n < MaxSteps {
					t.Fatalf("seed %d: record %d, no later than the skew allows, is future", seed, offset)
				}
				if on > 0 && !future && at > wall.Add(2*skew) {
					t.Fatalf("seed %d: record %d, beyond any limit, is believed", seed, offset)
				}
				if g.Limit() > limit {
					if k := len(steps); k > 0 && wall.Sub(on/4) < steps[k-1] {
						t.Fatalf("seed %d: a step at %d and one at %d", seed, steps[k-1], wall)
					}
					steps = append(steps, wall)
				}
				offset += 1 + rng.Int64N(2)
			}
			if len(g.Steps()) > MaxSteps {
				t.Fatalf("seed %d: %d steps", seed, len(g.Steps()))
			}
		}
		g.Forget(kept)
		for _, v := range given {
			if v.offset >= kept && g.WasFuture(v.offset, v.t) != v.future {
				t.Fatalf("seed %d: record %d t=%d was called future: %v, and now: %v\nsteps %v", seed, v.offset, v.t, v.future, !v.future, g.Steps())
			}
		}
	}
}

// TestGuardHasRoom: a stream with nothing wrong in it takes as many steps as it
// likes, however long the records are held.
func TestGuardHasRoom(t *testing.T) {
	g := Guard{Skew: skew}
	g.Restore(nil)
	for i := range int64(10 * MaxSteps) {
		if wall := Time(0).Add(2 * skew * time.Duration(i)); g.Future(i, wall, wall) {
			t.Fatalf("record %d, at the wall clock, is future; %d steps", i, len(g.Steps()))
		}
	}
}

// TestGuardFull: steps with refused records in between cannot be one. Without
// room for another the limit stays, and judges.
func TestGuardFull(t *testing.T) {
	g := Guard{Skew: skew}
	wall := Time(0)
	for i := range int64(MaxSteps) {
		if g.Future(2*i, wall, wall) || !g.Future(2*i+1, wall.Add(2*skew), wall) {
			t.Fatalf("record %d or %d is misjudged", 2*i, 2*i+1)
		}
		wall = wall.Add(3 * skew)
	}
	limit := g.Limit()
	if !g.Future(100, wall, wall) || g.Future(101, limit, wall) || len(g.Steps()) != MaxSteps {
		t.Errorf("a full guard took a step: %d", len(g.Steps()))
	}
	g.Forget(2)
	if g.Future(102, wall, wall) || len(g.Steps()) != MaxSteps {
		t.Errorf("with room again, no step was taken: %d", len(g.Steps()))
	}
}

// TestGuardFullAndTheClockBack: what was refused for want of room stays refused
// when a wall clock that was put back makes a limit possible again.
func TestGuardFullAndTheClockBack(t *testing.T) {
	g := Guard{Skew: skew}
	wall := Time(0)
	for i := range int64(MaxSteps) {
		wall = wall.Add(3 * skew)
		g.Future(2*i, wall, wall)
		g.Future(2*i+1, wall.Add(2*skew), wall)
	}
	first, second := wall.Add(skew*3/2), wall.Add(skew*14/10)
	if !g.Future(100, first, wall.Add(3*skew)) {
		t.Fatalf("a full guard took a step: %d", len(g.Steps()))
	}
	future := g.Future(101, second, wall.Add(skew*4/10))
	if !g.WasFuture(100, first) || g.WasFuture(101, second) != future {
		t.Error("a verdict is forgotten")
	}
}

func TestForget(t *testing.T) {
	for _, c := range []struct {
		offset int64
		first  int64 // offset of the oldest step left
	}{{0, 10}, {10, 10}, {19, 10}, {20, 20}, {21, 20}, {30, 30}, {99, 30}} {
		g := Guard{Skew: skew}
		g.Restore([]Step{{10, 1}, {20, 2}, {30, 3}})
		g.Forget(c.offset)
		if got := g.Steps()[0].Offset; got != c.first {
			t.Errorf("Forget(%d) leaves %v", c.offset, g.Steps())
		}
	}
	var none Guard
	none.Forget(5)
	none.Rewind(5)
	if none.WasFuture(0, Max) || len(none.Steps()) != 0 {
		t.Error("a guard that was never on remembers")
	}
}

func TestRewind(t *testing.T) {
	g := Guard{Skew: skew}
	g.Restore([]Step{{10, 100}, {20, 200}, {30, 300}})
	g.Rewind(15)
	for _, c := range []struct {
		offset int64
		t      Time
		future bool
	}{{14, 100, false}, {14, 101, true}, {15, 300, false}, {15, 301, true}, {20, 250, false}} {
		if got := g.WasFuture(c.offset, c.t); got != c.future {
			t.Errorf("WasFuture(%d, %d) = %v", c.offset, c.t, got)
		}
	}
}
