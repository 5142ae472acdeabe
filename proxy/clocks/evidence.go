package clocks

import (
	"math/rand/v2"
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
)

// Reading is what is known of the times of a record once it has been read.
type Reading struct {
	Event     watermark.Time
	Timestamp watermark.Time // the record's own; None if it has none
	Read      watermark.Time // the wall clock here, when it was read
	Appended  bool           // the timestamp is the broker's clock (LogAppendTime)
	Fresh     bool           // it was read as soon as it was in the log
}

// Evidence sums up the readings of a partition over a Window. A difference
// above 0 says that the second clock was later.
type Evidence struct {
	Records  int64  // looked at: some of those that were read
	Appended bool   // all timestamps were the broker's clock (LogAppendTime)
	Fresh    bool   // all were read as soon as they were in the log
	Written  Spread // from event time to the record's timestamp
	Age      Spread // from event time to the time of reading
	Transit  Spread // from the record's timestamp to the time of reading
}

// Window is what a piece of evidence is about: the last whole minute. Until
// there is one, it is about what there is.
const Window = time.Minute

// Gathering gathers the evidence of one partition. The zero value is ready.
type Gathering struct {
	left   uint32            // records until the next that is looked at
	looked watermark.Instant // when one was, last

	began                    watermark.Instant // of the window
	records, fresh, appended int64
	written, age, transit    spreading
	last                     Evidence
	whole                    bool // last is about a whole window
}

// One in so many records is looked at, on average: at random, for producers may
// take turns. Of a partition with few, one is after so long.
const (
	oneIn    = 64
	unlooked = 100 * time.Millisecond
)

// Poll says that n records, at least one, have been read at now.
func (g *Gathering) Poll(now watermark.Instant, n int) {
	if now.Sub(g.began) >= Window {
		g.Evidence(now)
	}
	if now.Sub(g.looked) >= unlooked {
		g.looked, g.left = now, min(g.left, rand.Uint32N(uint32(n)))
	}
}

// Due reports whether the next record is to be looked at.
func (g *Gathering) Due() bool {
	if g.left > 0 {
		g.left--
		return false
	}
	return g.draw()
}

func (g *Gathering) draw() bool {
	g.left = rand.Uint32N(2*oneIn - 1)
	return true
}

// Add takes a reading into account.
func (g *Gathering) Add(r Reading) {
	g.records++
	if r.Fresh {
		g.fresh++
	}
	g.age.add(r.Read.Since(r.Event))
	if r.Timestamp == watermark.None {
		return
	}
	if r.Appended {
		g.appended++
	}
	g.written.add(r.Timestamp.Since(r.Event))
	g.transit.add(r.Read.Since(r.Timestamp))
}

// Evidence returns what is known at now.
func (g *Gathering) Evidence(now watermark.Instant) Evidence {
	over := now.Sub(g.began) >= Window
	if g.whole && !over {
		return g.last
	}
	e := Evidence{
		Records: g.records, Appended: g.records > 0 && g.appended == g.records, Fresh: g.records > 0 && g.fresh == g.records,
		Written: g.written.spread(), Age: g.age.spread(), Transit: g.transit.spread(),
	}
	if over {
		g.whole, g.last, g.began = true, e, now
		g.records, g.fresh, g.appended = 0, 0, 0
		g.written.reset()
		g.age.reset()
		g.transit.reset()
	}
	return e
}

// Begin says since when there may be readings.
func (g *Gathering) Begin(now watermark.Instant) { g.began = now }
