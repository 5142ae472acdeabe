// Package proxy runs Tidemark against Kafka. It is the driver: it polls, has the pure
// packages decide, writes what they decided together with their state, and commits when
// one of them asks for it. run.go has the sessions of a process, session.go the life of a
// session, loop.go one turn, record.go what is done with a record, checkpoint.go commits.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
	"github.com/tidemarkhq/tidemark/proxy/registry"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
	"github.com/tidemarkhq/tidemark/proxy/txn"
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
	args := []any{
		"brokers", cfg.Brokers, "topics", cfg.Topics, "group", cfg.Group, "instance", cfg.Instance,
		"delivery", string(cfg.Delivery), "event_time", cfg.EventTime.Words(), "watermark", string(cfg.Watermark),
	}
	switch cfg.Watermark {
	case config.Punctuated: // there is no bound
		args = append(args, "watermark_header", cfg.WatermarkHeader.String())
	case config.WindowMin:
		args = append(args, "watermark_window", cfg.WatermarkWindow.String(), "watermark_lateness", cfg.WatermarkLateness.String())
	default:
		args = append(args, "max_out_of_orderness", cfg.MaxOutOfOrderness.String())
	}
	if cfg.ClockHeader != "" {
		args = append(args, "clock_header", cfg.ClockHeader)
	}
	log.Info("starting", append(args, "idle_timeout", cfg.IdleTimeout.String(), "max_future", cfg.MaxFuture.String(), "memory", cfg.Memory.String())...)
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
	fenced     group.Fencings
	member     group.Membership // of the session before, until the next one has joined
}

// next does a session and says whether the process is over, and with what. If it is,
// the group has been left; a session that is about to begin anew stays a member.
func (r *runner) next() (over bool, err error) {
	contact, err := group.OpenContact(r.hard, r.connection)
	if err != nil {
		return true, err
	}
	defer contact.Close()

	before := r.reporter.Commits.Load()
	err = r.session(contact.First, contact.Admin)
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
		r.member.Leave(contact.Admin, contact.Cancel, r.reporter, r.cfg.Group, r.cfg.Instance)
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
		r.reporter.Logger.Warn("stopped before the last commit; the next start continues from the one before", "err", err)
		return true, nil
	case permanent != nil:
		return true, permanent
	case fault.IsFenced(err) && !errors.Is(err, txn.ErrOverdue):
		if r.fenced.Add() {
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
	r.publisher.SetTrouble(fmt.Sprintf("starting over from the last commit: %v", err), "")
	return false, nil
}

// process is what outlives the sessions.
type process struct {
	reporter  *fault.Reporter
	cluster   *preflight.Cluster
	limits    *txn.Limits
	wallClock func() time.Time
	producers *clocks.Producers
	publisher *status.Publisher
	ledgers   status.Ledgers
	shown     []status.Partition // in the status made last
	latency   status.Histogram
	schemas   *registry.Registry // nil where nothing needs it
	transport http.RoundTripper  // to it; nil: the network
	looked    map[string]bool    // topics whose append time was checked; see pipeline.Options
	begun     map[emit.Source]time.Time
	quotas    *group.Quotas
	acks      txn.AckLimit
}

func newProcess(log *slog.Logger) *process {
	a := fault.NewReporter(log)
	return &process{
		reporter: a, quotas: group.NewQuotas(a), limits: txn.NewLimits(), wallClock: time.Now,
		producers: clocks.NewProducers(), looked: map[string]bool{}, begun: map[emit.Source]time.Time{},
		publisher: status.NewPublisher(""), ledgers: status.Ledgers{}, cluster: new(preflight.Cluster),
	}
}

// askRegistry opens the schema registry, if the configuration needs one.
func (p *process) askRegistry(cfg config.Config) error {
	if !cfg.EventTime.NeedsSchemas() {
		return nil
	}
	o, err := cfg.RegistryOptions(p.reporter.StaleFile)
	if err != nil {
		return fault.Usage(err, "")
	}
	o.Transport = p.transport
	o.Trouble = func(err error) { registryFailed(p.reporter, err) }
	if p.schemas, err = registry.New(o); err != nil {
		return fault.Usage(err, "")
	}
	return nil
}

// closeRegistry ends the questions that are still asked.
func (p *process) closeRegistry() {
	if p.schemas != nil {
		p.schemas.Close()
	}
}

// extractor returns what reads event times.
func (p *process) extractor(cfg config.Config) *timestamp.Extractor {
	if p.schemas == nil {
		return cfg.EventTime
	}
	return cfg.EventTime.With(p.schemas)
}

// registryFailed counts a question to the schema registry that was not answered, and
// tells of it.
func registryFailed(reporter *fault.Reporter, err error) {
	c := fault.Classify(err)
	reporter.Count(c, err)
	msg := "the schema registry does not answer; trying again"
	if refused, ok := errors.AsType[*registry.RefusedError](err); ok && refused.Denied() {
		msg = "the schema registry refuses access; trying again"
	}
	reporter.Throttle("", slog.LevelWarn, c, msg, "err", err)
}
