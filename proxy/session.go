package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/pipeline"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
	"github.com/tidemarkhq/tidemark/proxy/recovery"
	"github.com/tidemarkhq/tidemark/proxy/txn"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// THE LIFE OF A SESSION
//
//	preflight      topics, rights, outputs                              package preflight
//	take over      the transactional id: what an earlier run left open ends
//	await          until nobody but Tidemark is in the group            package group
//	join           the client joins; assignments come as requests
//	resume         from the commits                                     resume.go
//	turn, turn ... poll, records, log ends, checkpoint                  loop.go
//	leave          the last checkpoint; the process leaves the group    run.go
//
// An error that an abort cannot mend ends it, and the next one begins from the commits.

// session does one session, from the preflight on.
func (r *runner) session(first, admin *kgo.Client) error {
	cfg, adm := r.cfg, kadm.NewClient(admin)
	r.publisher.ProbeWith(adm)
	defer r.publisher.ProbeWith(nil)
	topics, err := preflight.Check(r.ctx, kadm.NewClient(first), adm, admin, cfg, cfg.EventTime, r.reporter, r.cluster)
	if r.ctx.Err() != nil {
		return nil // told to stop before there was anything to commit
	}
	if err != nil {
		return err
	}
	s := newSession(cfg, adm, topics, r.process)
	connection := append(slices.Clip(r.connection), kgo.AlwaysRetryEOF())
	s.cluster.Log(s.reporter.Logger)
	s.reporter.Sessions.Add(1)
	s.stopAt(r.ctx)
	s.watcher.Client = admin
	if s.schemas != nil {
		s.schemas.Notify(s.member.Wake)
	}
	if cfg.Delivery == config.ExactlyOnce {
		if err := s.takeOver(admin); err != nil {
			return s.explainFence(err)
		}
	}
	if r.awaitGroup(adm); r.ctx.Err() != nil {
		return nil
	}
	if cfg.Delivery == config.ExactlyOnce {
		var gts *kgo.GroupTransactSession
		if gts, err = kgo.NewGroupTransactSession(s.clientOpts(connection)...); err == nil {
			s.use(gts.Client(), gts)
		}
	} else {
		var cl *kgo.Client
		if cl, err = kgo.NewClient(s.clientOpts(connection)...); err == nil {
			s.use(cl, nil)
		}
	}
	if err != nil {
		return fault.Usage(err, "")
	}
	r.publisher.SetStage("joining the group")
	s.member.Start()
	err = s.run(r.ctx, r.hard)
	r.member.After(s.cl, s.member.AskedToJoin())
	if group.Overtaken(r.ctx, err, s.cl, s.adm, cfg, s.reporter) {
		r.member = group.Membership{} // it is the other one's
		return fault.Failed(fmt.Errorf("instance %q of group %q was started a second time: %w", cfg.Instance, cfg.Group, err),
			"the younger one goes on; give each process its own TIDEMARK_INSTANCE")
	}
	return err
}

// takeOver ends the transaction that an earlier run of this instance may have left open.
func (s *session) takeOver(admin *kgo.Client) error {
	waits := &s.reporter.Waits
	defer waits.Begin(fault.TransactionWait(fault.CommandsFor(s.cfg), "the end of a transaction that an earlier run may have left open", time.Second))()
	return group.FenceReporting(s.stopping, admin, s.cfg.TransactionalID(), s.cfg.TransactionTimeout, waits.Answered)
}

func (s *session) explainFence(err error) error {
	if f := fault.Forbidden(s.cfg, err); f != nil {
		return f
	}
	err = fmt.Errorf("take over the transactional id %q: %w", s.cfg.TransactionalID(), err)
	if errors.Is(err, kerr.InvalidTransactionTimeout) {
		return fault.Usage(err, "it must not be above the brokers' transaction.max.timeout.ms: lower TIDEMARK_TRANSACTION_TIMEOUT")
	}
	return err
}

func newSession(cfg config.Config, adm *kadm.Client, topics map[string]preflight.Topic, proc *process) *session {
	s := &session{
		process: proc, cfg: cfg, topics: topics, adm: adm, start: time.Now(),
		engine:    reorder.NewEngine(cfg.Laws(), int64(cfg.Memory)),
		parts:     map[string]map[int32]*partition{},
		suspended: map[emit.Source]*suspension{},
		alignment: alignment{slowest: watermark.None},
		joining:   newJoining(fault.CommandsFor(cfg)),
	}
	extract := proc.extractor(cfg)
	s.admin = &group.Admin{Config: cfg, Kadm: adm, Reporter: s.reporter, Topics: topics, Atomic: cfg.Delivery == config.ExactlyOnce}
	s.member = group.NewMember(s.admin)
	s.loader = &recovery.Loader{Admin: s.admin, Cluster: s.cluster, Fingerprint: extract.Fingerprint(), Earlier: extract.Earlier(), WallClock: s.wallClock}
	s.stopAt(context.Background())
	s.rivals = &group.Rivals{Admin: s.admin, Cluster: s.cluster, Now: s.now, EndWith: s.endWith}
	s.open = &group.OpenTransactions{Admin: s.admin}
	s.watcher = group.NewWatcher(s.now, s.reporter, s.member.Wake)
	s.ledgers.Abort()
	s.line = pipeline.New(pipeline.Options{
		Config: cfg, Extract: extract, Schemas: s.schemas, Producers: proc.producers, Reporter: s.reporter, Checked: proc.looked,
		Outbox: func() *emit.Outbox { return s.writer.Outbox() },
		Atomic: cfg.Delivery == config.ExactlyOnce,
		Waited: func() { s.sinceClock = clockEvery },
	})
	s.use(nil, nil)
	return s
}

// stopAt sets the context that is done when the process is told to stop.
func (s *session) stopAt(ctx context.Context) { s.stopping, s.member.Stopping = ctx, ctx }

// use sets the client of the session, and its transactions; none: at least once.
func (s *session) use(cl *kgo.Client, gts *kgo.GroupTransactSession) {
	s.cl, s.admin.Client = cl, cl
	s.writer = txn.New(txn.Options{
		Config: s.cfg, Client: cl, Session: gts, Admin: s.adm, Reporter: s.reporter, Limits: s.limits, Acks: &s.acks,
		Group:    txn.Membership{Allow: func() { s.cl.AllowRebalance() }, Block: s.member.Block, Moved: s.hasMoved},
		Batches:  s.engine,
		MaxBatch: s.maxBatch, NeededBatch: s.neededBatch,
	})
}

// maxBatch returns max.message.bytes of an output; 0: not known.
func (s *session) maxBatch(output string) int {
	for _, t := range s.topics {
		switch output {
		case t.Ordered:
			return int(t.OrderedMax)
		case t.Late:
			return int(t.LateMax)
		}
	}
	return 0
}

// neededBatch returns what max.message.bytes of an output has to be; 0: not known.
func (s *session) neededBatch(output string) int {
	for _, t := range s.topics {
		if output == t.Ordered || output == t.Late {
			return int(t.NeededMax)
		}
	}
	return 0
}

// run loops until ctx is done or the session fails. The membership outlives it.
func (s *session) run(ctx, hard context.Context) error {
	// What of the client no context of ours reaches ends with the client.
	defer context.AfterFunc(hard, s.member.Cancel)()
	watching, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	if s.watcher.Client == nil {
		s.watcher.Client = s.cl
	}
	s.open.Client = s.watcher.Client
	s.watcher.Decompress, _ = s.cl.OptValue(kgo.WithDecompressor).(kgo.Decompressor)
	go func() {
		defer close(done)
		var beside sync.WaitGroup
		beside.Go(func() { s.rivals.Watch(watching) })
		beside.Go(func() { s.open.Watch(watching) })
		s.watcher.Watch(watching)
		beside.Wait()
	}()
	s.publisher.Open(s.member.Wake)
	err := s.loop(ctx, hard)
	s.joined()
	s.publisher.Close(s.status)
	stop()
	<-done
	group.CloseClient(s.cl, s.member.Cancel)
	return err
}

// session is one membership of the group with one producer: everything that is void
// together. What goes wrong in it and cannot be undone by an abort ends it, and the next
// one begins from what is committed.
//
// One goroutine, the loop, owns it. What runs beside the loop (the client's callbacks, the
// watchers) has values of its own, and reaches the loop through group.Member's events and
// requests, Watcher.TakeFresh and fatal.
type session struct {
	*process
	cfg      config.Config
	topics   map[string]preflight.Topic
	start    time.Time       // monotonic zero of the session's clock
	stopping context.Context // done when the process is told to stop

	// Who does the work.
	cl      *kgo.Client // of the member; it also produces
	adm     *kadm.Client
	admin   *group.Admin
	member  *group.Member
	watcher *group.Watcher
	rivals  *group.Rivals
	open    *group.OpenTransactions
	loader  *recovery.Loader
	engine  *reorder.Engine
	line    *pipeline.Pipeline
	writer  *txn.Writer

	// The partitions of ours: each is worked on, suspended, or about to be taken up.
	parts     map[string]map[int32]*partition
	suspended map[emit.Source]*suspension

	// What the loop remembers from turn to turn.
	sinceClock int                 // records since the clocks were read
	moved      bool                // partitions were revoked: the transaction has to be aborted
	abortedAt  time.Time           // when everything was undone, until it is taken up again
	unstick    bool                // the client has stopped reading a partition; see takeAgain
	assignment *map[string][]int32 // that giveUpForeign has seen last
	fetchMost  int32               // bytes that the client asks for at a time
	alignment  alignment
	ends       endsWanted
	seen       observed
	joining    joining

	codec txn.SourceCodec
	trips clocks.Trips
	fatal atomic.Pointer[error] // that a watcher found
}

// observed is what is remembered for who looks from outside.
type observed struct {
	at       watermark.Instant // when a status was made, last; 0: never
	outputs  watermark.Instant // when the watcher of rivals was told of our outputs, last
	relieved watermark.Instant // when records were released early for want of memory, last
}

func (s *session) now() watermark.Instant { return watermark.Instant(time.Since(s.start)) }

// awaitGroup waits until nobody else is in the group, and tells of who is. To end with an
// error instead would be no use: a supervisor would start us again, and when the others
// are gone, or are our own of an earlier version that are being replaced, we can go on.
func (r *runner) awaitGroup(adm *kadm.Client) {
	_ = group.AwaitGroup(r.ctx, adm, r.reporter, r.cfg, func(others error) error {
		r.publisher.SetTrouble(others.Error(), group.StrangersHint(fault.CommandsFor(r.cfg)))
		return nil
	})
}

// clientOpts are the options of the consuming and producing client. The
// callbacks are the session's.
func (s *session) clientOpts(connection []kgo.Opt) []kgo.Opt {
	cfg := s.cfg
	opts := slices.Clone(connection)
	opts = append(opts, s.member.Options()...)
	opts = append(opts,
		kgo.ConsumeTopics(cfg.Topics...),

		// Where to begin is never left to the client: a reset policy turns
		// lost records into skipped or repeated ones.
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// Control records are part of the position: without them a
		// partition that ends in one never seems to have been read to its end.
		kgo.KeepControlRecords(),
		kgo.FetchMaxBytes(fetchBytes(int64(cfg.Memory))),
		kgo.FetchMaxPartitionBytes(partitionBytes),
		kgo.FetchMaxWait(500*time.Millisecond),
		kgo.WithPools(new(group.FetchPool)),
		kgo.WithHooks(group.FetchTimes{Trips: &s.trips}),
		kgo.MaxDecompressBatchBytes(group.DecompressLimit(int64(cfg.Memory))),

		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MaxBufferedRecords(txn.MaxInFlight),
		kgo.MaxBufferedBytes(s.maxInFlight()),
		kgo.ProducerLinger(s.linger()),
		kgo.ProducerBatchMaxBytesFn(txn.ClientMaxBatch(s.limits, s.maxBatch, s.outputTopics())),
		txn.CompressionOpt(cfg, &s.codec),

		// What is refused for longer comes to us, with the brokers' reason.
		kgo.RecordRetries(txn.ProduceTries),
		kgo.UnknownTopicRetries(2*txn.ProduceTries),
	)
	if cfg.Delivery == config.ExactlyOnce {
		opts = append(opts,
			kgo.TransactionalID(cfg.TransactionalID()),
			kgo.TransactionTimeout(cfg.TransactionTimeout))
	} else {
		// What was sent to a broker that died would else be waited for until the
		// partition has a leader again, and all other partitions with it. It may
		// come twice, which is what this mode is about.
		opts = append(opts, kgo.AllowIdempotentProduceCancellation())
	}
	return opts
}

// outputTopics returns the names of all outputs.
func (s *session) outputTopics() (names []string) {
	for _, t := range s.topics {
		names = append(names, t.Ordered, t.Late)
	}
	return names
}

// linger is how long a batch may wait to be filled: the larger the batches, the
// less they cost here and at the broker. Inside a transaction nobody sees a record
// before the commit, and a commit does not wait for batches to fill; so all that
// matters is that most has been sent by then. Without transactions
// a record is seen as soon as it arrives.
func (s *session) linger() time.Duration {
	if s.cfg.Delivery != config.ExactlyOnce {
		return time.Millisecond
	}
	return min(s.cfg.CommitInterval/4, 25*time.Millisecond)
}

// maxInFlight lets a record pass that is as large as a request may be, where
// there are such.
func (s *session) maxInFlight() int {
	if s.limits.SizeAware {
		return txn.MostBatch + txn.MaxInFlightBytes
	}
	return txn.MaxInFlightBytes
}

// fetchBytes bounds what one broker sends ahead of what is read: memory beside
// the budget, so it keeps a proportion to it.
func fetchBytes(budget int64) int32 {
	return int32(min(max(budget/8, 1<<20), 8<<20))
}
