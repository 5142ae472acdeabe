package repair

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/preflight"

	"github.com/tidemarkhq/tidemark/proxy/txn"
)

// Options say what to repair, and how.
type Options struct {
	To      string        // topic for the corrections; empty: the source's name with .corrections
	Reasons []string      // of repair.Reasons
	TTL     time.Duration // how long after they were found late records are corrected
	Every   time.Duration // from one run to the next; 0: only one run
	DryRun  bool          // nothing is written

	Report   func(Report) error      // is given what each run did, also one that failed underway
	Progress func(done, total int64) // offsets of a run; may be nil
}

// Run publishes late records, in order of event time, as corrections. One run
// goes from where the last one ended to the ends that the late topics have when it
// begins. Corrections and offsets are committed together, as a group and a
// transactional id of its own, which every repair of a group takes over from the one
// before. Of two at the same time one continues, and the other one fails: who is fenced but
// still has its place in the group takes the id back, and who has lost that place ends.
//
// It ends cleanly when ctx is done: what is open is aborted, and left to the next run. Until
// then it retries while brokers are down.
func Run(ctx context.Context, cfg config.Config, o Options, log *slog.Logger) error {
	if err := preflight.CheckCorrectionsTopic(cfg, o.To); err != nil {
		return err
	}
	proc := NewProcess(log)
	connection, err := cfg.ClientOpts(proc.Reporter.StaleFile)
	if err != nil {
		return fault.Usage(err, "")
	}
	log.Info("starting a repair", "brokers", cfg.Brokers, "topics", cfg.Topics, "group", ConfigOf(cfg).Group,
		"reasons", o.Reasons, "ttl", o.TTL.String(), "every", o.Every.String(), "dry_run", o.DryRun, "memory", cfg.Memory.String())
	preflight.WarnInClear(cfg, log)
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(group.StopTime, cancel) })()
	defer proc.Reporter.ReportWaits()()
	return RunOver(ctx, hard, cfg, o, connection, proc)
}

// leastTimeout is the minimum transaction timeout of a repair. Readers do not wait for its
// records as for those of the sidecar, and aborting it costs more.
const leastTimeout = time.Minute

// ConfigOf is the configuration of a repair beside that of its sidecar.
func ConfigOf(cfg config.Config) config.Config {
	cfg.Group += ".repair"
	cfg.Instance = fault.RepairInstance
	cfg.Delivery = config.ExactlyOnce
	cfg.TransactionTimeout = max(cfg.TransactionTimeout, leastTimeout)
	return cfg
}

// Process is what outlives the runs.
type Process struct {
	Reporter  *fault.Reporter
	Cluster   *preflight.Cluster
	Limits    *txn.Limits // of commits
	WallClock func() time.Time
}

func NewProcess(log *slog.Logger) *Process {
	return &Process{Reporter: fault.NewReporter(log), Cluster: new(preflight.Cluster), Limits: txn.NewLimits(), WallClock: time.Now}
}

// RunOver does one run after the other until ctx is done; then hard ends what is still under
// way.
func RunOver(ctx, hard context.Context, cfg config.Config, o Options, connection []kgo.Opt, proc *Process) error {
	for {
		began := time.Now()
		p := &repairRun{
			Process: proc, cfg: ConfigOf(cfg), opts: o, limit: int64(cfg.Memory), rooms: txn.NewLimits(), refusals: map[string]int{}, owed: map[owedAt]owed{},
			connection: slices.Concat(group.PromptRetries(), connection, []kgo.Opt{kgo.WithHooks(proc.Reporter.ConnectionHook()), kgo.WithLogger(group.ClientLog{Logger: proc.Reporter.Logger}), kgo.MaxDecompressBatchBytes(group.DecompressLimit(int64(cfg.Memory)))}),
			now:        proc.WallClock(), report: NewReport(o.DryRun),
		}
		err := p.run(ctx, hard)
		if o.Every > 0 && errors.Is(err, errOwed) {
			err = nil // logged, and tried again by the next run
		}
		var told error
		if p.nothing || len(p.report.Partitions) > 0 { // else it has found out nothing
			told = o.Report(p.report)
		}
		if err != nil || told != nil || o.Every == 0 {
			return cmp.Or(err, told)
		}
		wait := time.NewTimer(time.Until(began.Add(o.Every)))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return nil
		}
	}
}

// repairRun is one run.
type repairRun struct {
	*Process
	cfg        config.Config
	opts       Options
	connection []kgo.Opt
	now        time.Time
	ends       kadm.ListedOffsets // of the late topics, when the run began
	limit      int64              // bytes to hold
	refusals   map[string]int     // of output partitions, in this run
	owed       map[owedAt]owed    // where the run ends before the end
	rooms      *txn.Limits        // of batches, in this run
	report     Report
	nothing    bool // there is nothing new on the late topics
	pause      fault.Backoff
	fenced     group.Fencings
	member     group.Membership // of the session before, until the next one has joined
	doubtful   []*Share         // of a transaction of which we were not told how it ended
}

// run does sessions until one has come to the end.
func (p *repairRun) run(ctx, hard context.Context) error {
	p.pause = fault.BetweenSessions
	for {
		if over, err := p.next(ctx, hard); over {
			return err
		}
	}
}

// next does a session and says whether the run is over, and with what. If it is, the
// group has been left.
func (p *repairRun) next(ctx, hard context.Context) (over bool, err error) {
	contact, err := group.OpenContact(hard, p.connection)
	if err != nil {
		return true, err
	}
	defer contact.Close()

	before := p.Reporter.Commits.Load()
	if over, err = p.outcome(ctx, p.session(ctx, hard, contact.First, contact.Admin)); !over {
		if p.Reporter.Commits.Load() > before {
			p.pause = fault.BetweenSessions
		}
		over, err = p.pause.Wait(ctx) != nil, nil
	}
	if over {
		p.member.Leave(contact.Admin, contact.Cancel, p.Reporter, p.cfg.Group, p.cfg.Instance)
	}
	return over, err
}

// outcome says what comes of the end of a session: whether the run is over, and with
// what.
func (p *repairRun) outcome(ctx context.Context, err error) (over bool, _ error) {
	permanent := p.forGood(err)
	switch {
	case ctx.Err() != nil:
		return true, nil // told to stop: what was open is done again by the next run
	case err == nil:
		return true, p.stillOwed()
	case errors.Is(err, errOwed):
		return false, nil // and the others are corrected
	case permanent != nil:
		return true, permanent
	case errors.Is(err, txn.ErrOverdue):
		p.limit = max(p.limit/2, leastShare)
	}
	p.Reporter.Warn("starting over from the last commit", err)
	return false, nil
}

// owedAt is a partition of a late topic.
type owedAt struct {
	late      string
	partition int32
}

// owed is an offset of a late topic from which on this run corrects nothing.
type owed struct {
	from  int64
	fault *fault.Fault
}

// stillOwed returns a fault for each partition that could not be corrected to its end.
func (p *repairRun) stillOwed() error {
	var all fault.Faults
	for _, at := range slices.SortedFunc(maps.Keys(p.owed), func(a, b owedAt) int {
		return cmp.Or(strings.Compare(a.late, b.late), cmp.Compare(a.partition, b.partition))
	}) {
		all = append(all, p.owed[at].fault)
	}
	return all.Err()
}

// leastShare is a size that a transaction can always have, in bytes.
const leastShare = 1 << 20

// forGood returns a fault if retrying does not help.
func (p *repairRun) forGood(err error) error {
	if errors.As(err, new(*fault.Fault)) {
		return err
	}
	t := fault.CommandsFor(p.cfg)
	switch {
	case fault.IsFenced(err) && !errors.Is(err, txn.ErrOverdue) && p.fenced.Add():
		return p.another(err)
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		source := p.cfg.Topics[0]
		return fault.Usage(err, "allow it, for each of the topics: "+t.Allow("--topic", p.cfg.LateTopic(source), kadm.OpRead, kadm.OpDescribe)+
			"; and "+t.Allow("--topic", preflight.CorrectionsTopic(p.opts.To, source), kadm.OpWrite, kadm.OpDescribe))
	case errors.Is(err, kgo.ErrMaxDecompress):
		return fault.Failed(fmt.Errorf("%w (%v)", err, config.ByteSize(group.DecompressLimit(int64(p.cfg.Memory)))),
			"Tidemark did not write this batch; to correct its records all the same, raise TIDEMARK_MEMORY")
	case errors.Is(err, kerr.InvalidTransactionTimeout):
		return fault.Usage(err, fmt.Sprintf("a repair needs a transaction timeout of %v: raise the brokers' transaction.max.timeout.ms", p.cfg.TransactionTimeout))
	}
	if f := fault.Permanent(p.cfg, err); f != nil {
		return f
	}
	return nil
}

// another is the end of a run whose place another one has taken.
func (p *repairRun) another(err error) error {
	return fault.Failed(fmt.Errorf("another repair of group %q was started: %w", p.cfg.Group, err),
		"the other one continues, and nothing is corrected twice; run only one at a time")
}

// session does what is left of the run, as far as it gets.
func (p *repairRun) session(ctx, hard context.Context, first, admin *kgo.Client) error {
	adm := kadm.NewClient(admin)
	topics, err := preflight.CheckRepair(ctx, kadm.NewClient(first), adm, p.cfg, p.opts.To, p.opts.DryRun, p.Reporter, p.Cluster)
	if err != nil {
		return err
	}
	stretches, err := p.survey(ctx, adm, topics)
	if p.nothing = err == nil && len(stretches) == 0; err != nil || p.nothing {
		return err
	}
	if p.opts.DryRun {
		p.report = NewReport(true) // nothing is kept of a session that failed
		return p.read(ctx, admin, topics, stretches, func(_ context.Context, shares []*Share) error {
			p.report.Add(shares)
			return nil
		})
	}
	if err := p.awaitGroup(ctx, adm); err != nil {
		return err
	}
	w, err := p.openWriter(topics)
	if err != nil {
		return err
	}
	defer context.AfterFunc(hard, w.die)()
	if err = w.takeOver(ctx); err == nil {
		stretches, err = p.survey(kadm.RequireStable(ctx), adm, topics)
	}
	if err == nil {
		p.doubtful, p.nothing = nil, len(stretches) == 0
		err = p.read(ctx, admin, topics, stretches, func(ctx context.Context, shares []*Share) error { return w.publish(ctx, hard, shares) })
	}
	overtaken := group.Overtaken(ctx, err, w.gts.Client(), adm, p.cfg, p.Reporter)
	group.CloseClient(w.gts.Client(), w.die)
	p.member.After(w.gts.Client(), !errors.Is(err, group.ErrStrangers))
	if overtaken {
		p.member = group.Membership{} // it is the other one's
		return p.another(err)
	}
	return err
}

// awaitGroup waits until nobody else is in the group: for as long as brokers keep a
// repair of an earlier version that died. A batch job does not wait for consumers.
func (p *repairRun) awaitGroup(ctx context.Context, adm *kadm.Client) error {
	began := time.Now()
	return group.AwaitGroup(ctx, adm, p.Reporter, p.cfg, func(others error) error {
		if time.Since(began) > p.cfg.SessionTimeout+fault.BetweenSessions.Longest {
			return fault.Usage(fmt.Errorf("join group %q: %w", p.cfg.Group, others), group.StrangersHint(fault.CommandsFor(p.cfg)))
		}
		return nil
	})
}

// unreadable returns what tells of late records that are not corrected because they do not
// say what they are. Such a record may be one of ours that was so large that it had to go
// without headers: then it has no room for them.
func (p *repairRun) unreadable(topics []preflight.Corrections) func(*kgo.Record, error) {
	limits := map[string]int32{}
	for _, t := range topics {
		limits[t.Late] = t.LateMax
	}
	return func(r *kgo.Record, err error) {
		where := []any{"topic", r.Topic, "partition", r.Partition, "offset", r.Offset}
		size, limit := emit.WireSize(r), int(limits[r.Topic])
		if errors.Is(err, emit.ErrNotRouted) && limit > 0 && size+preflight.HeaderRoom > limit {
			p.Reporter.Warn("a late record had to go without headers, because it was too large with them; it is not corrected",
				fmt.Errorf("%w: it has %d bytes before compression, and %s of the topic is %d", err, size, fault.MaxMessageBytes, limit),
				append(where, "hint", "for records still to come, raise the limit: "+fault.CommandsFor(p.cfg).Set(r.Topic, fault.MaxMessageBytes, fmt.Sprint(size+preflight.HeaderRoom)))...)
			return
		}
		p.Reporter.Warn("a late record cannot be read as one of Tidemark's; it is not corrected", err, where...)
	}
}

// noTime tells of a late record that cannot be put in order. It is one of ours, whatever the
// reason for which it was late.
func (p *repairRun) noTime(r *kgo.Record, err error) {
	p.Reporter.Warn("a late record still has no usable event time; it is not corrected", err, "topic", r.Topic, "partition", r.Partition, "offset", r.Offset,
		"hint", "check TIDEMARK_EVENT_TIME; once it is right, set back the offsets of group "+p.cfg.Group+" and repair again (docs/repair.md)")
}

// progressStep is how many offsets are worth a word.
const progressStep = 1000

// read goes through the stretches.
func (p *repairRun) read(ctx context.Context, cl *kgo.Client, topics []preflight.Corrections, stretches []Stretch, publish func(context.Context, []*Share) error) error {
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	eventTime, done, err := config.EventTimes(ctx, p.cfg, giveUp)
	if err != nil {
		return err
	}
	defer done()
	g := Reading{
		Rule: Rule{
			Prefix: p.cfg.HeaderPrefix, EventTime: eventTime, Reasons: p.opts.Reasons, TTL: p.opts.TTL, Now: p.now,
		},
		Limit: p.limit, Most: p.Limits.Offsets(txn.OffsetBytes),
		Unreadable: p.unreadable(topics),
		NoTime:     p.noTime,
		Split: func(s Stretch) {
			p.Reporter.Logger.Warn("the corrections of a partition do not fit into memory; writing them in several transactions, each in order by itself",
				"topic", s.Late, "partition", s.Partition, "memory", config.ByteSize(p.limit).String())
		},
	}
	if p.opts.Progress != nil {
		var done, told, total int64
		for _, s := range stretches {
			total += s.End - s.Start
		}
		g.Progress = func(offsets int64) {
			if done += offsets; done-told >= progressStep || done == total {
				told = done
				p.opts.Progress(done, total)
			}
		}
	}
	err = g.Run(ctx, cl, stretches, publish)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// survey returns what there is to do, partition by partition. With a stable
// context the offsets of transactions that are still open are waited for.
func (p *repairRun) survey(ctx context.Context, adm *kadm.Client, topics []preflight.Corrections) ([]Stretch, error) {
	var names []string
	for _, t := range topics {
		names = append(names, t.Late)
	}
	starts, err := listed(ctx, "first offsets", adm.ListStartOffsets, names)
	if err != nil {
		return nil, err
	}
	ends, err := listed(ctx, "last stable offsets", adm.ListCommittedOffsets, names)
	if err != nil {
		return nil, err
	}
	if p.ends == nil {
		p.ends = ends
	}
	commits, err := p.commits(ctx, adm)
	if err != nil {
		return nil, err
	}
	p.settleDoubts(commits)
	var stretches []Stretch
	for _, t := range topics {
		for n := range t.Partitions {
			start, ok := starts.Lookup(t.Late, n)
			end, ok2 := ends.Lookup(t.Late, n)
			last, ok3 := p.ends.Lookup(t.Late, n)
			if !ok || !ok2 || !ok3 {
				continue // it is younger than the run
			}
			s := Stretch{Source: t.Source, Late: t.Late, To: t.To, Partition: n, Start: start.Offset, End: min(end.Offset, last.Offset)}
			if c, ok := commits.Lookup(t.Late, n); ok && c.At >= 0 && !OfAnother(c.Metadata, t.ID) {
				s.Start, s.Gone = max(s.Start, c.At), max(0, s.Start-c.At)
				if c.At > end.Offset {
					p.Reporter.Logger.Warn("the group's offset is beyond the end of a late topic; nothing is corrected until the topic reaches it",
						"topic", t.Late, "partition", n, "committed_offset", c.At, "end_offset", end.Offset)
				}
			}
			if o, ok := p.owed[owedAt{t.Late, n}]; ok {
				s.End = min(s.End, o.from)
			}
			if s.Start < s.End || s.Gone > 0 {
				s.End = max(s.Start, s.End)
				stretches = append(stretches, s)
			}
		}
	}
	return stretches, nil
}

// Metadata is the metadata of a repair's commits. It says which topic an offset is for,
// because a topic may be created again under the same name.
func Metadata(id [16]byte) string { return fmt.Sprintf(metadataWords+"%x", id) }

const metadataWords = "late topic "

// OfAnother reports whether a commit is for an earlier topic of the same name. Offsets set
// by tools have other metadata, and are for the present topic. Brokers before 2.8 have no
// topic ids and report zero.
func OfAnother(metadata string, id [16]byte) bool {
	none := [16]byte{}
	return strings.HasPrefix(metadata, metadataWords) && metadata != Metadata(id) &&
		metadata != Metadata(none) && id != none
}

func listed(ctx context.Context, what string, list func(context.Context, ...string) (kadm.ListedOffsets, error), topics []string) (kadm.ListedOffsets, error) {
	all, err := list(ctx, topics...)
	if err == nil {
		err = all.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list the %s of late topics: %w", what, err)
	}
	return all, nil
}

// commits returns the offsets of the group.
func (p *repairRun) commits(ctx context.Context, adm *kadm.Client) (kadm.OffsetResponses, error) {
	pause := fault.Backoff{First: 20 * time.Millisecond, Longest: time.Second}
	for {
		all, err := adm.FetchOffsets(ctx, p.cfg.Group)
		if errors.Is(err, kerr.GroupIDNotFound) {
			return nil, nil
		}
		if err == nil {
			err = all.Error()
		}
		if err == nil {
			return all, nil
		}
		if !errors.Is(err, kerr.UnstableOffsetCommit) {
			return nil, fmt.Errorf("fetch the offsets of group %q: %w", p.cfg.Group, err)
		}
		p.Reporter.Info("waiting for the end of a transaction that holds offsets of the group", err, "group", p.cfg.Group)
		if err := pause.Wait(ctx); err != nil {
			return nil, err
		}
	}
}

// settleDoubts adds a transaction to the report that was committed although we did not get
// the answer.
func (p *repairRun) settleDoubts(commits kadm.OffsetResponses) {
	if len(p.doubtful) == 0 {
		return
	}
	s := p.doubtful[0]
	if c, ok := commits.Lookup(s.Late, s.Partition); ok && c.At >= s.Next {
		p.report.Add(p.doubtful)
		p.doubtful = nil
	}
}
