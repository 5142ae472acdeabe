package watermark

import (
	"testing"
	"testing/quick"
	"time"
)

func TestClock(t *testing.T) {
	c := NewClock()
	if c.Late(None + 1) {
		t.Error("late before the first record")
	}
	for _, step := range []struct {
		t      Time
		bound  time.Duration
		newest bool
		w      Time
	}{
		{100, 10, true, 89},
		{95, 10, false, 89},
		{100, 10, false, 89},
		{101, 10, true, 90},
		{101, 0, false, 100}, // a smaller bound from now on
		{200, 150, true, 100},
		{200, 0, false, 199},
	} {
		if c.Late(step.t) {
			t.Fatalf("%d is late at W=%d", step.t, c.W)
		}
		newest := c.See(step.t)
		c.Behind(c.Max, step.bound)
		if newest != step.newest || c.W != step.w || c.Natural != step.w {
			t.Errorf("after %d: newest %v, W=%d, natural %d; want %v %d", step.t, newest, c.W, c.Natural, step.newest, step.w)
		}
		if !c.Late(c.W) || c.Late(c.W+1) {
			t.Errorf("W=%d is not the last late time", c.W)
		}
	}
}

func TestForcedAndDrained(t *testing.T) {
	c := Clock{W: 10, Natural: 10, Max: 50}
	c.ForceTo(30)
	c.ForceTo(20)
	if want := (Clock{30, 10, 50}); c != want {
		t.Fatalf("forced: %+v, want %+v", c, want)
	}
	c.Drain(5, c.Max)
	if want := (Clock{35, 15, 50}); c != want {
		t.Fatalf("drained: %+v, want %+v", c, want)
	}
	c.Drain(30, c.Max)
	if want := (Clock{50, 45, 50}); c != want {
		t.Fatalf("drained to the newest: %+v, want %+v", c, want)
	}
	c.ForceTo(60)
	c.Drain(100, c.Max)
	if want := (Clock{60, 50, 50}); c != want {
		t.Fatalf("nothing to wait for: %+v, want %+v", c, want)
	}
	c.AdvanceTo(55)
	if want := (Clock{60, 55, 50}); c != want {
		t.Fatalf("advanced behind W: %+v, want %+v", c, want)
	}
}

// TestClockNeverGoesBack, whatever is done to it.
func TestClockNeverGoesBack(t *testing.T) {
	law := func(moves []struct {
		What uint8
		T    Time
		D    time.Duration
	},
	) bool {
		c := NewClock()
		for _, m := range moves {
			d := max(m.D, -(m.D + 1))
			was := c
			switch m.What % 4 {
			case 0:
				if !c.Late(m.T) {
					c.See(m.T)
					c.Behind(c.Max, d)
				}
			case 1:
				c.AdvanceTo(m.T)
			case 2:
				c.ForceTo(m.T)
			case 3:
				c.Drain(d, c.Max)
			}
			if c.W < was.W || c.Natural < was.Natural || c.Max < was.Max || c.Natural > c.W {
				return false
			}
		}
		return true
	}
	if err := quick.Check(law, &quick.Config{MaxCount: 2000}); err != nil {
		t.Error(err)
	}
}
