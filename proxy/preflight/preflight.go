package preflight

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
)

// checkWith looks at everything that Tidemark needs of the cluster before it
// reads a record, creates outputs that are missing, and returns the topics by
// the name of the source.
//
// Brokers that cannot be reached, or are not ready, or that let us in before and do
// not now, are asked again until ctx is done. Everything else is decided at once: the error is a Fault, or the
// Faults of all topics together. Nothing is changed while there is a fault.
//
// It needs no more than a run does: READ and DESCRIBE on the sources, WRITE
// and DESCRIBE on the outputs, READ on the group, WRITE and DESCRIBE on the
// transactional id. With CREATE it creates outputs, with ALTER it lets them
// grow with their source, with DESCRIBE_CONFIGS it compares their settings.
// Several instances may do this at the same time.
func checkWith(ctx context.Context, adm *kadm.Client, cfg config.Config, ex *timestamp.Extractor, reporter *fault.Reporter, cluster *Cluster) (map[string]Topic, error) {
	return Check(ctx, adm, adm, cfg, ex, reporter, cluster)
}

// Check makes the first contact over a client of its own.
func Check(ctx context.Context, first, adm *kadm.Client, cfg config.Config, ex *timestamp.Extractor, reporter *fault.Reporter, cluster *Cluster) (map[string]Topic, error) {
	p := &inspection{first: first, adm: adm, cfg: cfg, tools: fault.CommandsFor(cfg), extract: ex, reporter: reporter, cluster: cluster, examine: (*round).source}
	return p.patiently(ctx)
}

// patiently asks until the brokers are ready.
func (p *inspection) patiently(ctx context.Context) (map[string]Topic, error) {
	reporter := p.reporter
	pause := fault.Backoff{First: 250 * time.Millisecond}
	ctx = kadm.WithAuthorizedOps(ctx) // also keeps the client from answering out of its cache
	for {
		// Each attempt for itself: of one that failed we tell anyway.
		asked := reporter.Waits.Begin(fault.Wait{What: "the topics, and what we may do with them", After: 2 * reachPatience})
		topics, err := p.settle(ctx)
		asked()
		switch {
		case err == nil:
			p.cluster.entered.Store(true)
			return topics, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case p.cluster.entered.Load() && fault.HandshakeHint(err) != "":
			pause.Longest = refusedPause
			reporter.Error("", "the brokers do not let us in any more; asking again", err, "hint", fault.HandshakeHint(err))
		case !Transient(err):
			return nil, p.final(err)
		default:
			pause.Longest = time.Second
			reporter.Warn("the brokers are not ready; asking again", err, fault.HintArgs(fault.EOFHint(err))...)
		}
		if err := pause.Wait(ctx); err != nil {
			return nil, err
		}
	}
}

// refusedPause is the longest pause between logins that are refused: too many of them,
// and some lock the account.
const refusedPause = 10 * time.Second

// inspection is what preflight knows across its attempts.
type inspection struct {
	first    *kadm.Client // tells at once why brokers close connections
	adm      *kadm.Client
	cfg      config.Config
	tools    fault.Commands
	extract  *timestamp.Extractor
	reporter *fault.Reporter
	cluster  *Cluster

	examine  func(r *round, ctx context.Context, topic string) error // looks at one of the topics
	rehearse bool                                                    // nothing is changed
	lenient  bool                                                    // a partition of an output may be without a leader
}

// settled is how long a change may take to be seen by all brokers before it is
// worth a warning.
const settled = 5 * time.Second

// errLeaderless says that nobody leads a partition of an output.
var errLeaderless = errors.New("it has no leader")

// errUnsettled says that a topic is not, or not yet, as it has to be.
var errUnsettled = errors.New("not ready yet")

// settle makes rounds until there is nothing left to change. A broker learns
// of a new topic or partition a little later than the controller that made it.
func (p *inspection) settle(ctx context.Context) (map[string]Topic, error) {
	pause := fault.Backoff{First: 20 * time.Millisecond, Longest: time.Second}
	for began := time.Now(); ; {
		topics, err := p.round(ctx)
		switch late := time.Since(began) > settled; {
		case late && errors.Is(err, errLeaderless) && !p.lenient:
			p.lenient = true // it is no new topic: what goes there waits by itself
			continue
		case late, !errors.Is(err, errUnsettled):
			return topics, err
		}
		if err := pause.Wait(ctx); err != nil {
			return nil, err
		}
	}
}

// round is one look at everything. It returns errUnsettled when there was
// something to change.
func (p *inspection) round(ctx context.Context) (map[string]Topic, error) {
	r := &round{inspection: p, topics: map[string]Topic{}}
	for _, step := range []func(context.Context) error{r.reach, r.access, r.inspect, r.report, r.change} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return r.topics, nil
}

// round collects what one look finds.
type round struct {
	*inspection
	topics  map[string]Topic
	faults  fault.Faults
	changes []change
	hidden  []string // topics whose settings may not be seen
	waiting error    // a topic is not complete yet
}

func (r *round) fault(err error, hint string) { r.faults = append(r.faults, fault.Usage(err, hint)) }

// warn logs what keeps nobody from starting.
func (p *inspection) warn(msg, topic, hint string) {
	p.reporter.WarnOnce(topic, msg, append([]any{"topic", topic}, fault.HintArgs(hint)...)...)
}

const reachPatience = 5 * time.Second

// reach finds a broker that answers. A firewall that drops packets, or a broker
// that closes every connection, would leave us without a word for a long time.
func (r *round) reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reachPatience)
	defer cancel()
	told, err := r.first.BrokerMetadata(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %v: %w", reachPatience, err)
	}
	if err != nil {
		return fmt.Errorf("reach the brokers %s: %w", strings.Join(r.cfg.Brokers, ","), err)
	}
	return r.cluster.Check(r.cfg, told.Cluster)
}

// access asks whether we may use the group and the transactional id. Whoever
// may READ or WRITE them may also DESCRIBE them, so that is what is tried; who
// may only DESCRIBE them is found out at their first use.
func (r *round) access(ctx context.Context) error {
	group, id := r.cfg.Group, r.cfg.TransactionalID()
	answers := []error{r.adm.FindGroupCoordinators(ctx, group)[group].Err}
	if r.cfg.Delivery == config.ExactlyOnce {
		answers = append(answers, r.adm.FindTxnCoordinators(ctx, id)[id].Err)
	}
	for _, err := range answers {
		if f := fault.Forbidden(r.cfg, err); f != nil {
			r.faults = append(r.faults, f)
		} else if err != nil {
			return fmt.Errorf("find the coordinators of group %q and transactional id %q: %w", group, id, err)
		}
	}
	return nil
}

func (r *round) inspect(ctx context.Context) error {
	for _, name := range r.cfg.Topics {
		if err := r.examine(r, ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// find looks for a topic without creating it, even where brokers do that for
// whoever asks.
func (r *round) find(ctx context.Context, role, name string) (*view, error) {
	v := &view{role: role, name: name}
	found, err := r.adm.Metadata(ctx, name)
	v.TopicDetail = found.Topics[name]
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		v.denied = true
		return v, nil
	case err == nil && !v.missing():
		err = v.Err
	}
	if err != nil {
		return nil, fmt.Errorf("look up the %s: %w", v, err)
	}
	return v, nil
}

// look finds a topic and reads its settings, if that is allowed.
func (r *round) look(ctx context.Context, role, name string) (*view, error) {
	v, err := r.find(ctx, role, name)
	if err != nil || v.denied || v.missing() {
		return v, err
	}
	found, err := r.adm.DescribeTopicConfigs(ctx, name)
	if err == nil {
		var c kadm.ResourceConfig
		c, err = found.On(name, nil)
		err = cmp.Or(err, c.Err)
		v.settings = make(settings, len(c.Configs))
		for _, s := range c.Configs {
			v.settings[s.Key] = s
		}
	}
	switch {
	case err == nil:
		return v, nil
	case fault.Denied(err):
		r.hidden = append(r.hidden, name)
		v.settings = nil
		return v, nil
	case errors.Is(err, kerr.UnknownTopicOrPartition): // not every broker knows it yet
		err = fmt.Errorf("%w: %w", errUnsettled, err)
	}
	return nil, fmt.Errorf("read the settings of the %s: %w", v, err)
}

// report ends the round if there are faults. What may not be seen is told of
// in one warning for all topics.
func (r *round) report(context.Context) error {
	if len(r.hidden) > 0 {
		slices.Sort(r.hidden)
		topics := strings.Join(r.hidden, ",")
		r.warn("settings of topics are hidden: cleanup, retention, timestamps and record size go unchecked, and new outputs get the brokers' defaults", topics,
			"allow it, for each of the topics: "+r.tools.Allow("--topic", r.hidden[0], kadm.OpDescribeConfigs))
	}
	return r.faults.Err()
}

// change makes the changes, and sends for another round to see them.
func (r *round) change(ctx context.Context) error {
	if r.rehearse {
		return nil
	}
	for _, c := range r.changes {
		if err := r.make(ctx, c, false); err != nil {
			return err
		}
	}
	if err := r.faults.Err(); err != nil {
		return err
	}
	if len(r.changes) > 0 {
		return fmt.Errorf("%s: %w", r.changes[0], errUnsettled)
	}
	return r.waiting
}

// change is something to be made or altered on the brokers.
type change interface {
	String() string
	// request makes it, or with dry set only asks whether it would be made.
	request(ctx context.Context, adm *kadm.Client, dry bool) error
	// raced is the answer when another instance was faster.
	raced() *kerr.Error
	// byHand is the command that makes it.
	byHand(t fault.Commands) string
	// needs is the operation on the topic that has to be allowed.
	needs() (topic string, op kadm.ACLOperation)
}

// plan adds a change for when no fault is found, after asking whether it would
// be made.
func (r *round) plan(ctx context.Context, c change) error {
	r.changes = append(r.changes, c)
	return r.make(ctx, c, true)
}

// grow plans to give an output more partitions. Where that is refused, the
// source's new partitions have to wait; nothing else does.
func (r *round) grow(ctx context.Context, g growth) (planned bool, err error) {
	refused := len(r.faults)
	if err := r.make(ctx, g, true); err != nil {
		return false, err
	}
	if len(r.faults) == refused {
		r.changes = append(r.changes, g)
		return true, nil
	}
	for _, f := range r.faults[refused:] {
		r.warn("an output has fewer partitions than its source, and those that it lacks wait: "+f.Error(), g.topic, f.Advice)
	}
	r.faults = r.faults[:refused]
	return false, nil
}

func (r *round) make(ctx context.Context, c change, dry bool) error {
	err := c.request(ctx, r.adm, dry)
	switch {
	case err == nil && !dry:
		r.reporter.Logger.Info("output topics: " + c.String())
		return nil
	case err == nil, errors.Is(err, c.raced()):
		return nil
	case fault.Denied(err):
		topic, op := c.needs()
		r.fault(fmt.Errorf("%s: %w", c, err), "do it by hand: "+c.byHand(r.tools)+"; or allow it: "+r.tools.Allow("--topic", topic, op))
		return nil
	case ctx.Err() != nil, Transient(err):
		return fmt.Errorf("%s: %w", c, err)
	}
	r.fault(fmt.Errorf("%s: %w", c, err), "do it by hand, in the way the brokers ask for: "+c.byHand(r.tools))
	return nil
}

// creation is a new output.
type creation struct {
	topic      string
	partitions int32
	replicas   int16
	settings   []fault.Setting
}

func (c creation) String() string { return "create " + c.topic }

func (c creation) raced() *kerr.Error { return kerr.TopicAlreadyExists }

func (c creation) byHand(t fault.Commands) string {
	return t.Create(c.topic, c.partitions, c.replicas, c.settings)
}

func (c creation) needs() (string, kadm.ACLOperation) { return c.topic, kadm.OpCreate }

func (c creation) request(ctx context.Context, adm *kadm.Client, dry bool) error {
	settings := make(map[string]*string, len(c.settings))
	for _, s := range c.settings {
		settings[s.Key] = &s.Value
	}
	send := adm.CreateTopics
	if dry {
		send = adm.ValidateCreateTopics
	}
	answers, err := send(ctx, c.partitions, c.replicas, settings, c.topic)
	return answered(cmp.Or(err, answers[c.topic].Err), answers[c.topic].ErrMessage)
}

// growth is more partitions for an output whose source has grown.
type growth struct {
	topic      string
	partitions int32
}

func (g growth) String() string {
	return fmt.Sprintf("grow %s to %d partitions", g.topic, g.partitions)
}

func (g growth) raced() *kerr.Error { return kerr.InvalidPartitions }

func (g growth) byHand(t fault.Commands) string { return t.Grow(g.topic, g.partitions) }

func (g growth) needs() (string, kadm.ACLOperation) { return g.topic, kadm.OpAlter }

func (g growth) request(ctx context.Context, adm *kadm.Client, dry bool) error {
	send := adm.UpdatePartitions
	if dry {
		send = adm.ValidateUpdatePartitions
	}
	answers, err := send(ctx, int(g.partitions), g.topic)
	return answered(cmp.Or(err, answers[g.topic].Err), answers[g.topic].ErrMessage)
}

// answered adds to an error what the broker had to say about it.
func answered(err error, message string) error {
	if err == nil || message == "" {
		return err
	}
	return fmt.Errorf("%w (%s)", err, strings.TrimSuffix(message, "."))
}

// Transient reports whether to ask again may help. Brokers say so themselves;
// an error that does not come from a broker came up on the way to one.
func Transient(err error) bool {
	if errors.Is(err, errUnsettled) {
		return true
	}
	if errors.As(err, new(*fault.Fault)) {
		return false
	}
	if answer, ok := errors.AsType[*kerr.Error](err); ok {
		return answer.Retriable || answer == kerr.UnknownServerError // a fault of a broker, and no answer to the question
	}
	return fault.HandshakeHint(err) == "" && !errors.Is(err, kgo.ErrClientClosed)
}

// final makes a fault of an error that nothing is known about.
func (p *inspection) final(err error) error {
	if errors.As(err, new(*fault.Fault)) {
		return err
	}
	if hint := fault.HandshakeHint(err); hint != "" {
		return fault.Usage(err, hint)
	}
	return fault.Failed(err, "the brokers refuse it for good: see their logs for the reason")
}
