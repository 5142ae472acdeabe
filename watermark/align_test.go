package watermark

import (
	"math/big"
	"math/rand/v2"
	"testing"
	"time"
)

// clockOf is what alignment knows of a partition.
type clockOf struct {
	w    Time
	idle bool
}

func waiting(drift time.Duration, all ...clockOf) []bool {
	a := NewAlignment(drift)
	for _, c := range all {
		a.Count(c.w, c.idle)
	}
	var wait []bool
	for _, c := range all {
		wait = append(wait, a.Ahead(c.w, c.idle))
	}
	return wait
}

func TestAlignment(t *testing.T) {
	for _, c := range []struct {
		why   string
		drift time.Duration
		all   []clockOf
		wait  []bool
	}{
		{"nobody", 10, nil, nil},
		{"one alone is the slowest", 0, []clockOf{{5, false}}, []bool{false}},
		{"at the drift it goes on, beyond it waits", 10, []clockOf{{0, false}, {10, false}, {11, false}}, []bool{false, false, true}},
		{"drift 0: only the slowest go on", 0, []clockOf{{7, false}, {7, false}, {8, false}}, []bool{false, false, true}},
		// FLINK-32496: with idleness, the idle one's watermark held back
		// or let through everything.
		{"an idle partition holds nobody up", 10, []clockOf{{0, true}, {100, false}, {105, false}}, []bool{false, false, false}},
		{"an idle partition does not wait", 10, []clockOf{{0, false}, {100, true}}, []bool{false, false}},
		{"all idle", 0, []clockOf{{0, true}, {100, true}}, []bool{false, false}},
		// FLINK-32414: a subtask without a split blocked the group for ever.
		{"one that never had a record holds nobody up", 10, []clockOf{{None, false}, {100, false}, {200, false}}, []bool{false, false, true}},
		{"nobody has had a record", 10, []clockOf{{None, false}, {None, false}}, []bool{false, false}},
		{"the far ends", 10, []clockOf{{None + 1, false}, {Max, false}}, []bool{false, true}},
		{"the drift saturates", time.Duration(Max), []clockOf{{1, false}, {Max, false}}, []bool{false, false}},
		{"a watermark at the end of time", 0, []clockOf{{Max, false}, {Max, false}}, []bool{false, false}},
	} {
		got := waiting(c.drift, c.all...)
		for i := range got {
			if got[i] != c.wait[i] {
				t.Errorf("%s: %d waits: %v", c.why, i, got[i])
			}
		}
	}
	none, one := NewAlignment(0), NewAlignment(0)
	none.Count(None, false)
	none.Count(3, true)
	one.Count(9, false)
	one.Count(4, false)
	if none.Slowest() != None || one.Slowest() != 4 {
		t.Errorf("slowest %d and %d", none.Slowest(), one.Slowest())
	}
}

// twinWaits is the law once more, pair by pair and without saturation.
func twinWaits(drift time.Duration, all []clockOf, i int) bool {
	counts := func(c clockOf) bool { return c.w != None && !c.idle }
	for _, other := range all {
		ahead := new(big.Int).Sub(big.NewInt(int64(all[i].w)), big.NewInt(int64(other.w)))
		if counts(all[i]) && counts(other) && ahead.Cmp(big.NewInt(int64(drift))) > 0 {
			return true
		}
	}
	return false
}

// TestAlignmentTwin: and whoever is ahead, somebody always goes on; and whoever
// may go on may do so as well when one more partition falls idle.
func TestAlignmentTwin(t *testing.T) {
	for seed := range uint64(20_000) {
		rng := rand.New(rand.NewPCG(seed, 3))
		drift := time.Duration(rng.Int64N(20))
		all := make([]clockOf, 1+rng.IntN(6))
		for i := range all {
			all[i] = clockOf{Time(rng.Int64N(40)), rng.IntN(4) == 0}
			switch rng.IntN(12) {
			case 0:
				all[i].w = None
			case 1:
				all[i].w = None + 1 + Time(rng.Int64N(5))
			case 2:
				all[i].w = Max - Time(rng.Int64N(25))
			}
		}
		if rng.IntN(20) == 0 {
			drift = time.Duration(Max) - time.Duration(rng.Int64N(5))
		}
		got := waiting(drift, all...)
		goesOn := false
		for i := range all {
			goesOn = goesOn || !got[i]
			if want := twinWaits(drift, all, i); got[i] != want {
				t.Fatalf("seed %d: %d waits %v, want %v: drift %v, %v", seed, i, got[i], want, drift, all)
			}
		}
		if !goesOn {
			t.Fatalf("seed %d: all wait: drift %v, %v", seed, drift, all)
		}
		idle := rng.IntN(len(all))
		all[idle].idle = true
		for i, after := range waiting(drift, all...) {
			if after && !got[i] {
				t.Fatalf("seed %d: %d waits because %d is idle: drift %v, %v", seed, i, idle, drift, all)
			}
		}
	}
}
