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
	start := time.Unix(7, 0)
	as := accounts{}
	a := as.open(emit.Source{Topic: "raw"}, 0)
	a.marked = start
	put := func(ordered, future, repeats int64) {
		a.now.Ordered += ordered
		a.now.Late[reorder.Future] += future
		a.now.Late[reorder.Duplicate] += repeats
	}
	rates := func(after time.Duration) PartitionStatus {
		var p PartitionStatus
		p.rates(a, start.Add(after))
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

// Read again, records may have other event times than they had, and more of them are to
// be held than before. Nothing is missing then, and no counter goes back.
func TestMoreIsFoundThanWasHeld(t *testing.T) {
	e := reorder.NewEngine(reorder.Options{Bound: time.Second}, 1<<20)
	p := &partition{state: e.Assign(reorder.Fresh(0, 0, 0), 0), account: accounts{}.open(emit.Source{}, 0)}
	for offset, at := range []time.Duration{10 * time.Second, 2 * time.Second} { // the second is late
		v, _ := p.state.Step(reorder.Record{Offset: int64(offset), Time: watermark.Time(at)}, 0)
		p.account.judged(0, watermark.Time(at), v)
		p.account.now.Late[v]++
	}
	p.account.now.Late[reorder.OnTime] = 0
	p.account.now.Held = int64(p.state.Owed())
	p.account.keep()
	if p.account.kept.Unaccounted() != 0 || p.account.kept.Held != 1 {
		t.Fatalf("%+v", p.account.kept)
	}
	p.state = e.Assign(p.state.Snapshot(), 0)
	for offset := range int64(2) {
		p.state.Step(reorder.Record{Offset: offset, Time: watermark.Time(10 * time.Second)}, 0)
	}
	if loss := p.endReplay(2, true); loss == nil {
		t.Fatal("another log was taken for the same")
	}
	p.account.now.Held = int64(p.state.Owed())
	if n := p.account.now; n.Unaccounted() != 0 || n.Held != 2 || n.Lost != 0 || n.Carried != 1 {
		t.Errorf("%+v", n)
	}
}

// What is undone does not count in the disorder either, and a partition that is given
// up takes none away.
func TestDisorderOfAccounts(t *testing.T) {
	as := accounts{}
	a, b := as.open(emit.Source{Topic: "x"}, 0), as.open(emit.Source{Topic: "x", Partition: 1}, 0)
	a.judged(watermark.Time(5*time.Second), watermark.Time(2*time.Second), reorder.OnTime)
	b.judged(watermark.Time(5*time.Second), watermark.Time(4*time.Second), reorder.OnTime)
	as.keep()
	b.judged(watermark.Time(5*time.Second), watermark.Time(4*time.Second), reorder.OnTime)
	as.undo()
	b.judged(watermark.Time(5*time.Second), watermark.Time(4*time.Second), reorder.OnTime)
	if h := as.disorder()["x"]; h.Count() != 2 || h.Seconds != 4 {
		t.Errorf("%d records, %g s", h.Count(), h.Seconds)
	}
	as.keep()
	if h := as.disorder()["x"]; h.Count() != 3 || h.Seconds != 5 {
		t.Errorf("%d records, %g s", h.Count(), h.Seconds)
	}
}

func (as accounts) keep() {
	for _, a := range as {
		a.keep()
	}
}
