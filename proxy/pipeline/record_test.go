package pipeline

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/reorder"
)

// path is a partition with a pipeline of its own, and what has been asked of its caller.
type path struct {
	t      *testing.T
	engine *reorder.Engine
	line   *Pipeline
	*Partition
	trace []string
}

// gate has the partition suspended before one record.
type gate struct {
	held   bool
	offset int64
	open   bool
}

func (g *gate) MayHalt() bool { return !g.open }

func (g *gate) HaltsAt(held bool, offset int64) bool {
	return !g.open && g.held == held && g.offset == offset
}

func newPath(t *testing.T, snap reorder.Snapshot, env ...string) *path {
	cfg, err := config.Load(append([]string{"TIDEMARK_TOPICS=raw", "TIDEMARK_MAX_OUT_OF_ORDERNESS=2s", "TIDEMARK_IDLE_TIMEOUT=5s"}, env...))
	if err != nil {
		t.Fatal(err)
	}
	x := &path{t: t, engine: reorder.NewEngine(reorder.Options{Bound: cfg.MaxOutOfOrderness, IdleTimeout: cfg.IdleTimeout}, 1<<30)}
	outbox := emit.NewOutbox(cfg.OutputHeaders())
	x.line = New(Options{
		Config: cfg, Extract: cfg.EventTime, Reporter: fault.NewReporter(slog.New(slog.DiscardHandler)), Checked: map[string]bool{},
		Outbox: func() *emit.Outbox { return outbox }, Atomic: cfg.Delivery == config.ExactlyOnce, Waited: func() {},
	})
	src := emit.Source{Topic: "raw", Ordered: "raw.ordered", Late: "raw.late"}
	x.Partition = x.line.Start(src, x.engine.Assign(snap, 1), status.Ledgers{}.Open(src, snap.Count), 1)
	x.engine.Flight(1)
	return x
}

// note writes an outcome down.
func (x *path) note(kind Kind) {
	o := x.Asked
	switch kind {
	case Write:
		x.trace = append(x.trace, fmt.Sprintf("%d to %s", o.Offset, strings.TrimPrefix(o.Record.Topic, "raw.")))
	case Checkpoint:
		x.trace = append(x.trace, "checkpoint")
	case Halt:
		x.trace = append(x.trace, fmt.Sprintf("halt before %d", o.Offset))
	case Seek:
		x.trace = append(x.trace, fmt.Sprintf("seek to %d", x.State.Position()))
	case Dropped:
		x.trace = append(x.trace, fmt.Sprintf("%d dropped", o.Offset))
	case Fail:
		x.trace = append(x.trace, "fail: "+o.Err.Error())
	}
}

// process takes a record with an event time in seconds. before is called before it goes on
// after an outcome.
func (x *path) process(offset, seconds int64, before func(Kind)) {
	r := &kgo.Record{Topic: "raw", Offset: offset, LeaderEpoch: -1, Timestamp: time.Unix(seconds, 0), Value: []byte("v")}
	for kind := x.Process(x.t.Context(), r); kind != Done; kind = x.Continue(x.t.Context()) {
		x.note(kind)
		if kind == Seek || kind == Fail {
			return
		}
		if before != nil {
			before(kind)
		}
	}
}

func (x *path) want(trace ...string) {
	x.t.Helper()
	if !slices.Equal(x.trace, trace) {
		x.t.Errorf("outcomes are %q, want %q", x.trace, trace)
	}
	x.trace = nil
}

// TestPathOfARecord: what is on time is held until the watermark has passed it, what is
// behind the watermark is late at once, and what a record releases comes after it.
func TestPathOfARecord(t *testing.T) {
	x := newPath(t, reorder.Fresh(0, -1, 0))
	x.process(0, 100, nil)
	x.process(1, 99, nil)
	x.want()
	x.process(2, 102, nil) // W is at 100 s, exclusive
	x.want("1 to ordered")
	x.process(3, 90, nil)
	x.want("3 to late")
	x.process(4, 105, nil)
	x.want("0 to ordered", "2 to ordered")
	if l := x.Ledger.Pending; l.Read != 5 || l.Ordered != 3 || l.AllLate() != 1 {
		t.Errorf("counted %+v", l)
	}
}

// TestPathHalts: a partition that has to be suspended before a record says so before the
// record is judged, or released; when it is not suspended after all, it goes on with the
// same record.
func TestPathHalts(t *testing.T) {
	x := newPath(t, reorder.Fresh(0, -1, 0))
	g := &gate{held: false, offset: 1}
	x.Gate = g
	x.process(0, 100, nil)
	x.process(1, 90, func(Kind) { g.open = true })
	x.want("halt before 1", "1 to late")

	*g = gate{held: true, offset: 0}
	x.process(2, 105, func(Kind) { g.open = true })
	x.want("halt before 0", "0 to ordered")
}

// TestPathAsksForCheckpoint: without transactions, what memory decides is committed before
// anything rests on it, once.
func TestPathAsksForCheckpoint(t *testing.T) {
	for _, atomic := range []bool{false, true} {
		x := newPath(t, reorder.Fresh(0, -1, 0), map[bool]string{true: "TIDEMARK_DELIVERY=exactly-once", false: "TIDEMARK_DELIVERY=at-least-once"}[atomic])
		x.process(0, 100, nil)
		x.process(1, 101, nil)
		if x.State.Advance(); x.engine.Relieve() == nil {
			t.Fatal("nothing is released early")
		}
		for kind := x.Release(); kind != Done; kind = x.Release() {
			if x.note(kind); kind == Checkpoint {
				x.State.Advance()
			}
		}
		if atomic {
			x.want("0 to ordered")
		} else {
			x.want("checkpoint", "0 to ordered")
		}
	}
}

// TestPathSeeks: where records are missing that were held, and that is accepted, reading
// goes on where the logs part; where it is not, the session ends.
func TestPathSeeks(t *testing.T) {
	before := newPath(t, reorder.Fresh(0, -1, 0))
	for offset := range int64(3) {
		before.process(offset, 100+offset/2, nil)
	}
	snap := before.State.Snapshot()
	for _, policy := range []string{"continue", "fail"} {
		x := newPath(t, snap, "TIDEMARK_ON_DATA_LOSS="+policy)
		x.process(0, 100, nil)
		x.process(7, 200, nil) // 1 and 2 are gone
		if policy == "continue" {
			x.want("seek to 3")
		} else if len(x.trace) != 1 || !strings.HasPrefix(x.trace[0], "fail: replay raw partition 0") {
			t.Errorf("outcomes are %q", x.trace)
		}
	}
}

// TestPathIsNestable: while a release of one partition waits for its caller, the caller may
// ask the same partition for what is due; nothing comes twice or out of order.
func TestPathIsNestable(t *testing.T) {
	x := newPath(t, reorder.Fresh(0, -1, 0))
	for offset := range int64(6) {
		x.process(offset, 100+offset, nil)
	}
	x.trace = nil
	once := true
	x.process(6, 120, func(kind Kind) {
		if kind == Write && once {
			once = false
			x.note(x.Release())
		}
	})
	x.want("3 to ordered", "4 to ordered", "5 to ordered")
}
