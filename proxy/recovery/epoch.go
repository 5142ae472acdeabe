package recovery

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/emit/scan"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// A new epoch is to be above all that consumers may remember: what is not above the
// last they saw, they drop as a repeat. Where a commit says which epoch was the last,
// it is one above that. Where none does, it is one above the highest of the last
// records of both outputs that say theirs; and if there are records of an output that
// are gone, or say nothing, it is the Unix time in seconds at the least. That is above
// any number reached by counting, and above any such time before it.

// past is what the outputs of a partition show of the runs before.
type past struct {
	any   bool   // there was a record, or a transaction
	epoch uint32 // the highest of the last records that say theirs
	// silent says that epochs may have been higher: of an output that was written to
	// no record that is left says its epoch.
	silent bool
}

// next returns the epoch after those that were, now.
func (w past) next(now time.Time) uint32 {
	next := int64(w.epoch) + 1
	if w.silent {
		next = max(next, now.Unix())
	}
	return uint32(min(next, math.MaxUint32))
}

// EpochAfter returns the number of an epoch that begins now. committed: a commit says that
// the last one was before, and it knows best.
func (l *Loader) EpochAfter(ctx context.Context, src emit.Source, committed bool, before uint32) (uint32, error) {
	w := past{epoch: before, any: committed}
	for _, topic := range []string{src.Ordered, src.Late} {
		if src.Partition >= l.Admin.Topics[src.Topic].Usable {
			continue // it has no such partition yet
		}
		_, end, err := Bounds(ctx, topic, src.Partition, l.Admin.Kadm.ListStartOffsets, l.Admin.Kadm.ListEndOffsets)
		if err != nil {
			return 0, err
		}
		if end.Offset == 0 {
			continue
		}
		epoch, silent, err := l.LastEpoch(ctx, topic, src.Partition)
		if err != nil {
			return 0, err
		}
		w.any, w.epoch, w.silent = true, max(w.epoch, epoch), w.silent || silent && !committed
	}
	if !w.any {
		return 0, nil
	}
	return w.next(l.WallClock()), nil
}

// outputs looks at the outputs of a partition, at their records only if a new epoch
// may begin.
func (l *Loader) outputs(ctx context.Context, p *Resumption) (w past, err error) {
	ends, err := l.listed.once(ctx, "end", l.Admin.Kadm.ListEndOffsets, p.Ordered, p.Late)
	for _, topic := range []string{p.Ordered, p.Late} {
		var end kadm.ListedOffset
		if _, ok := ends.Lookup(topic, p.Partition); !ok && p.Partition >= l.Admin.Topics[p.Topic].Usable {
			continue // it has no such partition yet
		}
		if err == nil {
			end, err = ends.of(topic, p.Partition)
		}
		if err != nil {
			return w, fmt.Errorf("find the ends of %s and %s: %w", p.Ordered, p.Late, err)
		}
		w.any = w.any || end.Offset > 0
	}
	if !w.any || l.Admin.Config.OnReset != config.ResetBeginsEpoch {
		return w, nil
	}
	for _, topic := range []string{p.Ordered, p.Late} {
		epoch, silent, err := l.LastEpoch(ctx, topic, p.Partition)
		if errors.Is(err, kerr.TopicAuthorizationFailed) {
			return w, fault.Usage(fmt.Errorf("read the last record of %s, to continue from its epoch: not allowed to READ it: %w", topic, err),
				"allow it: "+fault.CommandsFor(l.Admin.Config).Allow("--topic", topic, kadm.OpRead))
		}
		if err != nil {
			return w, fmt.Errorf("read the last record of %s partition %d: %w", topic, p.Partition, err)
		}
		w.epoch, w.silent = max(w.epoch, epoch), w.silent || silent
	}
	return w, nil
}

// How far back the last epoch is looked for: offsets, and bytes of records. It is as
// far as markers, aborted records and large records without our headers may follow it
// in all likelihood; beyond, time says which epoch is new.
const (
	epochOffsets = 1 << 16
	epochBytes   = 32 << 20
)

// LastEpoch returns the epoch of the last committed record of an output partition
// that says its own; silent, if there is none and records are gone that may have said
// so. It looks at ever longer ends of the log. What comes behind the record found and
// says nothing may be of a later epoch, but nobody was told of that one.
func (l *Loader) LastEpoch(ctx context.Context, topic string, n int32) (epoch uint32, silent bool, err error) {
	start, end, err := Bounds(ctx, topic, n, l.Admin.Kadm.ListStartOffsets, l.Admin.Kadm.ListCommittedOffsets)
	if err != nil {
		return 0, false, err
	}
	for back := int64(16); ; back *= 8 {
		from := max(start.Offset, end.Offset-min(back, epochOffsets))
		look, err := l.epochsBetween(ctx, topic, n, from, end.Offset)
		switch {
		case err != nil:
			return 0, false, err
		case look.cut:
			return look.epoch, true, nil // those not looked at may be of a later one
		case look.said:
			return look.epoch, false, nil
		case from == 0:
			return 0, false, nil // nobody was ever told of another than 0
		case from == start.Offset, back >= epochOffsets:
			return 0, true, nil
		}
	}
}

// Bounds asks where a partition begins and ends.
func Bounds(ctx context.Context, topic string, n int32, askStart, askEnd Lister) (start, end kadm.ListedOffset, err error) {
	for _, ask := range []struct {
		Lister
		into *kadm.ListedOffset
	}{{askStart, &start}, {askEnd, &end}} {
		all, err := askAll(ctx, ask.Lister, topic)
		if err == nil {
			*ask.into, err = all.of(topic, n)
		}
		if err != nil {
			return start, end, err
		}
	}
	return start, end, nil
}

// epochLook is what committed records say of their epochs.
type epochLook struct {
	said  bool   // one says its own,
	epoch uint32 // of which this is the highest
	cut   bool   // there was too much to look at all of it
}

func (l *Loader) epochsBetween(ctx context.Context, topic string, n int32, from, to int64) (look epochLook, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	size := 0
	// Not as a consumer, which does not tell that offsets have no records.
	for r, err := range scan.Read(ctx, l.Admin.Client, scan.Stretch{Topic: topic, Partition: n, Start: from, End: to}) {
		if err != nil {
			return look, err
		}
		if epoch, ok := emit.Epoch(r, l.Admin.Config.HeaderPrefix); ok {
			look.said, look.epoch = true, max(look.epoch, epoch)
		}
		if size += emit.WireSize(r); size > epochBytes {
			look.cut = true
			break
		}
	}
	return look, nil
}
