package clocks

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

const slack = 5 * time.Second

// life feeds a producer's records, one a second, and returns what was told.
func (p *Producers) life(who string, from, to time.Duration, lead func() time.Duration) (told []Judgement) {
	for at := from; at < to; at += time.Second {
		read := now.Add(at)
		r := Reading{Event: read.Add(lead()), Timestamp: read, Read: read, Fresh: true}
		if j, ok := p.Add("orders", []byte(who), r, slack); ok {
			told = append(told, j)
		}
	}
	return told
}

func by(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

func TestProducerIsTold(t *testing.T) {
	p := NewProducers()
	const hour = time.Hour
	if told := p.life("right", 0, hour, by(-time.Second)); told != nil {
		t.Errorf("a clock that is right: %+v", told)
	}
	for _, c := range []struct {
		lead time.Duration
		want Finding
	}{{hour, Ahead}, {-hour, Behind}} {
		who := c.lead.String()
		told := p.life(who, 0, hour, by(c.lead))
		want := Judgement{Topic: "orders", Finding: c.want, Lead: c.lead, Name: who}
		if len(told) != 7 { // after half a minute, 1, 2, 4, 8, 16 and 32 more
			t.Errorf("off by %v, it is told %d times", c.lead, len(told))
		}
		for _, j := range told {
			if j != want {
				t.Errorf("off by %v: %+v", c.lead, j)
			}
		}
		if off, n := p.Off("orders", 10); len(off) != 1 || n != 1 || off[0] != want {
			t.Errorf("off are %+v of %d", off, n)
		}
		if off, n := p.Off("payments", 10); len(off) != 0 || n != 0 {
			t.Errorf("of another topic: %+v of %d", off, n)
		}
		if told := p.life(who, hour, 2*hour, by(0)); len(told) != 1 || told[0].Finding != Right {
			t.Errorf("right again: %+v", told)
		}
		if off, n := p.Off("", 10); len(off) != 0 || n != 0 {
			t.Errorf("right again, off are %+v of %d", off, n)
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	edge := func() time.Duration { return slack + time.Duration(rng.Int64N(int64(time.Second))) - time.Second/2 }
	if told := p.life("at the edge", 0, 10*hour, edge); len(told) > 20 || slices.ContainsFunc(told, func(j Judgement) bool { return j.Finding != Ahead }) {
		t.Errorf("at the edge it is told %+v", told)
	}
	batched := func() time.Duration { return -time.Duration(rng.Int64N(int64(hour))) }
	if told := p.life("batched", 0, hour, batched); told != nil {
		t.Errorf("a batch is no clock: %+v", told)
	}
	one := func() time.Duration {
		if rng.IntN(10) == 0 {
			return 24 * hour
		}
		return 0
	}
	if told := p.life("outliers", 0, hour, one); told != nil {
		t.Errorf("a tenth of outliers: %+v", told)
	}
}

// What can be held against no other clock is passed over.
func TestBacklogIsNoProof(t *testing.T) {
	for _, c := range []struct {
		appended, fresh bool
		told            bool
	}{{false, false, false}, {false, true, true}, {true, false, true}, {true, true, true}} {
		p := NewProducers()
		told := 0
		for i := range 200 {
			r := reading(2*time.Hour, time.Hour, -time.Duration(i)*time.Second)
			r.Appended, r.Fresh = c.appended, c.fresh
			if _, ok := p.Add("orders", []byte("x"), r, slack); ok {
				told++
			}
		}
		if told > 0 != c.told {
			t.Errorf("appended %v, fresh %v: told %d times", c.appended, c.fresh, told)
		}
	}
}

// Records that have piled up come all in a moment.
func TestBurstIsNoProof(t *testing.T) {
	p := NewProducers()
	for i := range 10 * judgedBy {
		r := reading(time.Hour, time.Hour, -time.Duration(i)*time.Millisecond)
		r.Fresh = true
		if j, ok := p.Add("orders", []byte("x"), r, slack); ok {
			t.Fatalf("after %d: %+v", i, j)
		}
	}
	if told := p.life("x", time.Second, time.Hour, by(0)); told != nil {
		t.Errorf("and then: %+v", told)
	}
}

func TestEverybodyIsOff(t *testing.T) {
	p := NewProducers()
	for i, want := range []bool{false, true, true} {
		told := p.life(fmt.Sprint(i), 0, time.Hour, by(time.Hour))
		if len(told) == 0 || told[0].Everybody != want {
			t.Errorf("number %d: %+v", i, told)
		}
	}
	p.life("right", 0, time.Hour, by(0))
	if told := p.life("4", 0, time.Hour, by(time.Hour)); len(told) == 0 || told[0].Everybody {
		t.Errorf("one is right: %+v", told)
	}
}

// Ever new names cost no more than so much, and the oldest are forgotten, in
// the counts as well.
func TestProducersAreBounded(t *testing.T) {
	p := NewProducers()
	for i := range 3 * MostProducers {
		p.life(fmt.Sprint(i), 0, 3*judgedBy*time.Second, by(time.Hour))
	}
	if p.known.Len() != MostProducers || len(p.off) != MostProducers || p.right != 0 {
		t.Errorf("%d remembered, %d off, %d right", p.known.Len(), len(p.off), p.right)
	}
}

func TestNames(t *testing.T) {
	long := strings.Repeat("x", 200)
	for value, want := range map[string]string{
		"": `""`, "a": "a", "a b": `"a b"`, "\x1b[31m\n\x00": `"\x1b[31m\n\x00"`, "é\xff": `"\u00e9\xff"`, long: long[:longestName] + "...",
	} {
		p := NewProducers()
		told := p.life(value, 0, time.Hour, by(time.Hour))
		if len(told) == 0 || told[0].Name != want {
			t.Errorf("%q: %+v, want %s", value, told, want)
		}
	}
	p := NewProducers()
	p.life("a", 0, time.Minute, by(0))
	p.life("a\x00", 0, time.Minute, by(0))
	p.life(long, 0, time.Minute, by(0))
	p.life(long+"y", 0, time.Minute, by(0))
	if p.known.Len() != 3 {
		t.Errorf("%d names", p.known.Len())
	}
}

// A sentence names a few, those that are off the most, and says how many there are.
func TestProducersInWords(t *testing.T) {
	p := NewProducers()
	words := func() string { return Names(p.Off("orders", 2)) }
	if got := words(); got != "" {
		t.Errorf("of none: %q", got)
	}
	p.life("d3", 0, 3*time.Minute, by(time.Hour))
	if got, want := words(), "the clock of producer d3 is 1h0m0s ahead"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for i := range 5 {
		p.life(fmt.Sprint("e", i), 0, 3*time.Minute, by(-time.Minute))
	}
	if got, want := words(), "the clocks of producers are off: d3 is 1h0m0s ahead, e0 is 1m0s behind, 4 more"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
