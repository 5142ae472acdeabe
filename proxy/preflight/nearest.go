package preflight

import (
	"context"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/twmb/franz-go/pkg/kadm"
)

// Nearest asks whether existing topics with a similar name were meant: "did you mean x or y? ",
// or nothing.
func Nearest(ctx context.Context, adm *kadm.Client, name string) string {
	all, err := adm.ListTopics(ctx)
	if err != nil {
		return ""
	}
	const most = 3
	distance := func(other string) int { return levenshtein.Distance(name, other, nil) }
	near := slices.DeleteFunc(all.Names(), func(other string) bool {
		return distance(other) > max(2, len(name)/3)
	})
	slices.SortStableFunc(near, func(a, b string) int { return distance(a) - distance(b) })
	if len(near) == 0 {
		return ""
	}
	return "did you mean " + strings.Join(near[:min(most, len(near))], " or ") + "? "
}
