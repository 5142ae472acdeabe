package clocks

import (
	"math/rand/v2"
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
)

// Reading is the times of a record and how it was read.
type Reading struct {
	Event     watermark.Time
	Timestamp watermark.Time // the record's own; None if it has none
	Read      watermark.Time // the wall clock here, when it was read
	Appended  bool           // the timestamp is the broker's clock (LogAppendTime)
	Fresh     bool           // it was read as soon as it was in the log
}

// Evidence sums up the readings of a partition over a Window. A difference is positive if
// the second clock showed a later time.
type Evidence struct {
	Records  int64  // the sample: how many of the records read
	Appended bool   // all timestamps were the broker's clock (LogAppendTime)
	Fresh    bool   // all were read as soon as they were in the log
	Written  Spread // from event time to the record's timestamp
	Age      Spread // from event time to the time of reading
	Transit  Spread // from the record's timestamp to the time of reading
}

// Window is the time that evidence covers: the last whole minute or, at first, what there
// is of it.
const Window = time.Minute

// Gathering gathers the evidence of one partition. The zero value is ready.
type Gathering struct {
	left    uint32            // records until the next one of the sample
	sampled watermark.Instant // when the last one was due

	began                    watermark.Instant // of the window
	records, fresh, appended int64
	written, age, transit    spreading
	last                     Evidence
	whole                    bool // last is about a whole window
}

// On average one in oneIn records is sampled: at random, because producers may alternate.
// In a partition with few records, one is sampled every sampleEvery.
const (
	oneIn       = 64
	sampleEvery = 100 * time.Millisecond
)

// Poll says that n records, at least one, have been read at now.
func (g *Gathering) Poll(now watermark.Instant, n int) {
	if now.Sub(g.began) >= Window {
		g.Evidence(now)
	}
	if now.Sub(g.sampled) >= sampleEvery {
		g.sampled, g.left = now, min(g.left, rand.Uint32N(uint32(n)))
	}
}

// Due reports whether the next record belongs to the sample.
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

// Add adds a reading.
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

// Evidence returns the evidence at now.
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

// Begin sets the time from which there may be readings.
func (g *Gathering) Begin(now watermark.Instant) { g.began = now }
