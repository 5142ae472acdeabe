package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// headroom is how many bytes of garbage may lie about. Go's way is to let it grow
// in proportion to what is in use, for what is in use has to be looked through at
// each collection. Most of it here are records held, in memory without pointers,
// which costs a collection nothing. So what it costs does not grow with what is
// held, and neither need the garbage.
const headroom = 32 << 20

// boundGarbage keeps garbage at the headroom from now on, unless the user has
// set GOGC.
func boundGarbage() {
	if os.Getenv("GOGC") == "" {
		c := &collection{live: []metrics.Sample{{Name: "/gc/heap/live:bytes"}}}
		c.ended()
	}
}

// collection is told of the end of each collection by something that each finds to be
// garbage.
type collection struct {
	live    []metrics.Sample
	percent int
}

type leftover struct{ _ *leftover }

// ended says anew how much garbage there may be until the next collection, as the
// share of what is in use that Go asks for.
func (c *collection) ended() {
	metrics.Read(c.live)
	live := c.live[0].Value.Uint64()
	percent := int(headroom * 100 / max(live, headroom/8))
	if percent != c.percent {
		c.percent = percent
		debug.SetGCPercent(max(percent, 1))
	}
	runtime.AddCleanup(new(leftover), (*collection).ended, c)
}
