package proxy

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

// askInterval is how often a broker is asked for the ends of the log, and
// so the step in which an idle partition drains. It stays well below
// watermark.Gap.
const askInterval = 200 * time.Millisecond

// metadataEvery is how often brokers are asked who leads. A leader that is cut off from
// the others goes on answering; from them we hear of the next one.
const metadataEvery = 2 * time.Second

// extent is how far the log of a partition goes, as far as it is known.
type extent struct {
	end    int64             // -1: not yet
	stable int64             // the same, without open transactions
	told   watermark.Instant // when brokers were asked for both, last
}

// ends is what brokers have told of the end of a partition.
type ends struct {
	watermark.Stretch
	extent       // in the latest answer of a leader
	epoch  int32 // its leader epoch, -1 if brokers do not say
	hole   hole  // that was found last
}

// topicPartition is the key of a partition.
type topicPartition struct {
	topic string
	n     int32
}

// wantedEnd is a partition whose end matters.
type wantedEnd struct {
	topicPartition
	epoch int32 // of the leader that wrote what was read last
	at    int64 // where reading stands still below the end; -1: it does not
}

// watcher asks for the ends of partitions.
type watcher struct {
	cl       *kgo.Client
	now      func() watermark.Instant
	reporter *fault.Reporter
	poke     func()           // there is something to look at
	unzip    kgo.Decompressor // with the bound of the reading client

	wanted atomic.Pointer[[]wantedEnd] // set by the loop
	fresh  atomic.Bool                 // something has been heard since somebody looked
	asking sync.WaitGroup
	again  chan struct{} // do a round now

	mu         sync.Mutex
	parts      map[topicPartition]*watched
	busy       map[int32]bool // brokers that have not answered yet
	refreshing bool
	refreshed  time.Time // when it was last known who leads
	stale      bool      // somebody did not lead any more
	looks      int       // for holes, under way
}

// watched is a partition that is watched.
type watched struct {
	ends
	round  int
	leader int32 // -1: not known, or none
	known  int32 // the newest leader epoch that anybody has told of
	err    error // why there is no leader

	topicID [16]byte
	looked  time.Time // for a hole, last
}

func newWatcher(now func() watermark.Instant, reporter *fault.Reporter, poke func()) *watcher {
	return &watcher{
		now: now, reporter: reporter, poke: poke, again: make(chan struct{}, 1),
		parts: map[topicPartition]*watched{}, busy: map[int32]bool{},
	}
}

// watch asks for the ends of the log until ctx is done. A question that fails, or is
// not answered within a Gap, breaks the stretch of its partitions.
func (w *watcher) watch(ctx context.Context) {
	defer w.asking.Wait()
	for round := 1; ; round++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(askInterval):
		case <-w.again:
		}
		if wanted := w.wanted.Load(); wanted != nil {
			w.round(ctx, round, *wanted)
		}
	}
}

// round asks every broker that leads some of the partitions, and does not owe an answer.
func (w *watcher) round(ctx context.Context, round int, wanted []wantedEnd) {
	w.mu.Lock()
	defer w.mu.Unlock()
	topics, unknown := map[string]bool{}, false
	byLeader := map[int32][]wantedEnd{}
	var leaderless []wantedEnd
	var why error
	for _, want := range wanted {
		p := w.parts[want.topicPartition]
		if p == nil {
			p = &watched{leader: -1, known: -1, ends: ends{epoch: -1, extent: extent{end: -1, stable: -1}}}
			w.parts[want.topicPartition] = p
		}
		p.round, p.known = round, max(p.known, want.epoch)
		topics[want.topic] = true
		switch {
		case p.err != nil:
			p.Break(w.now())
			w.fresh.Store(true)
			leaderless, why = append(leaderless, want), cmp.Or(why, p.err)
		case p.leader < 0:
			unknown = true
		case !w.busy[p.leader]:
			byLeader[p.leader] = append(byLeader[p.leader], wantedEnd{want.topicPartition, p.known, want.at})
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

func (w *watcher) complain(about []wantedEnd, err error) {
	partitions := map[string][]int32{}
	for _, p := range about {
		partitions[p.topic] = append(partitions[p.topic], p.n)
	}
	w.reporter.Warn("cannot list end offsets; these partitions do not drain until this works", err, "partitions", list(partitions))
}

// refresh finds out who leads. Brokers may be behind: an older leader epoch than one
// that is known already says nothing. With soon, the ends are asked for right after,
// if there is somebody to ask who was not known before: an answer without a leader, as
// that about a topic that we may not look up, leaves the next question to the next round.
func (w *watcher) refresh(ctx context.Context, topics map[string]bool, soon bool) {
	asking, cancel := context.WithTimeout(ctx, watermark.Gap)
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	for name := range topics {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(asking, w.cl)
	if err != nil && ctx.Err() == nil {
		w.reporter.Warn("cannot find out who leads the source's partitions; asking again", err)
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
				if tp.topic == *t.Topic && p.leader < 0 {
					p.err = refusal
				}
			}
			continue
		}
		for _, at := range t.Partitions {
			p := w.parts[topicPartition{*t.Topic, at.Partition}]
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

// errBehind says that a broker does not know yet that it no longer leads.
var errBehind = errors.New("an older leader has answered")

// ask asks one broker for high watermarks and last stable offsets. The former first:
// what lies between the two questions then only makes the latter larger.
func (w *watcher) ask(ctx context.Context, leader int32, parts []wantedEnd) {
	asking, cancel := context.WithTimeout(ctx, watermark.Gap)
	defer cancel()
	sent := w.now()
	var stable map[topicPartition]listedEnd
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
	var failed []wantedEnd
	var why error
	for _, part := range parts {
		p := w.parts[part.topicPartition]
		if p == nil {
			continue // it does not matter any more
		}
		h, s := high[part.topicPartition], stable[part.topicPartition]
		failure := cmp.Or(err, h.err, s.err)
		if failure == nil && h.epoch >= 0 && h.epoch < p.known {
			failure = fmt.Errorf("%w: leader epoch %d, and %d is known", errBehind, h.epoch, p.known)
		}
		if failure != nil {
			p.Break(sent)
			failed, why = append(failed, part), cmp.Or(why, failure)
			continue
		}
		p.known = max(p.known, h.epoch)
		p.Answer(sent, h.offset, s.offset)
		p.extent, p.epoch = extent{h.offset, s.offset, sent}, h.epoch
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
func (w *watcher) list(ctx context.Context, leader int32, parts []wantedEnd, isolation int8) (map[topicPartition]listedEnd, error) {
	return w.listAt(ctx, leader, parts, isolation, -1)
}

// listAt does so for another place than the end, as Kafka numbers them.
func (w *watcher) listAt(ctx context.Context, leader int32, parts []wantedEnd, isolation int8, place int64) (map[topicPartition]listedEnd, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.IsolationLevel = isolation
	at := map[string]int{}
	for _, part := range parts {
		i, ok := at[part.topic]
		if !ok {
			i = len(req.Topics)
			at[part.topic] = i
			t := kmsg.NewListOffsetsRequestTopic()
			t.Topic = part.topic
			req.Topics = append(req.Topics, t)
		}
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.CurrentLeaderEpoch, p.Timestamp = part.n, part.epoch, place
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, p)
	}
	resp, err := w.cl.Broker(int(leader)).RetriableRequest(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("list offsets of partitions that broker %d leads: %w", leader, err)
	}
	all := make(map[topicPartition]listedEnd, len(parts))
	for _, t := range resp.(*kmsg.ListOffsetsResponse).Topics {
		for _, p := range t.Partitions {
			all[topicPartition{t.Topic, p.Partition}] = listedEnd{p.Offset, p.LeaderEpoch, kerr.ErrorForCode(p.ErrorCode)}
		}
	}
	for _, part := range parts {
		if _, ok := all[part.topicPartition]; !ok {
			all[part.topicPartition] = listedEnd{err: fmt.Errorf("%w: it leaves out %s partition %d", fault.ErrBadAnswer, part.topic, part.n)}
		}
	}
	return all, nil
}

// answered reports whether the leaders of all these partitions have answered a question
// sent since.
func (w *watcher) answered(since watermark.Instant, parts ...topicPartition) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, part := range parts {
		if p := w.parts[part]; p == nil || p.told <= since {
			return false
		}
	}
	return true
}

// needEnds tells the watcher which partitions' ends matter: those of which records
// are held or are being read again, or that may stand before a hole; and all where partitions are aligned, for
// one that is idle with nothing held is not to hold the others up. And each time
// somebody has looked at the status the ends are asked for once: of a partition that
// stands still, or that waits for a producer's transaction, nothing else tells how
// much has come. Of one that waits for leaders the answers say that they are there.
func (s *session) needEnds() {
	s.needed = s.now()
	shown := func(x extent) bool { return s.shownAt > 0 && (x.end < 0 || x.told < s.shownAt) }
	n, changed := 0, false
	s.each(func(p *partition) {
		hole := s.holeAt(p)
		want := needed{
			end:   s.cfg.MaxDrift > 0 || p.end < 0 || p.state.Low() < p.state.NextOffset() || hole >= 0 || shown(p.extent),
			epoch: p.state.LeaderEpoch(), at: hole,
		}
		if want.end {
			n++
		}
		changed = changed || want != p.needed
		p.needed = want
	})
	var still []topicPartition
	for src, why := range s.suspended {
		if why.away {
			still = append(still, leadersOf(src)...)
		} else if shown(why.extent) {
			still = append(still, topicPartition{src.Topic, src.Partition})
		}
	}
	if was := s.watcher.wanted.Load(); !changed && len(still) == 0 && was != nil && len(*was) == n {
		return
	}
	all := make([]wantedEnd, 0, n+len(still))
	s.each(func(p *partition) {
		if p.needed.end {
			all = append(all, wantedEnd{topicPartition{p.Topic, p.Partition}, p.needed.epoch, p.needed.at})
		}
	})
	for _, part := range still {
		all = append(all, wantedEnd{part, -1, -1})
	}
	s.watcher.wanted.Store(&all)
}

// needed is what the watcher has been told of a partition.
type needed struct {
	end   bool // it matters
	epoch int32
	at    int64 // see wantedEnd
}

// takeAnswers lets what has been heard of the ends drain idle partitions. It may be
// called while a release is under way; that partition is left alone.
func (s *session) takeAnswers(ctx context.Context) error {
	if s.looking || !s.watcher.fresh.Swap(false) {
		return nil
	}
	s.looking = true
	defer func() { s.looking = false }()
	s.engine.Tick(s.now())
	s.hear()
	var err error
	s.each(func(p *partition) {
		if err == nil && p.ends.Last > 0 { // else nothing has been heard yet
			err = ignoreHandled(s.takeAnswer(ctx, p))
		}
	})
	return err
}

// hear copies what the watcher has heard.
func (s *session) hear() {
	s.watcher.mu.Lock()
	defer s.watcher.mu.Unlock()
	s.each(func(p *partition) {
		p.ends = ends{}
		if of := s.watcher.parts[topicPartition{p.Topic, p.Partition}]; of != nil {
			p.ends = of.ends
		}
	})
	for src, why := range s.suspended {
		if of := s.watcher.parts[topicPartition{src.Topic, src.Partition}]; of != nil && of.told > 0 {
			why.extent = of.extent
		}
	}
}

func (s *session) takeAnswer(ctx context.Context, p *partition) error {
	e := &p.ends
	if e.told > p.extent.told {
		p.extent = e.extent
	}
	if err := s.passHole(ctx, p); err != nil {
		return err
	}
	if end, replaying := p.state.Replaying(); replaying {
		// Only what the leader says of now counts: not an answer from before,
		// and not one of a broker that does not know yet that it no longer
		// leads. That reading makes no progress says nothing about what there
		// is to read, and all of it has to have been read.
		if p.state.Waits() || e.told == 0 || e.end >= end || p.state.Position() < e.end || e.told < p.since || e.epoch < p.state.LeaderEpoch() {
			return nil
		}
		return s.endReplayAt(ctx, p, e.end)
	}
	if p.state.Due() {
		return nil // its release is under way
	}
	p.state.Observe(e.Stretch)
	return s.release(ctx, p)
}
