package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// headroom is how many bytes of garbage are allowed, or as many as live memory with pointers
// has if that is more. Go lets garbage grow in proportion to all live memory, because a
// collection has to scan that. Here most live memory is held records, without pointers,
// which a collection does not scan. So the cost of a collection does not grow with what is
// held, and neither need the garbage. The client's own memory does have pointers, and with a
// thousand partitions there is much of it.
const headroom = 32 << 20

// boundGarbage keeps garbage at the headroom from now on, unless the user has
// set GOGC.
func boundGarbage() {
	if os.Getenv("GOGC") == "" {
		c := &collection{sizes: []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/heap:bytes"}}}
		c.ended()
	}
}

// collection notices the end of each collection by an object that each finds to be garbage.
type collection struct {
	sizes   []metrics.Sample // in use, and of that, with pointers
	percent int
}

type leftover struct{ _ *leftover }

// ended sets how much garbage is allowed until the next collection, as the percentage of
// live memory that Go expects.
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
