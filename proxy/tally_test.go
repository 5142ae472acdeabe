package proxy

import (
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Rates are of what was committed since somebody looked last, reason by reason, and
// stay what they are when somebody looks again at once.
func TestRates(t *testing.T) {
	start := watermark.Instant(7 * time.Hour)
	as := accounts{}
	a := as.open(emit.Source{Topic: "raw"}, 0, start)
	put := func(ordered, future, repeats int64) {
		a.now.Ordered += ordered
		a.now.Late[reorder.Future] += future
		a.now.Late[reorder.Duplicate] += repeats
	}
	rates := func(after time.Duration) PartitionStatus {
		var p PartitionStatus
		p.rates(a, start+watermark.Instant(after))
		return p
	}
	put(10, 4, 1)
	as.keep()
	put(100, 100, 100) // not committed
	for _, after := range []time.Duration{2 * time.Second, 2*time.Second + publishEvery - 1} {
		p := rates(after)
		if p.OrderedRate != 5 || p.LateRate != 2.5 || p.LateRates[reorder.Future] != 2 || p.LateRates[reorder.Duplicate] != 0.5 {
			t.Errorf("after %v: %v ordered, %v late, by reason %v", after, p.OrderedRate, p.LateRate, p.LateRates)
		}
	}
	as.undo()
	if p := rates(4 * time.Second); p.OrderedRate != 0 || p.LateRate != 0 || p.LateRates != [len(p.LateRates)]float64{} {
		t.Errorf("nothing was committed since, and the rates are %v and %v", p.OrderedRate, p.LateRates)
	}
}
