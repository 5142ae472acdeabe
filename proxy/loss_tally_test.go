package proxy

import (
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Read again, records may have other event times than they had, and more of them are to
// be held than before. Nothing is missing then, and no counter goes back.
func TestMoreIsFoundThanWasHeld(t *testing.T) {
	e := reorder.NewEngine(reorder.Options{Bound: time.Second}, 1<<20)
	p := &partition{state: e.Assign(reorder.Fresh(0, 0, 0), 0), ledger: status.Ledgers{}.Open(emit.Source{}, 0)}
	for offset, at := range []time.Duration{10 * time.Second, 2 * time.Second} { // the second is late
		v, _ := p.state.Step(reorder.Record{Offset: int64(offset), Time: watermark.Time(at)}, 0)
		p.ledger.Judged(0, watermark.Time(at), v)
		p.ledger.Pending.Late[v]++
	}
	p.ledger.Pending.Late[reorder.OnTime] = 0
	p.ledger.Pending.Held = int64(p.state.Owed())
	p.ledger.Commit()
	if p.ledger.Committed.Unaccounted() != 0 || p.ledger.Committed.Held != 1 {
		t.Fatalf("%+v", p.ledger.Committed)
	}
	p.state = e.Assign(p.state.Snapshot(), 0)
	for offset := range int64(2) {
		p.state.Step(reorder.Record{Offset: offset, Time: watermark.Time(10 * time.Second)}, 0)
	}
	if loss := p.endReplay(2, true); loss == nil {
		t.Fatal("another log was taken for the same")
	}
	p.ledger.Pending.Held = int64(p.state.Owed())
	if n := p.ledger.Pending; n.Unaccounted() != 0 || n.Held != 2 || n.Lost != 0 || n.Carried != 1 {
		t.Errorf("%+v", n)
	}
}
