package recovery

import (
	"math"
	"testing"
	"time"
)

// TestEpochsNeverGoBack: the next epoch is above all that consumers may have seen.
func TestEpochsNeverGoBack(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, c := range []struct {
		w    past
		want uint32
	}{
		{past{any: true}, 1},
		{past{any: true, epoch: 7}, 8},
		{past{any: true, silent: true}, 1_800_000_000},
		{past{any: true, epoch: 1_900_000_000, silent: true}, 1_900_000_001},
		{past{any: true, epoch: math.MaxUint32}, math.MaxUint32},
	} {
		if got := c.w.next(now); got != c.want {
			t.Errorf("%+v: %d, want %d", c.w, got, c.want)
		}
	}
}
