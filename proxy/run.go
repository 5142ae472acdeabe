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
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// stopTime is how long a clean end may take after ctx is done.
const stopTime = 8 * time.Second

// Run reorders the configured topics until ctx is done, and then ends
// cleanly: what is open is committed, the group is left. An error has a hint
// and an exit code where there is a cure; see Fault.
func Run(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	return RunOn(ctx, cfg, log, NewBoard(""))
}

// RunOn does what Run does, and board shows what it is doing.
func RunOn(ctx context.Context, cfg config.Config, log *slog.Logger, board *Board) error {
	proc := newProcess(log)
	proc.board = board
	connection, err := cfg.ClientOpts(proc.alarm.stale)
	if err != nil {
		return usage(err, "")
	}
	log.Info("starting", "brokers", cfg.Brokers, "topics", cfg.Topics, "group", cfg.Group, "instance", cfg.Instance,
		"delivery", string(cfg.Delivery), "watermark", string(cfg.Watermark), "max_out_of_orderness", cfg.MaxOutOfOrderness.String(), "memory", cfg.Memory.String())
	warnInClear(cfg, log)
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
	defer context.AfterFunc(ctx, func() { time.AfterFunc(stopTime, cancel) })()
	return runSessions(ctx, hard, cfg, connection, proc)
}

// runSessions does one session after the other until ctx is done. hard ends
// what is under way by then.
func runSessions(ctx, hard context.Context, cfg config.Config, connection []kgo.Opt, proc *process) error {
	if err := proc.askRegistry(cfg); err != nil {
		return err
	}
	defer proc.closeRegistry()
	defer proc.showOn(ctx, cfg)()
	connection = slices.Concat(prompt(), connection, []kgo.Opt{kgo.WithHooks(lines{proc.alarm})})
	var fenced []time.Time
	pause := betweenSessions
	for {
		before := proc.alarm.commits.Load()
		err := runSession(ctx, hard, cfg, connection, proc)
		fault := forGood(cfg, err)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil && errors.Is(err, context.Canceled):
			proc.alarm.log.Warn("stopped without a last commit; the next start goes on from the one before", "err", err)
			return nil
		case errors.As(err, new(*Fault)):
			return err
		case fault != nil:
			return fault
		case isFenced(err) && !errors.Is(err, errOverdue):
			if fenced = lastMinute(append(fenced, time.Now())); len(fenced) >= 3 {
				return failed(fmt.Errorf("fenced three times in a minute as %q: %w", cfg.TransactionalID(), err),
					"another process uses this group and instance; give each its own TIDEMARK_INSTANCE")
			}
		}
		proc.alarm.raise("starting over from the last commit", err)
		proc.board.says(fmt.Sprintf("starting over from the last commit: %v", err))
		proc.alarm.fruitless.Store(proc.alarm.commits.Load() == before)
		if proc.alarm.commits.Load() > before {
			pause = betweenSessions
		}
		if pause.wait(ctx) != nil {
			return nil
		}
	}
}

// betweenSessions is the pause between sessions, as long as none of them
// commits anything. It stays short: once a broker is back, the output is to go
// on within 3 s.
var betweenSessions = backoff{first: 250 * time.Millisecond, longest: time.Second}

func isFenced(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch) || errors.Is(err, kerr.InvalidProducerIDMapping)
}

func lastMinute(times []time.Time) []time.Time {
	for len(times) > 0 && time.Since(times[0]) > time.Minute {
		times = times[1:]
	}
	return times
}

// runSession does one session from preflight to leaving the group.
func runSession(ctx, hard context.Context, cfg config.Config, connection []kgo.Opt, proc *process) error {
	connection = append(slices.Clip(connection), kgo.WithLogger(clientLog{proc.alarm.log}))
	first, err := kgo.NewClient(connection...)
	if err != nil {
		return usage(err, "")
	}
	defer first.Close()
	connection = append(connection, kgo.AlwaysRetryEOF()) // see prompt
	admin, err := kgo.NewClient(connection...)
	if err != nil {
		return usage(err, "")
	}
	defer admin.Close()
	adm := kadm.NewClient(admin)
	proc.board.reach(adm)
	defer proc.board.reach(nil)
	topics, err := preflightOver(ctx, kadm.NewClient(first), adm, cfg, cfg.EventTime, proc.alarm)
	if ctx.Err() != nil {
		return nil // told to stop before there was anything to commit
	}
	if err != nil {
		return err
	}
	s := newSession(cfg, connection, adm, topics, proc)
	s.alarm.sessions.Add(1)
	s.stopping = ctx
	if s.schemas != nil {
		s.schemas.Notify(s.poke)
	}
	if cfg.Delivery == config.ExactlyOnce {
		if err := fenceOwn(ctx, admin, cfg.TransactionalID(), cfg.TransactionTimeout); err != nil {
			return s.explainFence(err)
		}
		if s.gts, err = kgo.NewGroupTransactSession(s.clientOpts()...); err == nil {
			s.cl = s.gts.Client()
		}
	} else {
		s.cl, err = kgo.NewClient(s.clientOpts()...)
	}
	if err != nil {
		return usage(err, "")
	}
	proc.board.says("joining the group")
	close(s.ready)
	if err = s.run(ctx, hard); errors.Is(err, kerr.FencedInstanceID) || isFenced(err) && s.replaced(ctx) {
		return failed(fmt.Errorf("instance %q of group %q was started a second time: %w", cfg.Instance, cfg.Group, err),
			"the younger one goes on; give each process its own TIDEMARK_INSTANCE")
	}
	return err
}

func (s *session) explainFence(err error) error {
	if f := forbidden(s.cfg, err); f != nil {
		return f
	}
	err = fmt.Errorf("take over the transactional id %q: %w", s.cfg.TransactionalID(), err)
	if errors.Is(err, kerr.InvalidTransactionTimeout) {
		return usage(err, "it must not be above the brokers' transaction.max.timeout.ms: lower TIDEMARK_TRANSACTION_TIMEOUT")
	}
	return err
}

// replaced reports whether another process has joined the group under our
// instance id. It tells being fenced by a double of ours, who must win, from
// being fenced by a survivor or by a timeout. A double asks for the producer
// id first and joins right after, so it is given a moment.
func (s *session) replaced(ctx context.Context) bool {
	ours, _ := s.cl.GroupMetadata()
	for range 8 {
		groups, err := s.adm.DescribeGroups(ctx, s.cfg.Group)
		if err != nil {
			s.alarm.raise("cannot tell whether another process uses this instance", err, "group", s.cfg.Group)
			return false
		}
		for _, m := range groups[s.cfg.Group].Members {
			if m.InstanceID != nil && *m.InstanceID == s.cfg.Instance && m.MemberID != ours {
				return true
			}
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return false
		}
	}
	return false
}

func newSession(cfg config.Config, connection []kgo.Opt, adm *kadm.Client, topics map[string]Topic, proc *process) *session {
	opts := reorder.Options{
		Strategy: cfg.Watermark.Law(),
		Bound:    cfg.MaxOutOfOrderness, Floor: cfg.MinOutOfOrderness, TargetLate: int(cfg.TargetLate),
		Window: cfg.WatermarkWindow, Lateness: cfg.WatermarkLateness,
		IdleTimeout: cfg.IdleTimeout, MaxFuture: cfg.MaxFuture, ReanchorAfter: cfg.ReanchorAfter,
	}
	if cfg.Dedup.On() {
		opts.Identity = cfg.Dedup.Identity
	}
	life, die := context.WithCancel(context.Background())
	s := &session{
		life: life, die: die,
		cfg: cfg, log: proc.alarm.log, alarm: proc.alarm, wallClock: proc.wallClock, limits: proc.limits, producers: proc.producers, board: proc.board,
		accounts: proc.accounts, latency: &proc.latency,
		topics: topics, connection: connection, extract: proc.extractor(cfg), schemas: proc.schemas, adm: adm,
		stamps: cfg.EventTime.UsesTimestamp(), looked: proc.looked,
		engine:   reorder.NewEngine(opts, int64(cfg.Memory)),
		headers:  headersOf(cfg),
		parts:    map[string]map[int32]*partition{},
		refusals: map[emit.Source]refused{},
		stuck:    map[emit.Source]place{},
		stopped:  map[emit.Source]watermark.Instant{},
		reasons:  map[emit.Source]standing{},
		waiting:  map[emit.Source]wanted{},
		recoil:   recoil,
		slowest:  watermark.None,
		owned:    &ownership{GroupBalancer: kgo.CooperativeStickyBalancer()},
		ready:    make(chan struct{}),
		requests: make(chan assignment, 1),
		answers:  make(chan ends, 1),
		start:    time.Now(), committed: time.Now(),
		released: newReleased(cfg),
	}
	s.accounts.undo()
	s.takeOff()
	return s
}

func headersOf(cfg config.Config) emit.Headers {
	return emit.Headers{
		Prefix: cfg.HeaderPrefix, Watermark: cfg.Headers.Watermark,
		SourceOffset: cfg.Headers.SourceOffset, EventTime: cfg.Headers.EventTime, Windows: cfg.Windows,
	}
}

// run loops until ctx is done or the session fails, and leaves the group.
func (s *session) run(ctx, hard context.Context) error {
	watching, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { s.watch(watching); close(done) }()
	s.board.opened(s.poke)
	err := s.loop(ctx, hard)
	s.board.closed()
	stop()
	<-done
	s.leave(hard, err)
	return err
}

// leave ends the membership. The client never leaves a group by itself that
// it joined as a static member, and then nobody would take over until the
// session timeout. After a failure it stays a member: it is about to be back.
func (s *session) leave(ctx context.Context, err error) {
	if err == nil {
		_, left := s.adm.LeaveGroup(ctx, kadm.LeaveGroup(s.cfg.Group).InstanceIDs(s.cfg.Instance).Reason("stopped"))
		if left != nil {
			s.alarm.raise("cannot leave the group; its partitions wait for the session timeout", left, "group", s.cfg.Group)
		}
	}
	// Nothing is left for the client to do. If it is still trying to join, it
	// would go on trying before it closes.
	s.die()
	closed := make(chan struct{})
	go func() { s.cl.CloseAllowingRebalance(); close(closed) }()
	select {
	case <-closed:
		return
	case <-ctx.Done():
	}
	select {
	case <-closed:
	case <-time.After(closeTime): // the client waits for a broker that does not answer
	}
}

// closeTime is what the client gets to close its connections when all time is
// up.
const closeTime = time.Second
