package group

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidemarkhq/tidemark/emit/scan"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/watermark"
)

// A log may end in offsets without records: what compaction leaves of a batch, or
// nothing at all below the high watermark. The client passes over them and does not say
// so: the position that we know is behind the last record. Then nothing ever shows that
// all has been read. So where a position stays below the last stable offset, the watcher
// asks the leader what is there, with a fetch of its own. Its answer is the proof:
// there is no record in [from, to). docs/design/idleness.md has the argument.

// HolePatience is for how long a position stands below the end of the log, with no
// record coming, before the leader is asked what is there, and how often it is asked then.
const HolePatience = time.Second

// mostLooks is how many of these questions are under way at a time.
const mostLooks = 4

// Hole is a stretch of offsets without a record.
type Hole struct {
	From, To int64
	Asked    watermark.Instant
}

// lookForHoles asks what is where positions stand still. It is called with the lock.
func (w *Watcher) lookForHoles(ctx context.Context, parts []WantedEnd) {
	for _, part := range parts {
		p := w.parts[part.TopicPartition]
		if p == nil || part.At < 0 || p.Stable <= part.At || w.looks >= mostLooks || time.Since(p.looked) < HolePatience {
			continue
		}
		p.looked = time.Now()
		w.looks++
		leader, epoch, id := p.leader, p.known, p.topicID
		w.asking.Go(func() {
			found, err := w.Look(ctx, leader, epoch, id, part)
			w.mu.Lock()
			defer w.mu.Unlock()
			w.looks--
			if p := w.parts[part.TopicPartition]; p != nil && err == nil && found.To > found.From {
				p.Hole = found
				w.fresh.Store(true)
			}
			if err != nil && ctx.Err() == nil {
				w.reporter.Warn("cannot check whether the log has a hole; trying again", err, "topic", part.Topic, "partition", part.N, "offset", part.At)
			}
		})
	}
}

// Look asks the leader of a partition for the records at a position, and returns the
// stretch from there on in which there are none.
func (w *Watcher) Look(ctx context.Context, leader, epoch int32, id [16]byte, part WantedEnd) (Hole, error) {
	none := Hole{part.At, part.At, w.now()}
	ask := scan.Fetch{
		Topic: part.Topic, TopicID: id, Partition: part.N, Offset: part.At, LeaderEpoch: epoch,
		Bytes: holeBytes, Control: true,
	}
	asking, cancel := context.WithTimeout(ctx, HolePatience)
	defer cancel()
	got, err := ask.From(asking, w.Client.Broker(int(leader)), w.Decompress)
	next := got.Next
	var other *scan.AnswerError
	switch {
	case errors.As(err, &other):
		return none, fmt.Errorf("%w: it is about %d topics", fault.ErrBadAnswer, other.Topics)
	case err != nil:
		return none, err
	case got.PreferredReplica >= 0:
		return none, errors.New("the leader refers to another replica")
	case len(got.Records) > 0:
		return none, nil // they are on their way to us
	case len(got.Batches) == 0:
		// A broker sends a batch, whatever its size, if there is one below the
		// last stable offset and on its own disk.
		local, err := ask.Local(asking, w.Client.Broker(int(leader)))
		if errors.As(err, &other) {
			return none, fmt.Errorf("%w: it is about %d topics", fault.ErrBadAnswer, other.Topics)
		}
		if !local || err != nil {
			return none, err
		}
		next = got.Stable
	}
	return Hole{part.At, max(next, part.At), none.Asked}, nil
}

// holeBytes is how much a broker may send, if it is more than one batch.
const holeBytes = 16 << 10
