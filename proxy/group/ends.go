package group

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/watermark"
)

// The ends of the log are asked for beside the loop, each broker by itself: one that
// is slow, hung or away says nothing of the partitions of others, and a partition
// without a leader nothing of its neighbours. What is heard of a partition is summed
// up as a watermark.Stretch, which the loop looks at when it comes to it: while brokers
// take seconds to acknowledge, the answers go on. docs/design/idleness.md has the
// argument.

// AskInterval is how often a broker is asked for the ends of the log, and
// so the step in which an idle partition drains. It stays well below
// watermark.Gap.
const AskInterval = 200 * time.Millisecond

// metadataEvery is how often brokers are asked who leads. A leader that is cut off from
// the others goes on answering; from them we hear of the next one.
const metadataEvery = 2 * time.Second

// Extent is how far the log of a partition goes, as far as it is known.
type Extent struct {
	High   int64             // -1: not yet
	Stable int64             // the same, without open transactions
	Told   watermark.Instant // when brokers were asked for both, last
}

// Fetched takes note of what a fetch says. It may be older than what is known: then it would
// look as if a transaction were open at the end of the log.
func (x *Extent) Fetched(high, stable int64) {
	x.High, x.Stable = max(x.High, high), max(x.Stable, stable)
}

// Ends is what brokers have told of the end of a partition.
type Ends struct {
	watermark.Stretch
	Extent       // in the latest answer of a leader
	Epoch  int32 // its leader epoch, -1 if brokers do not say
	Hole   Hole  // that was found last

	Unanswered watermark.Instant // when a leader was asked in vain, first since it has answered; 0: it answers
	Failure    error             // what came instead of the last answer
}

// TopicPartition is the key of a partition.
type TopicPartition struct {
	Topic string
	N     int32
}

// WantedEnd is a partition whose end matters.
type WantedEnd struct {
	TopicPartition
	Epoch int32 // of the leader that wrote what was read last
	At    int64 // where reading stands still below the end; -1: it does not
}

// Watcher asks for the ends of partitions.
type Watcher struct {
	Client     *kgo.Client
	now        func() watermark.Instant
	reporter   *fault.Reporter
	poke       func()           // there is something to look at
	Decompress kgo.Decompressor // with the bound of the reading client

	wanted atomic.Pointer[[]WantedEnd] // set by the loop
	fresh  atomic.Bool                 // something has been heard since somebody looked
	asking sync.WaitGroup
	again  chan struct{} // do a round now

	mu         sync.Mutex
	parts      map[TopicPartition]*watched
	busy       map[int32]bool // brokers that have not answered yet
	refreshing bool
	refreshed  time.Time // when it was last known who leads
	stale      bool      // somebody did not lead any more
	looks      int       // for holes, under way
}

// watched is a partition that is watched.
type watched struct {
	Ends
	round  int
	leader int32 // -1: not known, or none
	known  int32 // the newest leader epoch that anybody has told of
	err    error // why there is no leader

	topicID [16]byte
	looked  time.Time // for a hole, last
}

func NewWatcher(now func() watermark.Instant, reporter *fault.Reporter, poke func()) *Watcher {
	return &Watcher{
		now: now, reporter: reporter, poke: poke, again: make(chan struct{}, 1),
		parts: map[TopicPartition]*watched{}, busy: map[int32]bool{},
	}
}

// Watch asks for the ends of the log until ctx is done. A question that fails, or is
// not answered within a Gap, breaks the stretch of its partitions.
func (w *Watcher) Watch(ctx context.Context) {
	defer w.asking.Wait()
	for round := 1; ; round++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(AskInterval):
		case <-w.again:
		}
		if wanted := w.wanted.Load(); wanted != nil {
			w.round(ctx, round, *wanted)
		}
	}
}

// round asks every broker that leads some of the partitions, and does not owe an answer.
func (w *Watcher) round(ctx context.Context, round int, wanted []WantedEnd) {
	w.mu.Lock()
	defer w.mu.Unlock()
	topics, unknown := map[string]bool{}, false
	byLeader := map[int32][]WantedEnd{}
	var leaderless []WantedEnd
	var why error
	for _, want := range wanted {
		p := w.parts[want.TopicPartition]
		if p == nil {
			p = newWatched()
			w.parts[want.TopicPartition] = p
		}
		p.round, p.known = round, max(p.known, want.Epoch)
		topics[want.Topic] = true
		switch {
		case p.err != nil:
			p.failed(w.now(), p.err)
			w.fresh.Store(true)
			leaderless, why = append(leaderless, want), cmp.Or(why, p.err)
		case p.leader < 0:
			unknown = true
		case !w.busy[p.leader]:
			byLeader[p.leader] = append(byLeader[p.leader], WantedEnd{want.TopicPartition, p.known, want.At})
		}
	}
	for tp, p := range w.parts {
		if p.round != round {
			delete(w.parts, tp)
		}
	}
	if len(topics) > 0 && !w.refreshing && (unknown || w.stale || why != nil || time.Since(w.refreshed) >= metadataEvery) {
		w.refreshing, w.stale = true, false
		w.asking.Go(func() { w.refresh(ctx, topics, unknown) })
	}
	for leader, parts := range byLeader {
		w.busy[leader] = true
		w.asking.Go(func() { w.ask(ctx, leader, parts) })
	}
	if why != nil {
		w.complain(leaderless, why)
	}
}

func (w *Watcher) complain(about []WantedEnd, err error) {
	partitions := map[string][]int32{}
	for _, p := range about {
		partitions[p.Topic] = append(partitions[p.Topic], p.N)
	}
	w.reporter.Warn("cannot list end offsets; these partitions do not drain until this works", err, "partitions", ListPartitions(partitions))
}

// refresh finds out who leads. Brokers may be behind: an older leader epoch than one
// that is known already says nothing. With soon, the ends are asked for right after,
// if there is somebody to ask who was not known before: an answer without a leader, as
// that about a topic that we may not look up, leaves the next question to the next round.
func (w *Watcher) refresh(ctx context.Context, topics map[string]bool, soon bool) {
	asking, cancel := context.WithTimeout(ctx, watermark.Gap)
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	for name := range topics {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(asking, w.Client)
	if err != nil && ctx.Err() == nil {
		w.reporter.Warn("cannot look up the leaders of the source's partitions; trying again", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refreshing = false
	if err != nil {
		return
	}
	w.refreshed = time.Now()
	found := false
	for _, t := range resp.Topics {
		if t.Topic == nil {
			continue
		}
		if refusal := kerr.ErrorForCode(t.ErrorCode); refusal != nil {
			// Who led goes on being asked, and says by itself what it refuses.
			for tp, p := range w.parts {
				if tp.Topic == *t.Topic && p.leader < 0 {
					p.err = refusal
				}
			}
			continue
		}
		for _, at := range t.Partitions {
			p := w.parts[TopicPartition{*t.Topic, at.Partition}]
			if p == nil || at.LeaderEpoch >= 0 && at.LeaderEpoch < p.known {
				continue
			}
			led := p.leader >= 0
			p.leader, p.known, p.err, p.topicID = at.Leader, max(p.known, at.LeaderEpoch), nil, t.TopicID
			if at.Leader < 0 || at.ErrorCode == kerr.LeaderNotAvailable.Code {
				p.leader, p.err = -1, cmp.Or(kerr.ErrorForCode(at.ErrorCode), error(kerr.LeaderNotAvailable))
			}
			found = found || !led && p.leader >= 0
		}
	}
	if soon && found {
		select {
		case w.again <- struct{}{}:
		default:
		}
	}
}

// listedEnd is what a broker says of the end of a partition.
type listedEnd struct {
	offset int64
	epoch  int32
	err    error
}

// ErrBehind says that a broker does not know yet that it no longer leads.
var ErrBehind = errors.New("a broker that no longer leads has answered")

// ask asks one broker for high watermarks and last stable offsets. The former first:
// what lies between the two questions then only makes the latter larger.
func (w *Watcher) ask(ctx context.Context, leader int32, parts []WantedEnd) {
	asking, cancel := context.WithTimeout(ctx, watermark.Gap)
	defer cancel()
	sent := w.now()
	var stable map[TopicPartition]listedEnd
	high, err := w.list(asking, leader, parts, 0)
	if err == nil {
		stable, err = w.list(asking, leader, parts, 1)
	}
	w.mu.Lock()
	w.busy[leader] = false
	if ctx.Err() != nil {
		w.mu.Unlock()
		return
	}
	var failed []WantedEnd
	var why error
	for _, part := range parts {
		p := w.parts[part.TopicPartition]
		if p == nil {
			continue // it does not matter any more
		}
		h, s := high[part.TopicPartition], stable[part.TopicPartition]
		failure := cmp.Or(err, h.err, s.err)
		if failure == nil && h.epoch >= 0 && h.epoch < p.known {
			failure = fmt.Errorf("%w: leader epoch %d, and %d is known", ErrBehind, h.epoch, p.known)
		}
		if failure != nil {
			p.failed(sent, failure)
			failed, why = append(failed, part), cmp.Or(why, failure)
			continue
		}
		p.answered(sent, h, s.offset)
	}
	w.stale = w.stale || why != nil
	w.lookForHoles(ctx, parts)
	w.fresh.Store(true)
	w.mu.Unlock()
	if why != nil {
		w.complain(failed, why)
	}
	w.poke()
}

// list asks a broker for the ends of partitions, at an isolation level. All that were
// asked for are in the answer, or there is none.
func (w *Watcher) list(ctx context.Context, leader int32, parts []WantedEnd, isolation int8) (map[TopicPartition]listedEnd, error) {
	const end = -1
	req := kmsg.NewPtrListOffsetsRequest()
	req.IsolationLevel = isolation
	at := map[string]int{}
	for _, part := range parts {
		i, ok := at[part.Topic]
		if !ok {
			i = len(req.Topics)
			at[part.Topic] = i
			t := kmsg.NewListOffsetsRequestTopic()
			t.Topic = part.Topic
			req.Topics = append(req.Topics, t)
		}
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.CurrentLeaderEpoch, p.Timestamp = part.N, part.Epoch, end
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, p)
	}
	resp, err := w.Client.Broker(int(leader)).RetriableRequest(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("list offsets of partitions that broker %d leads: %w", leader, err)
	}
	all := make(map[TopicPartition]listedEnd, len(parts))
	for _, t := range resp.(*kmsg.ListOffsetsResponse).Topics {
		for _, p := range t.Partitions {
			all[TopicPartition{t.Topic, p.Partition}] = listedEnd{p.Offset, p.LeaderEpoch, kerr.ErrorForCode(p.ErrorCode)}
		}
	}
	for _, part := range parts {
		if _, ok := all[part.TopicPartition]; !ok {
			all[part.TopicPartition] = listedEnd{err: fmt.Errorf("%w: it leaves out %s partition %d", fault.ErrBadAnswer, part.Topic, part.N)}
		}
	}
	return all, nil
}

// Want sets the partitions whose ends matter.
func (w *Watcher) Want(parts []WantedEnd) { w.wanted.Store(&parts) }

// Wants returns how many partitions' ends matter, as it was told last; -1: it was not told.
func (w *Watcher) Wants() int {
	if was := w.wanted.Load(); was != nil {
		return len(*was)
	}
	return -1
}

// TakeFresh reports whether something has been heard since it was called last.
func (w *Watcher) TakeFresh() bool { return w.fresh.Swap(false) }

// EndsOf returns what has been heard of a partition; false: it is not watched.
func (w *Watcher) EndsOf(part TopicPartition) (Ends, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.parts[part]; p != nil {
		return p.Ends, true
	}
	return Ends{}, false
}

// Note takes note of an answer to a question that was sent at an instant.
func (w *Watcher) Note(part TopicPartition, sent watermark.Instant, end, stable int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.parts[part]
	if p == nil {
		p = newWatched()
		w.parts[part] = p
	}
	p.answered(sent, listedEnd{offset: end, epoch: -1}, stable)
	w.fresh.Store(true)
}

func newWatched() *watched {
	return &watched{leader: -1, known: -1, Ends: Ends{Epoch: -1, Extent: Extent{High: -1, Stable: -1}}}
}

// answered takes note of where a leader says that the log ends.
func (p *watched) answered(sent watermark.Instant, high listedEnd, stable int64) {
	p.known = max(p.known, high.epoch)
	p.Answer(sent, high.offset, stable)
	p.Extent, p.Epoch = Extent{high.offset, stable, sent}, high.epoch
	p.Unanswered, p.Failure = 0, nil
}

// failed takes note of a question without an answer.
func (p *watched) failed(sent watermark.Instant, err error) {
	p.Break(sent)
	if p.Failure = err; p.Unanswered == 0 {
		p.Unanswered = sent
	}
}

// Answered reports whether the leaders of all these partitions have answered a question
// sent since.
func (w *Watcher) Answered(since watermark.Instant, parts ...TopicPartition) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, part := range parts {
		if p := w.parts[part]; p == nil || p.Told <= since {
			return false
		}
	}
	return true
}
