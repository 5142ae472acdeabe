package core

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

var orderers = []struct {
	name string
	make func(held int, out func(*kgo.Record)) orderer
}{
	{"tidemark", func(held int, out func(*kgo.Record)) orderer { return newTidemark(held, out) }},
	{"heap", func(held int, out func(*kgo.Record)) orderer {
		return &pointers{owning: true, bound: bound(held).Milliseconds(), out: out}
	}},
	{"heap-borrowing", func(held int, out func(*kgo.Record)) orderer {
		return &pointers{bound: bound(held).Milliseconds(), out: out}
	}},
}

// BenchmarkCore is a record's whole way through, at a steady number held.
func BenchmarkCore(b *testing.B) {
	for _, o := range orderers {
		for _, held := range []int{50_000, 500_000, 5_000_000} {
			b.Run(fmt.Sprintf("%s/held=%d", o.name, held), func(b *testing.B) {
				if held > 50_000 && testing.Short() {
					b.Skip("takes seconds to fill")
				}
				src := newSource()
				ord := o.make(held, func(*kgo.Record) {})
				for range held + held/8 {
					ord.take(src.next())
				}
				b.SetBytes(200)
				b.ReportAllocs()
				begun := processorTime(b)
				for b.Loop() {
					ord.take(src.next())
				}
				b.ReportMetric(float64(processorTime(b)-begun)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

// processorTime is what this process has used: the collector works beside the
// loop, on another processor, and a sidecar shares them with others.
func processorTime(b *testing.B) time.Duration {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		b.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// TestSame: all of them put out the same records in the same order, so that
// the benchmark compares like with like.
func TestSame(t *testing.T) {
	outputs := make([][]string, len(orderers))
	for i, o := range orderers {
		src := newSource()
		ord := o.make(10_000, func(r *kgo.Record) {
			line := r.Topic
			for _, h := range r.Headers {
				if r.Topic == "source.ordered" || h.Key == "tidemark-source-offset" {
					line += fmt.Sprintf(" %s=%s", h.Key, h.Value)
				}
			}
			outputs[i] = append(outputs[i], line)
		})
		for range 100_000 {
			ord.take(src.next())
		}
		if ord.held() < 8_000 {
			t.Errorf("%s holds only %d", o.name, ord.held())
		}
		for n := range min(len(outputs[0]), len(outputs[i])) {
			if outputs[0][n] != outputs[i][n] {
				t.Fatalf("output %d of %s is %s, of %s %s", n, o.name, outputs[i][n], orderers[0].name, outputs[0][n])
			}
		}
		if len(outputs[i]) != len(outputs[0]) {
			t.Errorf("%s put out %d, %s %d", o.name, len(outputs[i]), orderers[0].name, len(outputs[0]))
		}
	}
}

// TestNoGarbage: a record that passes through leaves nothing to collect.
func TestNoGarbage(t *testing.T) {
	src := newSource()
	ord := newTidemark(50_000, func(*kgo.Record) {})
	for range 300_000 {
		ord.take(src.next())
	}
	const batch = 10_000
	allocs := testing.AllocsPerRun(10, func() {
		for range batch {
			ord.take(src.next())
		}
	})
	if perRecord := allocs / batch; perRecord > 0.001 {
		t.Errorf("%g allocations a record", perRecord)
	}
}
