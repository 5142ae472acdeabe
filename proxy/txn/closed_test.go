package txn

import (
	"log/slog"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/kafkatest"
)

// noBatches is told of batches, and does nothing.
type noBatches struct{}

func (noBatches) Flight(uint64) {}
func (noBatches) Landed(uint64) {}

// fakeWriter returns a writer that can ask a fake cluster, and writes nothing.
func fakeWriter(t *testing.T) *Writer {
	f := kafkatest.NewFake(t)
	return New(Options{
		Config: f.Config(), Admin: f.Admin, Reporter: fault.NewReporter(slog.New(slog.DiscardHandler)), Limits: NewLimits(), Acks: new(AckLimit),
		Batches: noBatches{}, MaxBatch: func(string) int { return 0 }, NeededBatch: func(string) int { return 0 },
	})
}

// TestProgressElsewhereForgivesNothing: commits of other partitions come in between while
// the refused record is written again; only its own partition can get past it.
func TestProgressElsewhereForgivesNothing(t *testing.T) {
	w := fakeWriter(t)
	sources := make([]*Source, 2)
	for n := range sources {
		sources[n] = w.Source(emit.Source{Topic: "raw", Ordered: "raw.ordered", Late: "raw.late", Partition: int32(n)})
	}
	refuse := func(times int) (closed bool) {
		for range times {
			sources[1].Low++
			sources[1].written++ // and is accepted
			w.clearRetries()
			if err := w.onFailures(t.Context(), []*failure{{"raw.ordered", 0, 0, kerr.KafkaStorageError}}); err != nil {
				t.Fatal(err)
			}
		}
		_, closed = sources[0].Closed()
		return closed
	}
	if refuse(5) {
		t.Fatal("it is closed after 5")
	}
	sources[0].Low = 7
	if refuse(5) {
		t.Fatal("it is closed after getting past it and 5 more")
	}
	if !refuse(1) {
		t.Error("still patient")
	}
}
