package page

import (
	"cmp"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/watermark"
)

// worstFirst sorts partitions for whoever looks for trouble: those that stand still,
// those with another reason, those that are behind, the rest. How far they are behind counts in steps that
// double: else those that get on alike would change places at every look.
func worstFirst(ps []status.Partition, now time.Time) []*status.Partition {
	sorted := make([]*status.Partition, len(ps))
	for i := range ps {
		sorted[i] = &ps[i]
	}
	slices.SortStableFunc(sorted, func(a, b *status.Partition) int {
		return cmp.Or(
			cmp.Compare(trouble(b, now), trouble(a, now)),
			strings.Compare(a.Topic, b.Topic),
			cmp.Compare(a.Partition, b.Partition),
		)
	})
	return sorted
}

// trouble is the more, the worse.
func trouble(p *status.Partition, now time.Time) int {
	const (
		unnoticed = 10 * time.Second
		most      = 64 // steps are fewer
	)
	switch {
	case p.State.StandsStill():
		return most + 2
	case len(p.Reasons) > 0, p.Unaccounted() != 0, p.Blocked != nil, p.Hidden != nil, p.LateHidden != nil:
		return most + 1
	case p.State == status.Idle || p.Newest == watermark.None:
		return 0
	}
	return bits.Len64(uint64(max(ago(p.Newest, now), 0) / unnoticed))
}
