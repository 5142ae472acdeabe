package preflight

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/tidemarkhq/tidemark/emit/scan"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// A GROUP THAT HAS PUT OUT RECORDS, AND OUTPUTS THAT DO NOT HOLD THEM
//
//	ordered   late      what is done
//	missing   missing   refused, if still so after unknownPatience: a run would go on behind
//	                    what came out, and the new outputs would lack it for good. The names
//	                    were changed and the group was not, or both topics were deleted.
//	missing   there     warned of: somebody has deleted the ordered output, and it is
//	                    created again, or only its suffix was changed
//	empty     empty     warned of: created by hand under new names, or again after the above
//
// Retention does not make an output empty: its log goes on at the offset it had.

// elsewhere is the warning of an output that lacks what the group has put out.
const elsewhere = "an output lacks the records that the group has put out; they are not put out again"

// emptied refuses outputs, or warns of them, that lack what the group has put out.
func (r *round) emptied(ctx context.Context, src, ordered, late *view) error {
	neither := ordered.missing() && late.missing()
	asking := ctx
	if !neither { // it is only warned of, and whoever does not answer now is waited for later
		delete(r.unknown, src.name)
		if r.warned >= warnPatience {
			return nil
		}
		began := time.Now()
		defer func() { r.warned += time.Since(began) }()
		var cancel context.CancelFunc
		asking, cancel = context.WithTimeout(ctx, warnPatience-r.warned)
		defer cancel()
	}
	n, at, err := r.lacking(asking, src, ordered, late)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case neither && err != nil:
		return err
	case err != nil || n < 0:
		return nil
	}
	const begun = "for new outputs take a new TIDEMARK_GROUP, which begins at TIDEMARK_START; to have everything come out again with this group: `tidemark position new-epoch --all --from earliest`"
	if !neither {
		r.reporter.WarnOnce(ordered.name, elsewhere, "topic", ordered.name, "group", r.cfg.Group, "partition", n, "committed_offset", at,
			"hint", "was it deleted, or TIDEMARK_ORDERED_SUFFIX changed? Set the suffix that it had; "+begun+" (docs/starting-over.md)")
		return nil
	}
	since, ok := r.unknown[src.name]
	if !ok {
		since = time.Now()
		r.unknown[src.name] = since
	}
	if time.Since(since) < unknownPatience {
		return fmt.Errorf("look up the %s and the %s: %w", ordered, late, errUnknown)
	}
	r.fault(fmt.Errorf("go on with %s: group %q stands at offset %d of partition %d and has put out records before it, but %s and %s do not exist", src.name, r.cfg.Group, at, n, ordered.name, late.name),
		"were TIDEMARK_ORDERED_SUFFIX and TIDEMARK_LATE_SUFFIX changed? Set those that it had, or, "+begun+"; to go on from where it stands, without them: `tidemark position new-epoch --all` (docs/starting-over.md)")
	return nil
}

// warnPatience is how long it may take to find out what is only warned of, for all topics
// together.
const warnPatience = 2 * time.Second

// unknownPatience is how long brokers may not know outputs that are there: one has just
// started, or another instance has made them since they were looked up.
const unknownPatience = 2 * time.Second

// errUnknown says that a broker does not know outputs that records have come out to.
var errUnknown = fmt.Errorf("the group has put out records, and they do not exist: %w", errUnsettled)

// lacking returns the first partition whose outputs lack records that the group has put
// out, and the offset it stands at; -1: there is none.
func (r *round) lacking(ctx context.Context, src, ordered, late *view) (n int32, at int64, err error) {
	empty := func(int32) bool { return true }
	if !ordered.missing() {
		if empty, err = r.emptyPartitions(ctx, ordered, late); err != nil || empty == nil {
			return -1, 0, err
		}
	}
	commits, err := r.commits(ctx, src)
	if err != nil {
		return -1, 0, err
	}
	var starts kadm.ListedOffsets // asked for once, if at all
	again := false                // it was asked again, after the commits, what is empty
	for n := range src.partitions() {
		c, ok := commits.Lookup(src.name, n)
		if !ok || c.Err != nil || c.At < 0 || !empty(n) {
			continue
		}
		scope := reorder.Scope{Group: r.cfg.Group, TopicID: src.ID, Partition: n, Fingerprint: r.extract.Fingerprint()}
		snap, err := reorder.Decode(c.Metadata, c.At, c.LeaderEpoch, scope)
		if err != nil && !errors.Is(err, reorder.ErrFingerprint) {
			continue // taking it up says what is wrong with it
		}
		out, err := r.putOut(ctx, src.name, n, &snap, &starts)
		if err != nil {
			return -1, 0, err
		}
		if out && !ordered.missing() && !again {
			// Another instance may have put out and committed the first between the answers.
			if empty, err = r.emptyPartitions(ctx, ordered, late); err != nil || empty == nil {
				return -1, 0, err
			}
			again = true
		}
		if out && empty(n) {
			return n, c.At, nil
		}
	}
	return -1, 0, nil
}

// emptyPartitions returns what tells the partitions of which no output has ever held a
// record, and nil if there are none.
func (r *round) emptyPartitions(ctx context.Context, outputs ...*view) (func(int32) bool, error) {
	var there []string
	for _, out := range outputs {
		if !out.missing() {
			there = append(there, out.name)
		}
	}
	ends, err := r.adm.ListEndOffsets(ctx, there...)
	if err != nil && !errors.As(err, new(*kadm.ShardErrors)) {
		return nil, err
	}
	empty, any := map[int32]int{}, false
	ends.Each(func(o kadm.ListedOffset) {
		if o.Err == nil && o.Offset == 0 {
			empty[o.Partition]++
			any = any || empty[o.Partition] == len(there)
		}
	})
	if !any {
		return nil, nil
	}
	return func(n int32) bool { return empty[n] == len(there) }, nil
}

// commits fetches what the group has committed for a source, from a coordinator that may
// have to be waited for.
func (r *round) commits(ctx context.Context, src *view) (kadm.OffsetResponses, error) {
	defer r.reporter.Waits.Begin(fault.GroupWait(r.tools, "committed offsets, to see whether the group has put out records", commitsPatience))()
	pause := fault.Backoff{First: 250 * time.Millisecond, Longest: time.Second}
	for {
		commits, err := r.adm.FetchOffsetsForTopics(ctx, r.cfg.Group, src.name)
		if err == nil {
			return commits, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !Transient(err) {
			return nil, nil // since Kafka 4.0 there may be no such group; taking partitions up says what else is wrong
		}
		r.reporter.Waits.Answered(err)
		if c := fault.Classify(err); c == fault.Broker { // others have been counted
			r.reporter.Count(c, err)
		}
		if err := pause.Wait(ctx); err != nil {
			return nil, err
		}
	}
}

// commitsPatience is how long a coordinator may take before that is reported.
const commitsPatience = 5 * time.Second

// putOut reports whether records have certainly come out between a partition's origin and
// its commit. Offsets alone do not say so: there are control records, aborted transactions,
// and holes.
func (r *round) putOut(ctx context.Context, topic string, n int32, s *reorder.Snapshot, starts *kadm.ListedOffsets) (bool, error) {
	switch {
	case s.Next == s.Origin, s.Count > 0 && s.Low <= s.Origin:
		return false, nil // nothing is below the lowest that is held
	case s.Count == 0 && s.Max != watermark.None:
		return true, nil // one had an event time, and none is held
	}
	// What is below the lowest that is held has come out, if there are records.
	if *starts == nil {
		found, err := r.adm.ListStartOffsets(ctx, topic)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != nil && !errors.As(err, new(*kadm.ShardErrors)) {
			found = kadm.ListedOffsets{} // nobody knows
		}
		*starts = found
	}
	o, ok := starts.Lookup(topic, n)
	if !ok || o.Err != nil || max(s.Origin, o.Offset) >= s.Low {
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
