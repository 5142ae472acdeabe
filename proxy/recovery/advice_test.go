package recovery

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tidemarkhq/tidemark/reorder"
)

// TestAdvice: the commands work where they are named. A new epoch where nothing is committed
// has to be told where to begin, and whoever has the wrong group is told the other ways out.
func TestAdvice(t *testing.T) {
	for _, c := range []struct {
		why    error
		offset int64
		want   []string
	}{
		{nil, -1, []string{"`tidemark position rebuild`", "`tidemark position new-epoch --from earliest`", "TIDEMARK_ON_RESET=new-epoch", "If it is not, set TIDEMARK_GROUP to that group", "TIDEMARK_ORDERED_SUFFIX"}},
		{nil, 7, []string{"`tidemark position rebuild`", "`tidemark position new-epoch`,", "If it is not, set TIDEMARK_GROUP to that group", "TIDEMARK_LATE_SUFFIX"}},
		{reorder.ErrFingerprint, 7, []string{"TIDEMARK_EVENT_TIME", "`tidemark position new-epoch`"}},
		{reorder.ErrNewer, 7, []string{"version", "`tidemark position rebuild`"}},
		{reorder.ErrRecreated, 7, []string{"`tidemark position new-epoch --from earliest`"}},
		{reorder.ErrForeign, 7, []string{"another program", "`tidemark position rebuild`"}},
	} {
		why := c.why
		if why != nil {
			why = fmt.Errorf("its metadata was %w", why)
		}
		got := Advice(why, c.offset)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%v, offset %d: %q is not in %q", c.why, c.offset, want, got)
			}
		}
	}
}
