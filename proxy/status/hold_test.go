package status

import (
	"strings"
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/watermark"
)

// What is waited for is the true blocker, and nothing is due while reading is held up.
func TestHoldSaysTheBlocker(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	upstream := &fault.OpenTransaction{Topic: "raw", Offset: 7, Behind: 3, ProducerID: 4, TransactionalID: "x", Since: now.Add(-time.Minute)}
	heldOpen := func(p *Partition) { p.Stable, p.Next = 7, 7 }
	for _, x := range []struct {
		name   string
		change func(*Partition)
		idle   time.Duration
		others Others
		want   []string
		due    bool
	}{
		{"as fast as the clock", func(*Partition) {}, time.Second, Others{}, []string{"waits for the watermark, which has 2.0 s to go"}, true},
		{"a transaction, nobody knows whose", heldOpen, time.Second, Others{}, []string{"waits for newer records, which cannot be read until a producer ends its transaction"}, false},
		{"a transaction", func(p *Partition) { heldOpen(p); p.Blocked = upstream }, time.Second, Others{}, []string{"cannot be read until a producer (transactional id \"x\") ends its transaction, open since 2026-11-20T11:59:00Z"}, false},
		{"a transaction, and nothing is held", func(p *Partition) { heldOpen(p); p.Blocked, p.Density.From = upstream, watermark.None }, time.Second, Others{}, []string{"nothing is held; new records cannot be read until a producer (transactional id"}, false},
		{"a transaction, and there is more to read before it", func(p *Partition) { p.Stable, p.Blocked = 7, upstream }, time.Second, Others{}, []string{"waits for the watermark"}, true},
		{"a quota", func(*Partition) {}, time.Second, Others{Throttled: "throttled by a quota"}, []string{"waits for the watermark", "throttled by a quota, 5 records behind"}, false},
		{"a quota, and all is read", func(p *Partition) { p.Next = 10 }, time.Second, Others{Throttled: "throttled by a quota"}, []string{"waits for the watermark"}, true},
		{"a silence that is proven", func(p *Partition) { p.Next, p.Quiet, p.Silent = 10, 20*time.Second, 20*time.Second }, 30 * time.Second, Others{}, []string{"or for the idle timeout of 30 s, which ends in 10 s"}, true},
		{"a silence without idle timeout", func(p *Partition) { p.Next, p.Silent = 10, 20*time.Second }, 0, Others{}, []string{"waits for newer records, however long that takes: all there are have been read, the last ones 20 s ago", "TIDEMARK_IDLE_TIMEOUT=0"}, false},
		{"nothing is read though it is there", func(p *Partition) { p.Silent = 20 * time.Second }, time.Second, Others{}, []string{"5 are still to be read, and nothing has been read for 20 s"}, false},
		{"a silence that nobody proves", func(p *Partition) { p.Next, p.Silent = 10, 20*time.Second }, time.Second, Others{}, []string{"the brokers do not tell whether there are any"}, false},
		{"an output that readers do not see", func(p *Partition) {
			p.Hidden = &fault.OpenTransaction{Topic: "raw.ordered", Output: true, ProducerID: 4, TransactionalID: "y", Since: now.Add(-time.Minute)}
		}, time.Second, Others{}, []string{"waits for the watermark", `; readers of raw.ordered do not see what comes out until another program (transactional id "y") ends its transaction`}, false},
		{"in the wrong unit", func(p *Partition) { p.WrongUnit = EventTimeUnit }, time.Second, Others{ShortOfMemory: true}, []string{"waits for the watermark; nobody can tell when that comes, for event times are read in the wrong unit (TIDEMARK_EVENT_TIME)"}, false},
		{"markers in the wrong unit", func(p *Partition) { p.WrongUnit = MarkerUnit }, time.Second, Others{}, []string{"the watermarks that records carry are read in the wrong unit (TIDEMARK_WATERMARK_HEADER)"}, false},
		{"in no time", func(p *Partition) { p.Watermark = p.Density.From - 10_000_000 }, time.Second, Others{}, []string{"waits for the watermark, which is about to pass it"}, true},
		{"memory is short", func(*Partition) {}, time.Second, Others{ShortOfMemory: true}, []string{"waits for the watermark", "memory is short, so it may be released earlier (TIDEMARK_MEMORY)"}, false},
		{"the next record", func(p *Partition) { p.Next, p.Quiet, p.Silent = 10, 300*time.Millisecond, 300*time.Millisecond }, 5 * time.Second, Others{}, []string{"waits for the watermark, which has 2.0 s to go"}, true},
		{"a late topic that readers do not see", func(p *Partition) {
			p.LateHidden = &fault.OpenTransaction{Topic: "raw.late", Output: true, ProducerID: 4, TransactionalID: "y", Since: now.Add(-time.Minute)}
		}, time.Second, Others{}, []string{"waits for the watermark", `; readers of raw.late do not see what comes out until another program (transactional id "y") ends its transaction`}, true},
		{"for memory", func(p *Partition) { p.State, p.Waiting = Recovering, true }, time.Second, Others{}, []string{"waits for memory (TIDEMARK_MEMORY)"}, false},
		{"for slower ones", func(p *Partition) { p.State, p.Stable, p.Next = Paused, 7, 7 }, time.Second, Others{Slowest: watermark.Time(now.UnixNano())}, []string{"ahead of the slowest partition"}, false},
	} {
		t.Run(x.name, func(t *testing.T) {
			p := Partition{Topic: "raw", State: Active, End: 10, Stable: 10}
			p.Next, p.Watermark = 5, watermark.Time(now.UnixNano())
			p.Density.From = p.Watermark + watermark.Time(2*time.Second)
			x.change(&p)
			h := HoldOf(config.Config{IdleTimeout: x.idle, Watermark: config.Bounded}, &p, x.others, now)
			if h.At.IsZero() == x.due {
				t.Errorf("it is due at %v", h.At)
			}
			for _, want := range x.want {
				if !strings.Contains(h.Words, want) {
					t.Errorf("%q lacks %q", h.Words, want)
				}
			}
			if p.WrongUnit != "" && strings.Contains(h.Words, "to go") {
				t.Errorf("%q says how long it takes", h.Words)
			}
			if h.Unseen != (p.Hidden != nil) {
				t.Errorf("that readers do not see it: %v", h.Unseen)
			}
		})
	}
}
