package clocks

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
)

const now = watermark.Time(1_700_000_000_000_000_000)

// reading is of a record whose event, writing and reading were so long ago.
func reading(event, written, read time.Duration) Reading {
	return Reading{Event: now.Sub(event), Timestamp: now.Sub(written), Read: now.Sub(read)}
}

// What the differences mean: one row for each thing that an operator has to
// tell from the others.
func TestFindings(t *testing.T) {
	const slack = 5 * time.Second
	within := func(rng *rand.Rand, most time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(most))) }
	for _, c := range []struct {
		why  string
		made func(rng *rand.Rand) Reading // times before now
		mode string                       // of the topic, and how it is read
		want Finding
	}{
		{"all is well", func(rng *rand.Rand) Reading { return reading(within(rng, time.Second), 0, 0) }, "fresh", Right},
		{"all is well", func(rng *rand.Rand) Reading { return reading(within(rng, time.Second), 0, 0) }, "appended fresh", Right},
		{"the producer's clock is ahead, and gives the timestamp too", func(*rand.Rand) Reading { return reading(-time.Hour, -time.Hour, 0) }, "fresh", Ahead},
		{"the producer's clock is ahead", func(*rand.Rand) Reading { return reading(-time.Hour, -time.Hour, 0) }, "backlog", Ahead},
		{"the producer's clock is ahead", func(*rand.Rand) Reading { return reading(time.Hour, 2*time.Hour, 0) }, "appended", Ahead},
		{"the producer's clock is behind", func(rng *rand.Rand) Reading { return reading(time.Hour+within(rng, time.Second), time.Hour, 0) }, "fresh", Behind},
		{"the producer's clock is behind", func(rng *rand.Rand) Reading { return reading(2*time.Hour+within(rng, time.Second), time.Hour, 0) }, "appended", Behind},
		{"batched for up to an hour", func(rng *rand.Rand) Reading { return reading(within(rng, time.Hour), 0, 0) }, "fresh", WrittenLate},
		{"batched for up to an hour", func(rng *rand.Rand) Reading { return reading(time.Hour+within(rng, time.Hour), time.Hour, 0) }, "backlog", WrittenLate},
		{"batched for up to an hour", func(rng *rand.Rand) Reading { return reading(within(rng, time.Hour), 0, 0) }, "appended fresh", WrittenLate},
		{"batched, and sent with the time of the event as timestamp", func(rng *rand.Rand) Reading {
			d := within(rng, time.Hour)
			return reading(d, d, 0)
		}, "fresh", WrittenLate},
		{"a backlog", func(rng *rand.Rand) Reading { d := within(rng, time.Hour); return reading(d, d, 0) }, "backlog", ReadLate},
		{"a backlog", func(rng *rand.Rand) Reading { d := within(rng, time.Hour); return reading(d, d, 0) }, "appended", ReadLate},
		{"this machine is ahead", func(*rand.Rand) Reading { return reading(0, 0, -time.Hour) }, "appended fresh", OwnAhead},
		{"this machine is behind", func(*rand.Rand) Reading { return reading(0, 0, time.Hour) }, "appended", OwnBehind},
		{"records without a timestamp", func(*rand.Rand) Reading {
			return Reading{Event: now.Sub(-time.Hour), Timestamp: watermark.None, Read: now}
		}, "fresh", Ahead},
	} {
		var g Gathering
		rng := rand.New(rand.NewPCG(1, 1))
		for range 500 {
			r := c.made(rng)
			r.Fresh = c.mode == "fresh" || c.mode == "appended fresh"
			r.Appended = c.mode == "appended" || c.mode == "appended fresh"
			g.Add(r)
		}
		if got := g.Evidence(0).Finding(slack); got != c.want {
			t.Errorf("%s (%s): found %q, want %q: %+v", c.why, c.mode, got, c.want, g.Evidence(0))
		}
	}
	if got := (Evidence{}).Finding(slack); got != Right {
		t.Errorf("without a record: %q", got)
	}
}

// The evidence is about the last whole minute; until there is one, about what
// there is; and a partition that has gone quiet has none.
func TestWindows(t *testing.T) {
	var g Gathering
	var start watermark.Instant = 1000
	at := func(d time.Duration) watermark.Instant { return start + watermark.Instant(d) }
	g.Begin(start)
	g.Add(reading(time.Second, 0, 0))
	if e := g.Evidence(at(time.Second)); e.Records != 1 || e.Written.Mean != time.Second || e.Age.Mean != time.Second {
		t.Errorf("at once: %+v", e)
	}
	g.Add(reading(3*time.Second, 0, 0))
	if e := g.Evidence(at(Window)); e.Records != 2 || e.Written.Mean != 2*time.Second {
		t.Errorf("after a window: %+v", e)
	}
	g.Add(reading(9*time.Second, 0, 0))
	if e := g.Evidence(at(Window + time.Second)); e.Records != 2 {
		t.Errorf("in the next: %+v", e)
	}
	if e := g.Evidence(at(2 * Window)); e.Records != 1 || e.Written.Mean != 9*time.Second {
		t.Errorf("after the next: %+v", e)
	}
	if e := g.Evidence(at(3 * Window)); e != (Evidence{}) {
		t.Errorf("after a quiet one: %+v", e)
	}
	var trips Trips
	trips.Add(time.Second)
	if s := trips.Spread(1); s.Count != 1 {
		t.Errorf("%+v", s)
	}
	if s := trips.Spread(watermark.Instant(Window)); s.Count != 1 {
		t.Errorf("%+v", s)
	}
	if s := trips.Spread(watermark.Instant(2 * Window)); s.Count != 0 {
		t.Errorf("%+v", s)
	}
}

// Of many records some are looked at, in no rhythm; of few, one now and then.
func TestSample(t *testing.T) {
	var g Gathering
	const all = 1_000_000
	looked, turns := 0, [4]int{}
	for i := range all {
		if g.Due() {
			looked++
			turns[i%len(turns)]++
		}
	}
	if looked < all/oneIn*9/10 || looked > all/oneIn*11/10 {
		t.Errorf("%d of %d were looked at", looked, all)
	}
	for turn, n := range turns {
		if n < looked/len(turns)*8/10 {
			t.Errorf("of %d that take turns, number %d was looked at %d times of %d", len(turns), turn, n, looked)
		}
	}
	g, looked = Gathering{}, 0
	turns = [4]int{}
	for i := range 1000 { // a batch every 50 ms
		g.Poll(watermark.Instant(i)*watermark.Instant(50*time.Millisecond), len(turns))
		for turn := range turns {
			if g.Due() {
				turns[turn]++
				looked++
			}
		}
	}
	if looked < 450 || looked > 650 || slices.Min(turns[:]) < looked/len(turns)*7/10 {
		t.Errorf("%d of 4000 in 50 s were looked at: %v", looked, turns)
	}
}

func TestNoGarbage(t *testing.T) {
	var g Gathering
	p := NewProducers()
	device := []byte("device-7")
	r := reading(time.Second, 0, 0)
	r.Fresh = true
	use := func() {
		for range 1000 {
			if g.Due() {
				r.Read++
				g.Add(r)
				p.Add("orders", device, r, time.Second)
			}
		}
	}
	use()
	if n := testing.AllocsPerRun(100, use); n > 0 {
		t.Errorf("%v allocations in 1000 records", n)
	}
}

func BenchmarkRecord(b *testing.B) {
	var g Gathering
	p := NewProducers()
	device := []byte("device-7")
	r := reading(time.Second, 0, 0)
	r.Fresh = true
	for range b.N {
		if g.Due() {
			g.Add(r)
			p.Add("orders", device, r, time.Second)
		}
	}
}

func BenchmarkSample(b *testing.B) {
	var g Gathering
	r := reading(time.Second, 0, 0)
	for range b.N {
		g.Add(r)
	}
}
