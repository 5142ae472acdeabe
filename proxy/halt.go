package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/pipeline"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/proxy/txn"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// A partition may have to be suspended while the others go on: the record that it owes next
// does not fit into the output or is refused for good, the output partition takes nothing
// (see package txn), the outputs have no such partition yet, a leader is away, or a schema
// is not known. It stays ours, so that nobody else runs into the same; it
// is not read, nothing of it is in memory, and from time to time it is tried again.

// suspension is why a partition is suspended, and how it stood then.
type suspension struct {
	state     status.PartitionState
	why, hint string
	last      reorder.Status
	committed int64
	away      bool             // a leader is
	schema    *pipeline.Wanted // that it waits for; nil: for something else
	group.Extent

	tried watermark.Instant // when it was suspended, or last tried again
}

// retrySuspended is how often a suspended partition is tried again.
const retrySuspended = 30 * time.Second

// retryAway is how often one that waits for a leader is tried again, at the most. The
// watcher asks meanwhile: the loop would have to wait for the answer.
const retryAway = time.Second

// retryClosed is how often it is asked whether an output partition is there again that
// brokers say is not.
const retryClosed = 2 * time.Second

// errSuspended says that a partition has been suspended: what was to be done with it is not
// to be gone on with, and all else is.
var errSuspended = errors.New("partition suspended")

// errSeek says that a partition is to be read from elsewhere, with the same consequence.
var errSeek = errors.New("partition read from elsewhere")

// ignoreHandled returns nil for these two.
func ignoreHandled(err error) error {
	if errors.Is(err, errSuspended) || errors.Is(err, errSeek) {
		return nil
	}
	return err
}

// suspend has a partition not be worked on. Nothing of it is uncommitted.
func (s *session) suspend(p *partition, why suspension) *suspension {
	why.last.Watermark, why.last.Newest, why.last.Next = watermark.None, watermark.None, p.committed
	if p.state != nil {
		why.last = p.state.Status()
	}
	why.committed, why.Extent, why.tried = p.committed, p.Extent, s.now()
	s.suspended[p.Source] = &why
	s.remove(p.Topic, p.Partition)
	s.cl.PauseFetchPartitions(map[string][]int32{p.Topic: {p.Partition}})
	return &why
}

// halt suspends a partition that somebody has to mend something for.
func (s *session) halt(p *partition, why error, hint string) *suspension {
	state := status.Stopped
	if errors.Is(why, errTooFewPartitions) {
		state = status.WaitingForOutputs
	}
	at := s.suspend(p, suspension{state: state, why: why.Error(), hint: hint})
	s.reportHalt(p.Source, why, hint)
	return at
}

func (s *session) reportHalt(src emit.Source, why error, hint string) {
	s.reporter.Error(fmt.Sprint(src.Topic, src.Partition), "a partition is suspended; trying it again every "+retrySuspended.String(), why,
		"topic", src.Topic, "partition", src.Partition, "hint", hint)
}

// isSuspended reports whether a partition of ours is.
func (s *session) isSuspended(topic string, n int32) bool {
	if len(s.suspended) == 0 {
		return false
	}
	return s.suspended[s.source(topic, n)] != nil
}

// awaitLeader suspends a partition that could not be taken up: its leader, or that of its
// outputs, is away. Nothing is committed for it. The others begin.
func (s *session) awaitLeader(p *partition, why error) {
	s.suspend(p, suspension{state: status.Stopped, away: true, why: why.Error(), hint: "check whether brokers are down; the partition starts as soon as they answer"})
	s.reporter.Report(fmt.Sprint(p.Topic, p.Partition), slog.LevelWarn, "cannot start a partition while a leader does not answer; it starts as soon as all of them do", why,
		"topic", p.Topic, "partition", p.Partition)
}

// awaitOutputs suspends a partition until its outputs have grown. Where it begins is
// committed all the same: what is written to it meanwhile is not to be skipped.
func (s *session) awaitOutputs(p *partition) {
	s.halt(p, errTooFewPartitions, s.growHint(s.topics[p.Topic]))
}

var errTooFewPartitions = fault.NewError(fault.Broker, "its outputs have too few partitions")

// haltAt suspends a partition that has come to a record which brokers refuse, unless that is
// to be tried again.
func (s *session) haltAt(ctx context.Context, p *partition) error {
	halt, again := s.writer.Halt(p.output)
	if err := s.checkpoint(ctx); err != nil || again {
		return err
	}
	s.halt(p, halt.Why, halt.Hint)
	return errSuspended
}

// tooLargeToRead suspends a partition before a batch that would fill the memory.
func (s *session) tooLargeToRead(ctx context.Context, p *partition, err error) error {
	s.unstick = true
	if err := s.checkpoint(ctx); err != nil {
		return err
	}
	hint := "give it more memory: raise TIDEMARK_MEMORY, or the limit of the container"
	if group.DecompressLimit(int64(s.cfg.Memory)) == group.MostDecompressed {
		hint = "have the producers write smaller batches"
	}
	s.halt(p, err, hint)
	return errSuspended
}

// drop suspends a partition of which only one thing is not committed: that it came to a
// record which was refused. Its state in memory is void, and nobody else's.
func (s *session) drop(r *txn.Refused) error {
	p := s.find(r.Source.Topic, r.Source.Partition) // it is there, for it has just written
	p.ledger.Abort()
	if r.Record.Held {
		s.line.Latency.TakeBack()
	}
	at := s.halt(p, r.Why, r.Hint)
	at.last.Low = p.committed
	if !r.Record.Held {
		at.last.Next = min(at.last.Next, r.Record.Offset)
	}
	return errSuspended
}

// suspendClosed suspends the partitions whose outputs take nothing. Everything has gone
// back to the last commit.
func (s *session) suspendClosed() {
	var closed []*partition
	s.each(func(p *partition) {
		if _, isClosed := p.output.Closed(); isClosed {
			closed = append(closed, p)
		}
	})
	for _, p := range closed {
		h := s.writer.HaltClosed(p.output)
		s.halt(p, h.Why, h.Hint)
		p.output.ForgetTries()
	}
}

// trySuspended takes up again the partitions that were suspended for long enough.
func (s *session) trySuspended(ctx context.Context) error {
	if len(s.suspended) == 0 {
		return nil
	}
	again, waiting := map[string][]int32{}, map[string]int32{}
	var closed, oversized []*txn.Source
	for src, at := range s.suspended {
		out := s.writer.Source(src)
		visible, isClosed := out.Closed()
		switch since := s.now().Sub(at.tried); {
		case isClosed:
			if since >= retrySuspended || visible && since >= retryClosed {
				closed = append(closed, out)
			}
		case at.schema != nil, s.tooEarly(src, at):
		case src.Partition < s.topics[src.Topic].Usable:
			again[src.Topic] = append(again[src.Topic], src.Partition)
			if out.Oversized() {
				oversized = append(oversized, out)
			}
			out.TryAgain()
		default:
			at.tried = s.now()
			waiting[src.Topic] = max(waiting[src.Topic], src.Partition+1)
		}
	}
	if err := s.limitsChanged(ctx, oversized); err != nil {
		return err
	}
	open, why := s.writer.Reopen(ctx, closed)
	for _, out := range closed {
		at := s.suspended[out.Source]
		if at.tried = s.now(); why[out] != nil {
			s.reportHalt(out.Source, why[out], at.hint)
		}
	}
	for _, out := range open {
		again[out.Topic] = append(again[out.Topic], out.Partition)
	}
	for topic, partitions := range waiting {
		if err := s.outputsGrown(ctx, s.topics[topic], partitions); err != nil {
			return err
		}
	}
	if len(again) == 0 {
		return nil
	}
	if err := s.checkpoint(ctx); err != nil {
		return err
	}
	return s.takeAgain(again)
}

// tooEarly reports whether a partition is not to be tried again yet.
func (s *session) tooEarly(src emit.Source, at *suspension) bool {
	since := s.now().Sub(at.tried)
	if at.away {
		return since < retryAway || !s.watcher.Answered(at.tried, leadersOf(src)...)
	}
	return since < retrySuspended
}

// leadersOf returns the partitions whose leaders have to answer before one can begin.
func leadersOf(src emit.Source) []group.TopicPartition {
	return []group.TopicPartition{{Topic: src.Topic, N: src.Partition}, {Topic: src.Ordered, N: src.Partition}, {Topic: src.Late, N: src.Partition}}
}

// outputsGrown returns preflight.ErrTopicsChanged when the outputs of a topic have got more partitions
// than they had.
func (s *session) outputsGrown(ctx context.Context, t preflight.Topic, wanted int32) error {
	const patience = time.Second // the loop waits
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	listed, err := s.adm.ListTopics(ctx, t.Ordered, t.Late)
	if err == nil {
		err = listed.Error()
	}
	if err == nil && min(len(listed[t.Ordered].Partitions), len(listed[t.Late].Partitions)) > int(t.Usable) {
		return fmt.Errorf("the outputs of %s have grown: %w", t.Name, preflight.ErrTopicsChanged)
	}
	s.reporter.Error(t.Name, "partitions are suspended until their output topics have more partitions", cmp.Or(err, errTooFewPartitions), "topic", t.Name, "missing_partitions", wanted-t.Usable,
		"hint", s.growHint(t))
	return nil
}

// limitsChanged returns preflight.ErrTopicsChanged when an output of suspended partitions has
// another max.message.bytes than it had. Where brokers do not say, the refused record is
// tried.
func (s *session) limitsChanged(ctx context.Context, oversized []*txn.Source) error {
	if len(oversized) == 0 {
		return nil
	}
	var outputs []string
	for _, src := range oversized {
		outputs = append(outputs, src.Ordered, src.Source.Late)
	}
	slices.Sort(outputs)
	const patience = time.Second // the loop waits
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	now, err := preflight.MaxBatches(ctx, s.adm, slices.Compact(outputs))
	if err != nil {
		return nil
	}
	for topic, n := range now {
		if was := s.maxBatch(topic); was != 0 && n != 0 && was != int(n) {
			return fmt.Errorf("%s of %s was %d and is %d: %w", fault.MaxMessageBytes, topic, was, n, preflight.ErrTopicsChanged)
		}
	}
	return nil
}

func (s *session) growHint(t preflight.Topic) string {
	commands := fault.CommandsFor(s.cfg)
	return "grow them: " + commands.Grow(t.Ordered, t.Partitions) + "; " + commands.Grow(t.Late, t.Partitions)
}

// suspendForSchema suspends a partition until the registry has said what is wanted of it.
func (s *session) suspendForSchema(ctx context.Context, p *partition, want pipeline.Wanted) error {
	if err := s.checkpoint(ctx); err != nil {
		return err
	}
	s.suspend(p, suspension{state: status.WaitingForSchema, schema: &want, why: fmt.Sprintf("schema %s, of the record at offset %d: %v", want.ID, want.Offset, want.Why), hint: want.Hint})
	reportWanted(s.reporter, p.Source, want)
	return errSuspended
}

// reportWanted tells of a partition that waits.
func reportWanted(reporter *fault.Reporter, src emit.Source, want pipeline.Wanted) {
	c := fault.Classify(want.Why)
	if want.Lost { // a question that was not answered has been counted
		reporter.Count(c, want.Why)
	}
	reporter.Throttle(fmt.Sprint(src.Topic, src.Partition), slog.LevelError, c, "a partition is suspended until its schema is known",
		"topic", src.Topic, "partition", src.Partition, "offset", want.Offset, "schema", want.ID.String(), "hint", want.Hint, "err", want.Why)
}

// trySchemas takes up again the partitions whose schemas are known by now.
func (s *session) trySchemas(ctx context.Context) error {
	again := map[string][]int32{}
	for src, at := range s.suspended {
		if at.schema == nil {
			continue
		}
		there := s.schemas.Known
		if at.schema.Lost {
			there = s.schemas.Has
		}
		switch {
		case there(at.schema.ID):
			again[src.Topic] = append(again[src.Topic], src.Partition)
		case at.schema.Lost && s.now().Sub(at.tried) >= fault.RepeatAfter:
			at.tried = s.now()
			reportWanted(s.reporter, src, *at.schema)
		}
	}
	if len(again) == 0 {
		return nil
	}
	if err := s.checkpoint(ctx); err != nil {
		return err
	}
	return s.takeAgain(again)
}
