package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

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
	why   error
}

// retryStopped is how often a stopped partition is tried again.
const retryStopped = 30 * time.Second

// errStopped says that a partition has been stopped: what was to be done with it
// is not to be gone on with, and all else is.
var errStopped = errors.New("partition stopped")

// errSought says that a partition is to be read from elsewhere, with the same
// consequence.
var errSought = errors.New("partition read from elsewhere")

// goneOn returns nil for these two.
func goneOn(err error) error {
	if errors.Is(err, errStopped) || errors.Is(err, errSought) {
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
	err := fmt.Errorf("write the record at offset %d to %s: %w: %w", s.stuck[p.Source].offset, topic, errBare, kerr.MessageTooLarge)
	s.standStill(p, err, "raise the limit: "+tools{s.cfg}.set(topic, maxMessageBytes, "BYTES"))
	return errStopped
}

// swollen stops a partition before a batch that would fill the memory.
func (s *session) swollen(ctx context.Context, p *partition, err error) error {
	if err := s.commit(ctx); err != nil {
		return err
	}
	s.standStill(p, err, "give it more memory: raise TIDEMARK_MEMORY, or the limit of the container")
	return errStopped
}

// standStill keeps a partition that has nothing uncommitted from being read.
func (s *session) standStill(p *partition, why error, hint string) {
	s.remove(p.Topic, p.Partition)
	s.stopped[p.Source] = stopped{s.now(), why}
	s.cl.PauseFetchPartitions(map[string][]int32{p.Topic: {p.Partition}})
	s.alarm.cry("a partition stands still; it is tried again every "+retryStopped.String(), why,
		"topic", p.Topic, "partition", p.Partition, "hint", hint)
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
			s.alarm.cry("partitions wait for their outputs", st.why, "topic", src.Topic, "partition", src.Partition)
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
			return nil
		}
	}
	return fmt.Errorf("the outputs of %s have grown: %w", src.Topic, errTopology)
}

// await has a partition wait for its outputs. Where it begins is committed all
// the same: what is written to it meanwhile is not to be skipped.
func (s *session) await(p *partition) {
	t, many := tools{s.cfg}, s.topics[p.Topic].Partitions
	s.standStill(p, errFew, "grow them: "+t.grow(p.Ordered, many)+"; "+t.grow(p.Late, many))
}

var errFew = errors.New("its outputs have too few partitions")
