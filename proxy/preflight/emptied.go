package preflight

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/tidemarkhq/tidemark/emit/scan"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// A GROUP THAT HAS PUT OUT RECORDS, AND OUTPUTS THAT DO NOT HOLD THEM
//
//	ordered   late      what is done
//	missing   missing   refused: a run would go on behind what came out, and the new
//	                    outputs would lack it for good. The names were changed and the
//	                    group was not, or both topics were deleted.
//	missing   there     warned of: somebody has deleted the ordered output, and it is
//	                    created again, or only its suffix was changed
//	empty     empty     warned of: created by hand under new names, or again after the above
//
// Retention does not make an output empty: its log goes on at the offset it had.

// elsewhere is the warning of an output that lacks what the group has put out.
const elsewhere = "an output lacks the records that the group has put out; they are not put out again"

// emptied refuses outputs, or warns of them, that lack what the group has put out.
func (r *round) emptied(ctx context.Context, src, ordered, late *view) error {
	lacking, err := r.holdNothing(ctx, ordered, late)
	if err != nil || lacking == nil {
		return err
	}
	n, at, err := r.cameOut(ctx, src, lacking)
	if err != nil || n < 0 {
		return err
	}
	const begun = "for new outputs take a new TIDEMARK_GROUP, which begins at TIDEMARK_START; to have everything come out again with this group: `tidemark position new-epoch --all --from earliest`"
	if !ordered.missing() || !late.missing() {
		r.reporter.WarnOnce(ordered.name, elsewhere, "topic", ordered.name, "group", r.cfg.Group, "partition", n, "committed_offset", at,
			"hint", "was it deleted, or TIDEMARK_ORDERED_SUFFIX changed? Set the suffix that it had; "+begun+" (docs/starting-over.md)")
		return nil
	}
	r.fault(fmt.Errorf("go on with %s: group %q stands at offset %d of partition %d and has put out records before it, but %s and %s do not exist", src.name, r.cfg.Group, at, n, ordered.name, late.name),
		"were TIDEMARK_ORDERED_SUFFIX and TIDEMARK_LATE_SUFFIX changed? Set those that it had, or, "+begun+"; to go on from where it stands, without them: `tidemark position new-epoch --all` (docs/starting-over.md)")
	return nil
}

// holdNothing returns what tells the partitions of which no output has ever held a record
// while the ordered one exists, or all where it does not; nil, if there are none or nobody
// can say.
func (r *round) holdNothing(ctx context.Context, ordered, late *view) (func(int32) bool, error) {
	var asked []string
	switch {
	case ordered.denied || late.denied:
		return nil, nil
	case ordered.missing():
		return func(int32) bool { return true }, nil
	case late.missing():
		asked = []string{ordered.name}
	default:
		asked = []string{ordered.name, late.name}
	}
	ends, err := r.adm.ListEndOffsets(ctx, asked...)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil && !errors.As(err, new(*kadm.ShardErrors)) {
		return nil, nil // it only warns, and whoever needs them asks again
	}
	empty := map[int32]int{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Err == nil && o.Offset == 0 {
			empty[o.Partition]++
		}
	})
	for n, in := range empty {
		if in < len(asked) {
			delete(empty, n)
		}
	}
	if len(empty) == 0 {
		return nil, nil
	}
	return func(n int32) bool { return empty[n] > 0 }, nil
}

// cameOut returns the first of the partitions that lack records of which the group has
// certainly put out some, and the offset it stands at; -1: there is none.
func (r *round) cameOut(ctx context.Context, src *view, lacking func(int32) bool) (n int32, at int64, err error) {
	commits, err := r.adm.FetchOffsetsForTopics(ctx, r.cfg.Group, src.name)
	switch {
	case err != nil && Transient(err):
		return -1, 0, fmt.Errorf("fetch the offsets of group %q: %w", r.cfg.Group, err)
	case err != nil:
		return -1, 0, nil // since Kafka 4.0 there may be no such group; taking partitions up says what else is wrong
	}
	for n := range src.partitions() {
		c, ok := commits.Lookup(src.name, n)
		if !ok || c.Err != nil || c.At < 0 || !lacking(n) {
			continue
		}
		scope := reorder.Scope{Group: r.cfg.Group, TopicID: src.ID, Partition: n, Fingerprint: r.extract.Fingerprint()}
		snap, err := reorder.Decode(c.Metadata, c.At, c.LeaderEpoch, scope)
		if err != nil && !errors.Is(err, reorder.ErrFingerprint) {
			continue // taking it up says what is wrong with it
		}
		if out, err := r.putOut(ctx, src.name, n, &snap); err != nil || out {
			return n, c.At, err
		}
	}
	return -1, 0, nil
}

// putOut reports whether records have certainly come out between a partition's origin and
// its commit. Offsets alone do not say so: there are control records, aborted transactions,
// and holes.
func (r *round) putOut(ctx context.Context, topic string, n int32, s *reorder.Snapshot) (bool, error) {
	switch {
	case s.Next == s.Origin:
		return false, nil
	case s.Count == 0 && s.Max != watermark.None:
		return true, nil // one had an event time, and none is held
	}
	// What is below the lowest that is held has come out, if there are records.
	start, err := r.adm.ListStartOffsets(ctx, topic)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	o, ok := start.Lookup(topic, n)
	if err != nil && !ok || o.Err != nil || max(s.Origin, o.Offset) >= s.Low {
		return false, nil
	}
	reading, cancel := context.WithTimeout(ctx, readPatience)
	defer cancel()
	for _, err := range scan.Read(reading, r.reader, scan.Stretch{Topic: topic, Partition: n, Start: max(s.Origin, o.Offset), End: s.Low}) {
		return err == nil, ctx.Err()
	}
	return false, ctx.Err()
}

// readPatience is how long it may take to find one record of a source.
const readPatience = 5 * time.Second
