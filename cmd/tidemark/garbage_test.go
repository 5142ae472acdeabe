package main

import (
	"runtime"
	"runtime/metrics"
	"sync"
	"testing"
	"time"
)

var bounded = sync.OnceFunc(boundGarbage)

// Whether little is held or much, the collector is told of the same headroom. How
// well it keeps to that is its own affair: a loop that does nothing but make garbage,
// on a machine that has no time for it, is ahead of any collector.
func TestGarbageDoesNotGrowWithWhatIsHeld(t *testing.T) {
	t.Setenv("GOGC", "")
	bounded()
	var held [][]byte
	for _, target := range []int{8 << 20, 64 << 20, 512 << 20, 64 << 20} {
		for len(held) < target>>20 {
			held = append(held, make([]byte, 1<<20))
		}
		clear(held[target>>20:])
		held = held[:target>>20]
		awaitGarbage(t, target, headroom)
	}
	runtime.KeepAlive(held)
}

// What has pointers costs a collection, so it is not to come more often than as usual.
func TestGarbageGrowsWithPointers(t *testing.T) {
	t.Setenv("GOGC", "")
	bounded()
	const target = 128 << 20
	held := make([][]*byte, target>>20)
	for i := range held {
		held[i] = make([]*byte, 1<<20/8)
	}
	awaitGarbage(t, target, target)
	runtime.KeepAlive(held)
}

// awaitGarbage waits until at least so much is in use, and there may be so much garbage.
func awaitGarbage(t *testing.T, use, want int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		runtime.GC()
		live, percent := read("/gc/heap/live:bytes"), read("/gc/gogc:percent")
		if garbage := int(live * percent / 100); live >= uint64(use) && garbage > want*2/3 && garbage < want*4/3 {
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("with %d MiB in use, there may be %d MiB of garbage, not %d MiB", live>>20, garbage>>20, want>>20)
		}
	}
}

func read(name string) uint64 {
	s := []metrics.Sample{{Name: name}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
