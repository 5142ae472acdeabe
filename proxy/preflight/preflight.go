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

// Check checks everything that Tidemark needs of the cluster before it reads a record,
// creates missing outputs, and returns the topics by the name of the source.
//
// It retries until ctx is done while brokers cannot be reached or are not ready, or while
// they refuse a login that worked before. Any other error is final: a Fault, or the Faults
// of all topics together. Nothing is changed while there is a fault.
//
// It needs no more permissions than a run does: READ and DESCRIBE on the sources, WRITE and
// DESCRIBE on the outputs, READ on the group, WRITE and DESCRIBE on the transactional id.
// With CREATE it creates outputs, with ALTER it grows them with their source, with
// DESCRIBE_CONFIGS it compares their settings. Several instances may do this at the same
// time.
//
// first is the client for the first contact; it fails at once with the reason when a broker
// closes the connection. reader reads the sources.
func Check(ctx context.Context, first, adm *kadm.Client, reader *kgo.Client, cfg config.Config, ex *timestamp.Extractor, reporter *fault.Reporter, cluster *Cluster) (map[string]Topic, error) {
	p := &inspection{first: first, adm: adm, reader: reader, cfg: cfg, tools: fault.CommandsFor(cfg), extract: ex, reporter: reporter, cluster: cluster, examine: (*round).source}
	return p.patiently(ctx)
}

// patiently retries until the brokers are ready.
func (p *inspection) patiently(ctx context.Context) (map[string]Topic, error) {
	reporter := p.reporter
	pause := fault.Backoff{First: 250 * time.Millisecond}
	p.unknown = map[string]time.Time{}
	ctx = kadm.WithAuthorizedOps(ctx) // also keeps the client from answering out of its cache
	for began := time.Now(); ; {
		// One wait per attempt: a failed attempt is logged anyway.
		asked := reporter.Waits.Begin(fault.Wait{What: "metadata and permissions of the topics", After: 2 * reachPatience})
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
			reporter.Error("", "the brokers refuse connections or logins that worked before; retrying", err, "hint", fault.HandshakeHint(err))
		case !Transient(err):
			return nil, p.final(err)
		case errors.Is(err, kerr.CoordinatorNotAvailable) && time.Since(began) < coordinatorPatience:
			pause.Longest = time.Second
			reporter.Info("the brokers have no coordinator yet: a new cluster creates the topics for it first; retrying", err)
		default:
			pause.Longest = time.Second
			reporter.Warn("the brokers are not ready; retrying", err, fault.HintArgs(cmp.Or(fault.ReachHint(err), coordinatorHint(err)))...)
		}
		if err := pause.Wait(ctx); err != nil {
			return nil, err
		}
	}
}

// coordinatorPatience is how long a new cluster may take to create the topics that hold
// offsets and transactions, which it does when the first group asks for its coordinator.
const coordinatorPatience = 15 * time.Second

// coordinatorHint says why brokers may have no coordinator for long.
func coordinatorHint(err error) string {
	if !errors.Is(err, kerr.CoordinatorNotAvailable) {
		return ""
	}
	return "check that __consumer_offsets and __transaction_state exist and have leaders; a cluster with fewer brokers than offsets.topic.replication.factor or transaction.state.log.replication.factor cannot create them"
}

// refusedPause is the longest pause between refused logins: some brokers lock the account
// after too many.
const refusedPause = 10 * time.Second

// inspection is what preflight knows across its attempts.
type inspection struct {
	first    *kadm.Client // fails at once with the reason when a broker closes the connection
	adm      *kadm.Client
	reader   *kgo.Client // of the sources
	cfg      config.Config
	tools    fault.Commands
	extract  *timestamp.Extractor
	reporter *fault.Reporter
	cluster  *Cluster

	examine  func(r *round, ctx context.Context, topic string) error // checks one of the topics
	rehearse bool                                                    // nothing is changed
	lenient  bool                                                    // a partition of an output may have no leader
	unknown  map[string]time.Time                                    // since when brokers do not know the outputs of a source, although records have come out; see emptied
	warned   time.Duration                                           // spent on finding out what is only warned of
}

// settled is how long a change may take to reach all brokers before it is worth a warning.
const settled = 5 * time.Second

// errLeaderless says that a partition of an output has no leader.
var errLeaderless = errors.New("it has no leader")

// errUnsettled says that a change to a topic has not reached all brokers yet.
var errUnsettled = errors.New("not ready yet")

// settle makes rounds until there is nothing left to change. A broker learns of a new topic
// or partition a little later than the controller that created it.
func (p *inspection) settle(ctx context.Context) (map[string]Topic, error) {
	pause := fault.Backoff{First: 20 * time.Millisecond, Longest: time.Second}
	for began := time.Now(); ; {
		topics, err := p.round(ctx)
		switch late := time.Since(began) > settled; {
		case late && errors.Is(err, errLeaderless) && !p.lenient:
			p.lenient = true // not a new topic: its source partition waits by itself
			continue
		case late, !errors.Is(err, errUnsettled):
			return topics, err
		}
		if err := pause.Wait(ctx); err != nil {
			return nil, err
		}
	}
}

// round checks everything once. It returns errUnsettled when there was something to change.
func (p *inspection) round(ctx context.Context) (map[string]Topic, error) {
	r := &round{inspection: p, topics: map[string]Topic{}}
	for _, step := range []func(context.Context) error{r.reach, r.access, r.inspect, r.report, r.change} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return r.topics, nil
}

// round collects what one check of everything finds.
type round struct {
	*inspection
	topics  map[string]Topic
	faults  fault.Faults
	changes []change
	hidden  []string // topics whose settings we are not allowed to read
	waiting error    // a topic is not complete yet
}

func (r *round) fault(err error, hint string) { r.faults = append(r.faults, fault.Usage(err, hint)) }

// warn logs, once, what does not prevent a start.
func (p *inspection) warn(msg, topic, hint string) {
	p.reporter.WarnOnce(topic, msg, append([]any{"topic", topic}, fault.HintArgs(hint)...)...)
}

const reachPatience = 5 * time.Second

// reach finds a broker that answers, so that a firewall that drops packets, or a broker
// that closes every connection, is reported soon.
func (r *round) reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reachPatience)
	defer cancel()
	metadata, err := r.first.BrokerMetadata(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %v: %w", reachPatience, err)
	}
	if err != nil {
		return fmt.Errorf("reach the brokers %s: %w", strings.Join(r.cfg.Brokers, ","), err)
	}
	return r.cluster.Check(r.cfg, metadata.Cluster)
}

// access checks whether we are allowed to use the group and the transactional id. READ and
// WRITE imply DESCRIBE, so it tries DESCRIBE; if only that is allowed, the first use fails.
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
	var unknown error
	for _, name := range r.cfg.Topics {
		err := r.examine(r, ctx, name)
		if errors.Is(err, errUnknown) { // the topics have the same time to become known
			unknown = err
		} else if err != nil {
			return err
		}
	}
	return unknown
}

// find looks for a topic without creating it, even where brokers create topics on request.
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
		v.settings = settingsOf(c)
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

// report ends the round if there are faults. It warns once of all topics whose settings are
// hidden.
func (r *round) report(context.Context) error {
	if len(r.hidden) > 0 {
		slices.Sort(r.hidden)
		topics := strings.Join(r.hidden, ",")
		r.warn("not allowed to read the settings of topics: cleanup, retention, timestamps and record size go unchecked, and new outputs get the brokers' defaults", topics,
			"allow it, for each of the topics: "+r.tools.Allow("--topic", r.hidden[0], kadm.OpDescribeConfigs))
	}
	return r.faults.Err()
}

// change makes the changes, and asks for another round to see them.
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
	// request makes it or, with dry, only validates it.
	request(ctx context.Context, adm *kadm.Client, dry bool) error
	// raced is the error when another instance was faster.
	raced() *kerr.Error
	// byHand is the command that makes it.
	byHand(t fault.Commands) string
	// needs is the operation on the topic that must be allowed.
	needs() (topic string, op kadm.ACLOperation)
}

// plan adds a change, to be made if no fault is found, and validates it now.
func (r *round) plan(ctx context.Context, c change) error {
	r.changes = append(r.changes, c)
	return r.make(ctx, c, true)
}

// grow plans to give an output more partitions. If brokers refuse, only the source's new
// partitions wait.
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
		r.warn("an output has fewer partitions than its source, and the source partitions without one wait: "+f.Error(), g.topic, f.Advice)
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
		r.fault(fmt.Errorf("%s: %w", c, err), "run it yourself: "+c.byHand(r.tools)+"; or allow it: "+r.tools.Allow("--topic", topic, op))
		return nil
	case ctx.Err() != nil, Transient(err):
		return fmt.Errorf("%s: %w", c, err)
	}
	r.fault(fmt.Errorf("%s: %w", c, err), "run it yourself, changed so that the brokers accept it: "+c.byHand(r.tools))
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

// answered adds the broker's message to its error.
func answered(err error, message string) error {
	if err == nil || message == "" {
		return err
	}
	return fmt.Errorf("%w (%s)", err, strings.TrimSuffix(message, "."))
}

// Transient reports whether retrying may help. Brokers say so in their errors; any other
// error occurred on the way to a broker.
func Transient(err error) bool {
	if errors.Is(err, errUnsettled) {
		return true
	}
	if errors.As(err, new(*fault.Fault)) {
		return false
	}
	if answer, ok := errors.AsType[*kerr.Error](err); ok {
		return answer.Retriable || answer == kerr.UnknownServerError // the broker failed; it did not decide anything
	}
	return fault.HandshakeHint(err) == "" && !errors.Is(err, kgo.ErrClientClosed)
}

// final turns an error that does not go away by itself into a fault.
func (p *inspection) final(err error) error {
	if errors.As(err, new(*fault.Fault)) {
		return err
	}
	if hint := fault.HandshakeHint(err); hint != "" {
		return fault.Usage(err, hint)
	}
	return fault.Failed(err, "retrying does not help; see the brokers' logs for the reason")
}
