package pipeline

import (
	"log/slog"
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Read again, records may have other event times than they had, and more of them are to
// be held than before. Nothing is missing then, and no counter goes back.
func TestMoreIsFoundThanWasHeld(t *testing.T) {
	e := reorder.NewEngine(reorder.Options{Bound: time.Second}, 1<<20)
	cfg, err := config.Load([]string{"TIDEMARK_TOPICS=raw", "TIDEMARK_ON_DATA_LOSS=continue"})
	if err != nil {
		t.Fatal(err)
	}
	line := New(Options{Config: cfg, Reporter: fault.NewReporter(slog.New(slog.DiscardHandler))})
	p := line.Start(emit.Source{}, e.Assign(reorder.Fresh(0, 0, 0), 0), status.Ledgers{}.Open(emit.Source{}, 0), 0)
	for offset, at := range []time.Duration{10 * time.Second, 2 * time.Second} { // the second is late
		v, _ := p.State.Step(reorder.Record{Offset: int64(offset), Time: watermark.Time(at)}, 0)
		p.Ledger.Judged(0, watermark.Time(at), v)
		p.Ledger.Pending.Late[v]++
	}
	p.Ledger.Pending.Late[reorder.OnTime] = 0
	p.Ledger.Pending.Held = int64(p.State.Owed())
	p.Ledger.Commit()
	if p.Ledger.Committed.Unaccounted() != 0 || p.Ledger.Committed.Held != 1 {
		t.Fatalf("%+v", p.Ledger.Committed)
	}
	p.State = e.Assign(p.State.Snapshot(), 0)
	for offset := range int64(2) {
		p.State.Step(reorder.Record{Offset: offset, Time: watermark.Time(10 * time.Second)}, 0)
	}
	if lost, err := p.EndReplay(2); err != nil || !lost {
		t.Fatal("another log was taken for the same")
	}
	p.Ledger.Pending.Held = int64(p.State.Owed())
	if n := p.Ledger.Pending; n.Unaccounted() != 0 || n.Held != 2 || n.Lost != 0 || n.Carried != 1 {
		t.Errorf("%+v", n)
	}
}
