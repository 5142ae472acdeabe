package proxy

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/pipeline"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
	"github.com/tidemarkhq/tidemark/proxy/recovery"
	"github.com/tidemarkhq/tidemark/proxy/registry"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
	"github.com/tidemarkhq/tidemark/proxy/txn"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// session is one membership of the group with one producer: everything that
// is void together. What goes wrong in it and cannot be undone by an abort
// ends it, and the next one begins from what is committed.
//
// One goroutine, the loop, owns all of it except what is below mu. The
// client's callbacks run in goroutines of the client: assigned and revoked
// only while the loop is inside poll, or inside end when that takes long
// (BlockRebalanceOnPoll sees to that), so they may touch what the loop owns;
// position at any time, so it asks the loop.
type session struct {
	cfg        config.Config
	log        *slog.Logger
	reporter   *fault.Reporter
	cluster    *preflight.Cluster
	wallClock  func() time.Time
	limits     *txn.Limits
	topics     map[string]preflight.Topic
	connection []kgo.Opt
	extract    *timestamp.Extractor
	headers    emit.Headers
	schemas    *registry.Registry // nil where nothing needs it

	cl  *kgo.Client
	gts *kgo.GroupTransactSession // nil at least once
	adm *kadm.Client

	admin  *group.Admin
	member *group.Member
	rivals *group.Rivals
	moved  bool // partitions were revoked, which aborts the transaction

	watcher *group.Watcher
	needed  watermark.Instant // when it was told what to ask for, last
	looking bool              // at what it has heard

	ownedSeen *map[string][]int32 // by giveUpForeign
	stopping  context.Context     // done when the process is told to stop

	engine *reorder.Engine
	parts  map[string]map[int32]*partition
	line   *pipeline.Pipeline
	writer *txn.Writer
	loader *recovery.Loader

	sinceClock int       // records since the clocks were read
	abortedAt  time.Time // when everything was undone, until it is taken up again
	suspended  map[emit.Source]*suspension
	codec      txn.SourceCodec
	stalled    bool           // the client has stopped reading a partition
	slowest    watermark.Time // by which the others are aligned
	toldHeld   watermark.Instant
	trips      clocks.Trips
	publisher  *status.Publisher
	shownAt    watermark.Instant // when a status was made, last; 0: never
	ledgers    status.Ledgers
	latency    *status.Histogram // beyond the bound; see takings
	waits      *fault.Waits
	expected   waits
	missing    missing           // what the client has to bring about
	relieved   watermark.Instant // when records were released early for want of memory, last
	start      time.Time         // monotonic zero

	begun        map[emit.Source]time.Time // when this process had partitions begin
	outputsShown watermark.Instant         // when ours was set

	quotas    *group.Quotas
	acks      *txn.AckLimit
	fetchMost int32 // bytes that the client asks for at a time

	fatal atomic.Pointer[error] // that a watcher found
}

// partition is a source partition that this session owns.
type partition struct {
	emit.Source
	state *reorder.Partition // nil of one that could not be taken up
	path  *pipeline.Partition
	scope reorder.Scope
	since watermark.Instant // when it was taken up

	paused   bool              // until slower ones have caught up; see align
	pausedAt watermark.Instant // since when
	ledger   *status.Ledger
	group.Extent
	ends      group.Ends // as heard last
	needed    needed
	sought    watermark.Instant // when it was read from elsewhere, last
	heard     watermark.Instant // when records came, last
	committed int64             // L, in the last commit
	out       *txn.Source
}

// work has a partition be worked on from a state that was assigned to it.
func (p *partition) work(line *pipeline.Pipeline, state *reorder.Partition, now watermark.Instant) {
	p.state, p.path = state, line.Start(p.Source, state, p.ledger, now)
}

func (s *session) now() watermark.Instant { return watermark.Instant(time.Since(s.start)) }

// find returns the partition if the session owns it.
func (s *session) find(topic string, n int32) *partition { return s.parts[topic][n] }

// each calls fn for every partition owned.
func (s *session) each(fn func(*partition)) {
	for _, ps := range s.parts {
		for _, p := range ps {
			fn(p)
		}
	}
}

// install puts a partition in the place of the one that was there.
func (s *session) install(p *partition) {
	s.remove(p.Topic, p.Partition)
	p.out = s.writer.Source(p.Source)
	p.path.Gate = p.out
	if s.parts[p.Topic] == nil {
		s.parts[p.Topic] = map[int32]*partition{}
	}
	s.parts[p.Topic][p.Partition] = p
}

// remove forgets a partition and everything held of it.
func (s *session) remove(topic string, n int32) {
	if p := s.find(topic, n); p != nil {
		s.engine.Revoke(p.state)
		delete(s.parts[topic], n)
	}
}

// maxPoll bounds the records of one poll, and with them the time until the
// clock is looked at again.
const maxPoll = 20_000
