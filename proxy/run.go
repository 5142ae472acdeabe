// Package proxy runs Tidemark against Kafka: it reads, has the pure packages
// decide, and puts out what they decided, together with their state, in
// transactions. Everything that has a clock, a goroutine or a connection is
// here.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/pipeline"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
	"github.com/tidemarkhq/tidemark/proxy/recovery"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/proxy/txn"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Run reorders the configured topics until ctx is done, and then ends
// cleanly: what is open is committed, the group is left. An error has a hint
// and an exit code where there is a cure; see Fault.
func Run(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	return RunOn(ctx, cfg, log, status.NewPublisher(""))
}

// RunOn does what Run does, and board shows what it is doing.
func RunOn(ctx context.Context, cfg config.Config, log *slog.Logger, board *status.Publisher) error {
	proc := newProcess(log)
	proc.publisher = board
	connection, err := cfg.ClientOpts(proc.reporter.StaleFile)
	if err != nil {
		return fault.Usage(err, "")
	}
	log.Info("starting", "brokers", cfg.Brokers, "topics", cfg.Topics, "group", cfg.Group, "instance", cfg.Instance,
		"delivery", string(cfg.Delivery), "watermark", string(cfg.Watermark), "max_out_of_orderness", cfg.MaxOutOfOrderness.String(), "memory", cfg.Memory.String())
	preflight.WarnInClear(cfg, log)
	if err := runOver(ctx, cfg, connection, proc); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

// runOver runs over connections made as told.
func runOver(ctx context.Context, cfg config.Config, connection []kgo.Opt, proc *process) error {
	// What is under way when ctx ends gets some time to finish.
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(group.StopTime, cancel) })()
	return runSessions(ctx, hard, cfg, connection, proc)
}

// runSessions does one session after the other until ctx is done. hard ends
// what is under way by then.
func runSessions(ctx, hard context.Context, cfg config.Config, connection []kgo.Opt, proc *process) error {
	if err := proc.askRegistry(cfg); err != nil {
		return err
	}
	defer proc.closeRegistry()
	proc.quotas.Keep(cfg)
	proc.acks.Timeout = cfg.TransactionTimeout
	defer proc.publisher.Start(ctx, cfg, status.Sources{
		Counters: &proc.reporter.Counters, Waits: &proc.reporter.Waits,
		Cluster: proc.cluster.ID, Throttled: proc.quotas.Totals,
	})()
	defer proc.reporter.ReportWaits()()
	r := &runner{
		process: proc, ctx: ctx, hard: hard, cfg: cfg, pause: fault.BetweenSessions,
		connection: slices.Concat(group.PromptRetries(), connection, []kgo.Opt{kgo.WithHooks(proc.reporter.ConnectionHook(), proc.quotas), kgo.WithLogger(group.ClientLog{Logger: proc.reporter.Logger})}),
	}
	for {
		if over, err := r.next(); over {
			return err
		}
	}
}

// runner has the sessions of a process, one after another.
type runner struct {
	*process
	ctx, hard  context.Context // told to stop; told to give up
	cfg        config.Config
	connection []kgo.Opt
	pause      fault.Backoff
	fenced     []time.Time      // in the last minute
	member     group.Membership // of the session before, until the next one has joined
}

// next does a session and says whether the process is over, and with what. If it is,
// the group has been left; a session that is about to begin anew stays a member.
func (r *runner) next() (over bool, err error) {
	life, die := context.WithCancel(context.Background())
	defer die()
	// The client does not look at the context of a request while it opens a
	// connection, but at its own.
	defer context.AfterFunc(r.hard, func() { time.AfterFunc(group.LeaveTime, die) })()
	connection := append(slices.Clip(r.connection), kgo.WithContext(life))
	first, err := kgo.NewClient(connection...)
	if err != nil {
		return true, fault.Usage(err, "")
	}
	defer first.Close()
	admin, err := kgo.NewClient(append(connection, kgo.AlwaysRetryEOF())...) // see prompt
	if err != nil {
		return true, fault.Usage(err, "")
	}
	defer admin.Close()

	before := r.reporter.Commits.Load()
	err = r.session(first, admin)
	strangers := errors.Is(err, group.ErrStrangers)
	if over, err = r.outcome(err); !over {
		committed := r.reporter.Commits.Load() > before
		r.reporter.Quiet.Store(!committed)
		if committed {
			r.pause = fault.BetweenSessions
		}
		over, err = r.pause.Wait(r.ctx) != nil, nil
	}
	if over || strangers {
		r.member.Leave(admin, die, r.reporter, r.cfg.Group, r.cfg.Instance)
		r.member = group.Membership{}
	}
	return over, err
}

// outcome says what comes of the end of a session: whether the process is over, and
// with what.
func (r *runner) outcome(err error) (over bool, _ error) {
	permanent := fault.Permanent(r.cfg, err)
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, new(*fault.Fault)):
		return true, err
	case r.ctx.Err() != nil:
		r.reporter.Logger.Warn("stopped without a last commit; the next start goes on from the one before", "err", err)
		return true, nil
	case permanent != nil:
		return true, permanent
	case fault.IsFenced(err) && !errors.Is(err, txn.ErrOverdue):
		if r.fenced = lastMinute(append(r.fenced, time.Now())); len(r.fenced) >= 3 {
			return true, fault.Failed(fmt.Errorf("fenced three times in a minute as %q: %w", r.cfg.TransactionalID(), err),
				"another process uses this group and instance; give each its own TIDEMARK_INSTANCE")
		}
	}
	if fault.IsExpired(err) {
		r.reporter.Info(txn.Expired, err, "transactional_id", r.cfg.TransactionalID())
		r.publisher.SetStage("taking the transactional id again, which the brokers have forgotten")
		return false, nil
	}
	r.reporter.Warn("starting over from the last commit", err)
	r.publisher.SetStage(fmt.Sprintf("starting over from the last commit: %v", err))
	return false, nil
}

func lastMinute(times []time.Time) []time.Time {
	for len(times) > 0 && time.Since(times[0]) > time.Minute {
		times = times[1:]
	}
	return times
}

// session does one session, from the preflight on.
func (r *runner) session(first, admin *kgo.Client) error {
	cfg, adm := r.cfg, kadm.NewClient(admin)
	r.publisher.ProbeWith(adm)
	defer r.publisher.ProbeWith(nil)
	topics, err := preflight.Check(r.ctx, kadm.NewClient(first), adm, cfg, cfg.EventTime, r.reporter, r.cluster)
	if r.ctx.Err() != nil {
		return nil // told to stop before there was anything to commit
	}
	if err != nil {
		return err
	}
	s := newSession(cfg, append(slices.Clip(r.connection), kgo.AlwaysRetryEOF()), adm, topics, r.process)
	s.cluster.Log(s.log)
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
		if gts, err = kgo.NewGroupTransactSession(s.clientOpts()...); err == nil {
			s.use(gts.Client(), gts)
		}
	} else {
		var cl *kgo.Client
		if cl, err = kgo.NewClient(s.clientOpts()...); err == nil {
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
	if errors.Is(err, kerr.FencedInstanceID) || (fault.IsFenced(err) || errors.Is(err, kerr.InvalidTxnState)) && group.Replaced(r.ctx, s.cl, s.adm, cfg, s.reporter) {
		r.member = group.Membership{} // it is the other one's
		return fault.Failed(fmt.Errorf("instance %q of group %q was started a second time: %w", cfg.Instance, cfg.Group, err),
			"the younger one goes on; give each process its own TIDEMARK_INSTANCE")
	}
	return err
}

// takeOver ends the transaction that an earlier run of this instance may have left open.
func (s *session) takeOver(admin *kgo.Client) error {
	defer s.waits.Begin(fault.TransactionWait(fault.CommandsFor(s.cfg), "the end of the transaction that an earlier run may have left open", time.Second))()
	return group.Fence(s.stopping, admin, s.cfg.TransactionalID(), s.cfg.TransactionTimeout, s.waits.Answered)
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

func newSession(cfg config.Config, connection []kgo.Opt, adm *kadm.Client, topics map[string]preflight.Topic, proc *process) *session {
	opts := reorder.Options{
		Strategy: cfg.Watermark.Law(),
		Bound:    cfg.MaxOutOfOrderness, Floor: cfg.MinOutOfOrderness, TargetLate: int(cfg.TargetLate),
		Window: cfg.WatermarkWindow, Lateness: cfg.WatermarkLateness,
		IdleTimeout: cfg.IdleTimeout, MaxFuture: cfg.MaxFuture, ReanchorAfter: cfg.ReanchorAfter,
	}
	if cfg.Dedup.On() {
		opts.Identity = cfg.Dedup.Identity
	}
	s := &session{
		cfg: cfg, log: proc.reporter.Logger, reporter: proc.reporter, cluster: proc.cluster, wallClock: proc.wallClock, limits: proc.limits, publisher: proc.publisher,
		ledgers: proc.ledgers, latency: &proc.latency, waits: &proc.reporter.Waits,
		topics: topics, connection: connection, extract: proc.extractor(cfg), schemas: proc.schemas, adm: adm,
		begun: proc.begun, quotas: proc.quotas, acks: &proc.acks,
		engine:    reorder.NewEngine(opts, int64(cfg.Memory)),
		headers:   cfg.OutputHeaders(),
		parts:     map[string]map[int32]*partition{},
		suspended: map[emit.Source]*suspension{},
		slowest:   watermark.None,
		start:     time.Now(),
		expected:  newWaits(fault.CommandsFor(cfg)),
	}
	s.admin = &group.Admin{Config: cfg, Kadm: adm, Reporter: s.reporter, Topics: topics, Atomic: cfg.Delivery == config.ExactlyOnce}
	s.member = group.NewMember(s.admin)
	s.loader = &recovery.Loader{Admin: s.admin, Cluster: s.cluster, Fingerprint: s.extract.Fingerprint(), WallClock: s.wallClock}
	s.stopAt(context.Background())
	s.rivals = &group.Rivals{Admin: s.admin, Cluster: s.cluster, Now: s.now, EndWith: s.endWith}
	s.watcher = group.NewWatcher(s.now, s.reporter, s.member.Wake)
	s.ledgers.Abort()
	s.line = pipeline.New(pipeline.Options{
		Config: cfg, Extract: s.extract, Schemas: s.schemas, Producers: proc.producers, Reporter: s.reporter, Checked: proc.looked,
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
	s.cl, s.gts, s.admin.Client = cl, gts, cl
	s.writer = txn.New(txn.Options{
		Config: s.cfg, Client: cl, Session: gts, Admin: s.adm, Reporter: s.reporter, Limits: s.limits, Acks: s.acks,
		Group:    txn.Membership{Allow: func() { s.cl.AllowRebalance() }, Block: s.member.Block, Moved: s.takeEvents},
		Batches:  s.engine,
		MaxBatch: s.maxBatch,
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

// run loops until ctx is done or the session fails. The membership outlives it.
func (s *session) run(ctx, hard context.Context) error {
	// What of the client no context of ours reaches ends with the client.
	defer context.AfterFunc(hard, s.member.Cancel)()
	watching, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	if s.watcher.Client == nil {
		s.watcher.Client = s.cl
	}
	s.watcher.Decompress, _ = s.cl.OptValue(kgo.WithDecompressor).(kgo.Decompressor)
	go func() {
		defer close(done)
		var beside sync.WaitGroup
		beside.Go(func() { s.rivals.Watch(watching) })
		s.watcher.Watch(watching)
		beside.Wait()
	}()
	s.publisher.Open(s.member.Wake)
	err := s.loop(ctx, hard)
	s.placeFound()
	s.publisher.Close()
	stop()
	<-done
	group.CloseClient(s.cl, s.member.Cancel)
	return err
}

// awaitGroup waits until nobody else is in the group, and tells of who is. To end with an
// error instead would be no use: a supervisor would start us again, and when the others
// are gone, or are our own of an earlier version that are being replaced, we can go on.
func (r *runner) awaitGroup(adm *kadm.Client) {
	_ = group.AwaitGroup(r.ctx, adm, r.reporter, r.cfg, func(others error) error {
		r.publisher.SetStage(others.Error())
		return nil
	})
}
