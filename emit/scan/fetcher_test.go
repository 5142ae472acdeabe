package scan

import (
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestHoles: compaction is told by the batches that it leaves.
func TestHoles(t *testing.T) {
	batch := func(first int64, last, records int32) []byte {
		b := kmsg.RecordBatch{FirstOffset: first, Magic: 2, LastOffsetDelta: last, NumRecords: records, Records: make([]byte, 7)}
		b.Length = int32(len(b.AppendTo(nil)) - 12)
		return b.AppendTo(nil)
	}
	for _, tt := range []struct {
		name    string
		next    int64
		batches [][]byte
		holed   bool
	}{
		{"whole", 5, [][]byte{batch(5, 2, 3), batch(8, 0, 1)}, false},
		{"fetched from its midst", 6, [][]byte{batch(5, 2, 3), batch(8, 0, 1)}, false},
		{"without a record", 5, [][]byte{batch(5, 2, 2)}, true},
		{"empty", 5, [][]byte{batch(5, 0, 1), batch(6, 3, 0)}, true},
		{"a batch is gone", 5, [][]byte{batch(5, 0, 1), batch(7, 0, 1)}, true},
		{"it begins later", 5, [][]byte{batch(6, 0, 1)}, true},
		{"cut off", 5, [][]byte{batch(5, 2, 3), batch(8, 0, 1)[:30]}, false},
	} {
		if got := holed(slices.Concat(tt.batches...), tt.next); got != tt.holed {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}
