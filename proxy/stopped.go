package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/watermark"
)

// A partition may have to stop while the others go on: the record that it owes
// next does not fit into the output, or the outputs have no such partition yet.
// It stays ours, so that nobody else runs into the same; it is not read, and
// from time to time it is tried again.

// place is a record that does not fit.
type place struct {
	late   bool // into the late topic
	offset int64
}

// stopped is a partition that is ours and stands still.
type stopped struct {
	since watermark.Instant // of the last attempt
	why   string
}

// retryStopped is how often a stopped partition is tried again.
const retryStopped = 30 * time.Second

// errStopped says that a partition has been stopped: what was to be done with it
// is not to be gone on with, and all else is.
var errStopped = errors.New("partition stopped")

// goneOn returns nil for errStopped.
func goneOn(err error) error {
	if errors.Is(err, errStopped) {
		return nil
	}
	return err
}

// stuckAt reports whether a record is the one at which its partition has to
// stop. It is called for every record, and nearly always there is none.
func (s *session) stuckAt(p *partition, late bool, offset int64) bool {
	if len(s.stuck) == 0 {
		return false
	}
	at, ok := s.stuck[p.Source]
	return ok && at == place{late, offset}
}

// dueStuck reports whether the record that is to come out next is that one.
func (s *session) dueStuck(p *partition) bool {
	if len(s.stuck) == 0 {
		return false
	}
	at, due := p.state.Peek()
	return due && s.stuckAt(p, false, at.Offset)
}

// halt stops a partition before the record that does not fit. What came before
// it is committed.
func (s *session) halt(ctx context.Context, p *partition) error {
	if err := s.commit(ctx); err != nil {
		return err
	}
	topic := p.Ordered
	if s.stuck[p.Source].late {
		topic = p.Late
	}
	why := fmt.Sprintf("the record at offset %d is too large for %s, even bare", s.stuck[p.Source].offset, topic)
	s.remove(p.Topic, p.Partition)
	s.standStill(p.Source, why)
	s.log.Error("partition stopped: "+why+"; it is tried again every "+retryStopped.String(),
		"topic", p.Topic, "partition", p.Partition, "class", "record",
		"hint", "raise its limit: "+tools{s.cfg}.set(topic, maxMessageBytes, "BYTES"))
	return errStopped
}

// standStill keeps a partition from being read.
func (s *session) standStill(src emit.Source, why string) {
	s.stopped[src] = stopped{s.now(), why}
	s.cl.PauseFetchPartitions(map[string][]int32{src.Topic: {src.Partition}})
}

// tryStopped takes up again the partitions that stood still for long enough.
func (s *session) tryStopped(ctx context.Context) error {
	if len(s.stopped) == 0 {
		return nil
	}
	again := map[string][]int32{}
	for src, st := range s.stopped {
		if s.now().Sub(st.since) < retryStopped {
			continue
		}
		if src.Partition >= s.topics[src.Topic].Usable {
			if err := s.outputsGrown(ctx, src); err != nil {
				return err
			}
			s.stopped[src] = stopped{s.now(), st.why}
			continue
		}
		delete(s.stuck, src)
		again[src.Topic] = append(again[src.Topic], src.Partition)
	}
	if len(again) == 0 {
		return nil
	}
	if err := s.commit(ctx); err != nil {
		return err
	}
	return s.takeAgain(ctx, again)
}

// outputsGrown returns errTopology when a partition that waited for its outputs
// has them.
func (s *session) outputsGrown(ctx context.Context, src emit.Source) error {
	listed, err := s.adm.ListTopics(ctx, src.Ordered, src.Late)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil // asked again soon
	}
	for _, out := range []string{src.Ordered, src.Late} {
		if int(src.Partition) >= len(listed[out].Partitions) {
			s.log.Error("partition waits: "+out+" has too few partitions", "topic", src.Topic, "partition", src.Partition, "class", "broker",
				"hint", "grow it: "+tools{s.cfg}.grow(out, s.topics[src.Topic].Partitions))
			return nil
		}
	}
	return fmt.Errorf("the outputs of %s have grown: %w", src.Topic, errTopology)
}

// await has a partition wait for its outputs. Where it begins is committed all
// the same: what is written to it meanwhile is not to be skipped.
func (s *session) await(p *partition) {
	s.log.Error("partition waits for its outputs to have as many partitions as the source; the others go on", "topic", p.Topic, "partition", p.Partition)
	s.standStill(p.Source, "its outputs have too few partitions")
}
