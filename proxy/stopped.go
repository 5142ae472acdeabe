package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// A partition may have to stop while the others go on: the record that it owes
// next does not fit into the output or is refused for good, the output partition takes
// nothing (see refusals.go), the outputs have no such partition yet, or a schema is not
// known (see schemas.go).
// It stays ours, so that nobody else runs into the same; it is not read, and
// from time to time it is tried again.

// place is a record that brokers do not take: it does not fit, or is refused for good.
type place struct {
	late   bool // into the late topic
	held   bool // it had been judged, and was on its way out
	offset int64
	err    error
	again  bool // it is to be tried again

	keyless bool // it has no key
}

// retryStopped is how often a stopped partition is tried again.
const retryStopped = 30 * time.Second

// retryAway is how often one that waits for a leader is tried again, at the most. The
// watcher asks meanwhile: the loop would have to wait for the answer.
const retryAway = time.Second

// tooEarly reports whether a partition is not to be tried again yet.
func (s *session) tooEarly(src emit.Source, tried watermark.Instant) bool {
	if s.reasons[src].away {
		return s.now().Sub(tried) < retryAway || !s.watcher.answered(tried, leadersOf(src)...)
	}
	return s.now().Sub(tried) < retryStopped
}

// leadersOf returns the partitions whose leaders have to answer before one can begin.
func leadersOf(src emit.Source) []topicPartition {
	return []topicPartition{{src.Topic, src.Partition}, {src.Ordered, src.Partition}, {src.Late, src.Partition}}
}

// awaitLeader has a partition wait that could not be taken up: its leader, or that of
// its outputs, is away. Nothing is committed for it. The others begin.
func (s *session) awaitLeader(p *partition, why error) {
	s.setAside(p, standing{state: status.Stopped, away: true, why: why.Error(), hint: "see whether brokers are away; it is taken up as soon as they answer"})
	s.reporter.Report(fmt.Sprint(p.Topic, p.Partition), slog.LevelWarn, "a partition cannot be taken up yet; it is as soon as all leaders answer", why,
		"topic", p.Topic, "partition", p.Partition)
}

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

// atStuck is called before a record is put out or judged, where its partition
// may be stuck at it.
func (s *session) atStuck(ctx context.Context, p *partition, held bool, offset int64) error {
	at, ok := s.stuck[p.Source]
	switch {
	case !ok || at.held != held || at.offset != offset:
		return nil
	case at.again:
		// If it is refused again, nothing else is undone with it.
		delete(s.stuck, p.Source)
		s.suspects[p.Source] = &suspect{left: 1, alone: true}
		return s.commit(ctx)
	}
	return s.halt(ctx, p, at)
}

// halt stops a partition before the record that does not fit. What came before
// it is committed.
func (s *session) halt(ctx context.Context, p *partition, at place) error {
	if err := s.commit(ctx); err != nil {
		return err
	}
	h := s.refusalAt(p, at)
	s.standStill(p, h.why, h.hint)
	return errStopped
}

// swollen stops a partition before a batch that would fill the memory.
func (s *session) swollen(ctx context.Context, p *partition, err error) error {
	s.stalled = true
	if err := s.commit(ctx); err != nil {
		return err
	}
	hint := "give it more memory: raise TIDEMARK_MEMORY, or the limit of the container"
	if inflated(int64(s.cfg.Memory)) == mostInflated {
		hint = "have the producers write smaller batches"
	}
	s.standStill(p, err, hint)
	return errStopped
}

// standStill keeps a partition that has nothing uncommitted from being read.
func (s *session) standStill(p *partition, why error, hint string) {
	state := status.Stopped
	if errors.Is(why, errFew) {
		state = status.WaitingForOutputs
	}
	s.setAside(p, standing{state: state, why: why.Error(), hint: hint})
	s.reporter.Error(fmt.Sprint(p.Topic, p.Partition), "a partition stands still; it is tried again every "+retryStopped.String(), why,
		"topic", p.Topic, "partition", p.Partition, "hint", hint)
}

// standing is why a partition stands still, and how it stood when it was stopped.
type standing struct {
	state     status.PartitionState
	why, hint string
	last      reorder.Status
	committed int64
	away      bool // a leader is
	extent
}

func (s *session) setAside(p *partition, why standing) {
	why.last.Watermark, why.last.Newest, why.last.Next = watermark.None, watermark.None, p.committed
	if p.state != nil {
		why.last = p.state.Status()
	}
	why.committed, why.extent = p.committed, p.extent
	s.reasons[p.Source] = why
	s.remove(p.Topic, p.Partition)
	s.stopped[p.Source] = s.now()
	s.cl.PauseFetchPartitions(map[string][]int32{p.Topic: {p.Partition}})
}

// standsStill reports whether a partition of ours does.
func (s *session) standsStill(topic string, n int32) bool {
	if len(s.stopped) == 0 {
		return false
	}
	_, still := s.stopped[s.source(topic, n)]
	return still
}

// tryStopped takes up again the partitions that stood still for long enough.
func (s *session) tryStopped(ctx context.Context) error {
	if len(s.stopped) == 0 {
		return nil
	}
	again, waiting := map[string][]int32{}, map[string]int32{}
	var shut []emit.Source
	for src, tried := range s.stopped {
		out, isShut := s.shut[src]
		switch {
		case isShut:
			if since := s.now().Sub(tried); since >= retryStopped || out.visible && since >= retryShut {
				shut = append(shut, src)
			}
		case s.tooEarly(src, tried), s.waitsForSchema(src):
		case src.Partition < s.topics[src.Topic].Usable:
			again[src.Topic] = append(again[src.Topic], src.Partition)
			if at, ok := s.stuck[src]; ok {
				at.again = true
				s.stuck[src] = at
			}
		default:
			s.stopped[src] = s.now()
			waiting[src.Topic] = max(waiting[src.Topic], src.Partition+1)
		}
	}
	for _, src := range s.open(ctx, shut) {
		s.suspects[src] = &suspect{left: 1, alone: true, shut: s.shut[src].err}
		delete(s.shut, src)
		again[src.Topic] = append(again[src.Topic], src.Partition)
	}
	for topic, partitions := range waiting {
		if err := s.outputsGrown(ctx, s.topics[topic], partitions); err != nil {
			return err
		}
	}
	if len(again) == 0 {
		return nil
	}
	if err := s.commit(ctx); err != nil {
		return err
	}
	return s.takeAgain(again)
}

// outputsGrown returns errTopology when the outputs of a topic have got more
// partitions than they had.
func (s *session) outputsGrown(ctx context.Context, t preflight.Topic, wanted int32) error {
	const patience = time.Second // the loop waits
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	listed, err := s.adm.ListTopics(ctx, t.Ordered, t.Late)
	if err == nil {
		err = listed.Error()
	}
	if err == nil && min(len(listed[t.Ordered].Partitions), len(listed[t.Late].Partitions)) > int(t.Usable) {
		return fmt.Errorf("the outputs of %s have grown: %w", t.Name, errTopology)
	}
	s.reporter.Error(t.Name, "partitions wait for their outputs", cmp.Or(err, errFew), "topic", t.Name, "missing_partitions", wanted-t.Usable,
		"hint", s.growThem(t))
	return nil
}

func (s *session) growThem(t preflight.Topic) string {
	tools := fault.CommandsFor(s.cfg)
	return "grow them: " + tools.Grow(t.Ordered, t.Partitions) + "; " + tools.Grow(t.Late, t.Partitions)
}

// await has a partition wait for its outputs. Where it begins is committed all
// the same: what is written to it meanwhile is not to be skipped.
func (s *session) await(p *partition) {
	s.standStill(p, errFew, s.growThem(s.topics[p.Topic]))
}

var errFew = fault.NewError(fault.Broker, "its outputs have too few partitions")
