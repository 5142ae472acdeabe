package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// headroom is how many bytes of garbage may lie about, or else as many as there are
// with pointers among those in use. Go's way is to let garbage grow in proportion to
// all that is in use, for that has to be looked through at each collection. Here most
// of it are records held, in memory without pointers, which costs a collection
// nothing. So what it costs does not grow with what is held, and neither need the
// garbage. But the client's own memory has pointers, and with a thousand partitions
// there is much of it.
const headroom = 32 << 20

// boundGarbage keeps garbage at the headroom from now on, unless the user has
// set GOGC.
func boundGarbage() {
	if os.Getenv("GOGC") == "" {
		c := &collection{sizes: []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/heap:bytes"}}}
		c.ended()
	}
}

// collection is told of the end of each collection by something that each finds to be
// garbage.
type collection struct {
	sizes   []metrics.Sample // in use, and of that, with pointers
	percent int
}

type leftover struct{ _ *leftover }

// ended says anew how much garbage there may be until the next collection, as the
// share of what is in use that Go asks for.
func (c *collection) ended() {
	metrics.Read(c.sizes)
	live, pointers := c.sizes[0].Value.Uint64(), c.sizes[1].Value.Uint64()
	percent := int(max(headroom, pointers) * 100 / max(live, headroom/8))
	if percent != c.percent {
		c.percent = percent
		debug.SetGCPercent(max(percent, 1))
	}
	runtime.AddCleanup(new(leftover), (*collection).ended, c)
}
