package clocks

import (
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
)

// TestLeap: what is late because of a leap is what would have been on time without it; that is
// known exactly by running the law twice, with the records that are ahead and without.
func TestLeap(t *testing.T) {
	const bound = 10 * time.Second
	start := watermark.Time(1_700_000_000 * time.Second)
	type rec struct {
		at    time.Duration
		ahead bool
	}
	every := func(n int, ahead func(i int) time.Duration, delay func(i int) time.Duration) (all []rec) {
		for i := range n {
			at := time.Duration(i) * time.Second / 4
			all = append(all, rec{at - delay(i), false})
			if by := ahead(i); by > 0 {
				all = append(all, rec{at + by, true})
			}
		}
		return all
	}
	delays := func(i int) time.Duration { return time.Duration(i*7%60) * 100 * time.Millisecond }
	silence := every(40, func(int) time.Duration { return 0 }, delays)
	for i := range silence[20:] {
		silence[20+i].at += time.Hour
	}
	for _, c := range []struct {
		name    string
		records []rec
		leaps   bool
	}{
		{"nothing", every(400, func(int) time.Duration { return 0 }, delays), false},
		{"one record", every(400, func(i int) time.Duration {
			if i == 100 {
				return 30 * time.Second
			}
			return 0
		}, delays), true},
		{"a device that is ahead", every(400, func(i int) time.Duration {
			if i > 100 && i%10 == 0 {
				return 30 * time.Second
			}
			return 0
		}, delays), true},
		{"after a silence", silence, false},
		{"all in steps, and a late one", append(every(400, func(int) time.Duration { return 0 }, func(i int) time.Duration { return time.Duration(i%20) * time.Second / 4 }), rec{50 * time.Second, false}), false},
		{"no harm is done", every(400, func(i int) time.Duration {
			if i == 100 {
				return 3 * time.Second
			}
			return 0
		}, delays), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var leap Leap
			newest, others := watermark.None, watermark.None
			got, want, over := int64(0), int64(0), 0
			for i, r := range c.records {
				at := start.Add(r.at)
				w := newest.Add(-bound - 1)
				if newest == watermark.None {
					w = watermark.None
				}
				late := newest != watermark.None && at <= w
				if late && (others == watermark.None || at > others.Add(-bound-1)) && !r.ahead {
					want++
				}
				switch {
				case leap.Open():
					before := leap.Late
					if leap.Add(int64(i), at, late, bound) {
						over++
					}
					got += leap.Late - before
				case !late && Leaps(newest, at, bound):
					leap.Begin(int64(i), at, newest, w)
				}
				newest = max(newest, at)
				if !r.ahead {
					others = max(others, at)
				}
			}
			if (want > 0) != c.leaps {
				t.Fatalf("the case is wrong: %d are late for it", want)
			}
			// What moves the crowd on is a record of the crowd, so a few are counted differently.
			if d := got - want; d > want/20 || -d > want/20 {
				t.Errorf("%d are late because of it, want %d", got, want)
			}
		})
	}
	if n := testing.AllocsPerRun(10, func() {
		var l Leap
		l.Begin(1, 10, 5, 3)
		l.Add(2, 5, true, bound)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
