package recovery

import (
	"errors"

	"github.com/tidemarkhq/tidemark/reorder"
)

// Advice says what to do where no run goes on from what is committed, and records have come
// out. why is what the metadata of the commit was not taken for; nil: there is none. offset is
// the commit's, -1: there is none.
func Advice(why error, offset int64) string {
	switch {
	case errors.Is(why, reorder.ErrFingerprint):
		return "what is held was judged by the TIDEMARK_EVENT_TIME of before: set that again; or, to have it judged by the present one, run `tidemark position new-epoch` and start again (docs/starting-over.md)"
	case errors.Is(why, reorder.ErrNewer):
		return "run the version that wrote it, or a later one; to stay with this one, make the position again from the outputs: `tidemark position rebuild`"
	case errors.Is(why, reorder.ErrRecreated):
		return "to go on with the new topic, in a new epoch: `tidemark position new-epoch --from earliest`, or TIDEMARK_ON_RESET=new-epoch for one start"
	case why != nil:
		return "another program commits in this group, or an offset was moved by hand: give each program a group of its own (TIDEMARK_GROUP), then make the position again from the outputs: `tidemark position rebuild`; where it cannot: `tidemark position new-epoch`"
	}
	anew := "`tidemark position new-epoch`"
	if offset < 0 {
		anew = "`tidemark position new-epoch --from earliest`"
	}
	return "is TIDEMARK_GROUP the group that wrote them? If it is, make the position again from the outputs: `tidemark position rebuild` (Kafka's tools set offsets without the metadata that goes with them); " +
		"or begin a new epoch, in which order and watermarks begin anew and what the outputs hold from there on comes out a second time: " + anew + ", or TIDEMARK_ON_RESET=new-epoch for one start. " +
		"If it is not, set TIDEMARK_GROUP to that group; or give this one outputs of its own: TIDEMARK_ORDERED_SUFFIX and TIDEMARK_LATE_SUFFIX"
}
