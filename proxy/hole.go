package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

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

// holePatience is for how long a position stands below the end of the log, with no
// record coming, before the leader is asked what is there, and how often it is asked then.
const holePatience = time.Second

// mostLooks is how many of these questions are under way at a time.
const mostLooks = 4

// hole is a stretch of offsets without a record.
type hole struct {
	from, to int64
	asked    watermark.Instant
}

// holeAt returns the position at which a partition may be before a hole, -1 if it is not.
func (s *session) holeAt(p *partition) int64 {
	at := p.state.Position()
	if p.stable <= at || p.paused || p.state.Waits() || s.now().Sub(max(p.heard, p.since)) < holePatience {
		return -1
	}
	return at
}

// passHole goes on behind a hole that has been proven, if the question was asked after
// the last records had come, and after the partition was last read from elsewhere: after
// a truncation there may be records where there were none.
func (s *session) passHole(ctx context.Context, p *partition) error {
	at, hole := p.state.Position(), p.ends.hole
	if at < hole.from || at >= hole.to || hole.asked < max(p.heard, p.since, p.sought) || p.state.Due() || p.state.Waits() {
		return nil
	}
	s.log.Info("the log has offsets without records; going on behind them", "topic", p.Topic, "partition", p.Partition, "offset", at, "next_offset", hole.to)
	p.state.Skip(hole.to, -1)
	return s.endReplay(ctx, p, hole.to)
}

// lookForHoles asks what is where positions stand still. It is called with the lock.
func (w *watcher) lookForHoles(ctx context.Context, parts []wantedEnd) {
	for _, part := range parts {
		p := w.parts[part.topicPartition]
		if p == nil || part.at < 0 || p.stable <= part.at || w.looks >= mostLooks || time.Since(p.looked) < holePatience {
			continue
		}
		p.looked = time.Now()
		w.looks++
		leader, epoch, id := p.leader, p.known, p.topicID
		w.asking.Go(func() {
			found, err := w.look(ctx, leader, epoch, id, part)
			w.mu.Lock()
			defer w.mu.Unlock()
			w.looks--
			if p := w.parts[part.topicPartition]; p != nil && err == nil && found.to > found.from {
				p.hole = found
				w.fresh.Store(true)
			}
			if err != nil && ctx.Err() == nil {
				w.reporter.Warn("cannot ask what is at a position where no record comes; asking again", err, "topic", part.topic, "partition", part.n, "offset", part.at)
			}
		})
	}
}

// look asks the leader of a partition for the records at a position, and returns the
// stretch from there on in which there are none.
func (w *watcher) look(ctx context.Context, leader, epoch int32, id [16]byte, part wantedEnd) (hole, error) {
	none := hole{part.at, part.at, w.now()}
	ask := scan.Fetch{
		Topic: part.topic, TopicID: id, Partition: part.n, Offset: part.at, LeaderEpoch: epoch,
		Bytes: holeBytes, Control: true,
	}
	asking, cancel := context.WithTimeout(ctx, holePatience)
	defer cancel()
	got, err := ask.From(asking, w.cl.Broker(int(leader)), w.unzip)
	next := got.Next
	var other *scan.AnswerError
	switch {
	case errors.As(err, &other):
		return none, fmt.Errorf("%w: it is about %d topics", fault.ErrBadAnswer, other.Topics)
	case err != nil:
		return none, err
	case got.PreferredReplica >= 0:
		return none, errors.New("the leader wants another replica to be asked")
	case len(got.Records) > 0:
		return none, nil // they are on their way to us
	case len(got.Batches) == 0:
		// A broker sends a batch, whatever its size, if there is one below the
		// last stable offset and on its own disk.
		if local, err := w.isLocal(asking, leader, epoch, part); !local || err != nil {
			return none, err
		}
		next = got.Stable
	}
	return hole{part.at, max(next, part.at), none.asked}, nil
}

// isLocal reports whether the leader itself has the log from a position on. Of what is in
// remote storage (KIP-405) it answers a fetch with nothing, and without an error, when
// that storage is slow. Where its own log begins only moves up, so one that begins below
// the position now did so when the fetch was answered.
func (w *watcher) isLocal(ctx context.Context, leader, epoch int32, part wantedEnd) (bool, error) {
	const earliestLocal = -4 // brokers that do not know it have nothing elsewhere
	part.epoch = epoch
	at, err := w.listAt(ctx, leader, []wantedEnd{part}, 0, earliestLocal)
	first := at[part.topicPartition]
	switch err = cmp.Or(err, first.err); {
	case errors.Is(err, kerr.UnsupportedVersion):
		return true, nil
	case err != nil:
		return false, err
	}
	return first.offset <= part.at, nil
}

// holeBytes is how much a broker may send, if it is more than one batch.
const holeBytes = 16 << 10
