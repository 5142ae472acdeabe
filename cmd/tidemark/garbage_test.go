package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
)

var sink []byte

// Whether little is held or much, garbage is about the headroom.
func TestGarbageDoesNotGrowWithWhatIsHeld(t *testing.T) {
	t.Setenv("GOGC", "")
	t.Cleanup(func() { debug.SetGCPercent(100) })
	boundGarbage()
	var held [][]byte
	for _, target := range []int{8 << 20, 64 << 20, 512 << 20} {
		for n := len(held); n < target>>20; n++ {
			held = append(held, make([]byte, 1<<20))
		}
		for range 2 { // the first still has the share of before
			runtime.GC()
			waitForCollector(t)
		}
		most := uint64(0)
		for range 4000 { // 250 MiB of garbage
			sink = make([]byte, 64<<10)
			most = max(most, inUse())
		}
		garbage := int(most) - target
		if garbage < headroom/4 || garbage > 2*headroom {
			t.Errorf("with %d MiB held, up to %d MiB of garbage, wanted about %d MiB", target>>20, garbage>>20, headroom>>20)
		}
	}
	runtime.KeepAlive(held)
}

// waitForCollector returns when the finalizers of the last collection have run.
func waitForCollector(t *testing.T) {
	t.Helper()
	done := make(chan struct{})
	func() {
		v := new([16]int)
		runtime.SetFinalizer(v, func(*[16]int) { close(done) })
	}()
	runtime.GC()
	<-done
}

func inUse() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
