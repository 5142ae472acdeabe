package preflight

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// Corrections is a late topic and where its corrections go.
type Corrections struct {
	Source, Late, To string
	ID               [16]byte // of the late topic
	Partitions       int32    // of both
	MaxBatch         int32    // max.message.bytes of the corrections topic; 0 if we are not allowed to read it
	NeededMax        int32    // what it needs for every late record to fit; 0 if not known
	LateMax          int32    // max.message.bytes of the late topic
}

// correctionsSuffix is appended to a source topic's name for its corrections.
const correctionsSuffix = ".corrections"

// CorrectionsTopic returns the topic for the corrections of a source topic: to, unless it
// is empty.
func CorrectionsTopic(to, source string) string {
	if to != "" {
		return to
	}
	return source + correctionsSuffix
}

// CheckCorrectionsTopic refuses to publish corrections to a source, ordered or late topic.
func CheckCorrectionsTopic(cfg config.Config, chosen string) error {
	if chosen != "" && len(cfg.Topics) > 1 {
		return fault.Usage(fmt.Errorf("publish the corrections of %d topics to %s: they would be mixed", len(cfg.Topics), chosen),
			"repair one topic at a time, with TIDEMARK_TOPICS, or omit --to")
	}
	for _, source := range cfg.Topics {
		to := CorrectionsTopic(chosen, source)
		for _, topic := range cfg.Topics {
			what := ""
			switch to {
			case topic:
				what = "a source topic, where the corrections would be late again"
			case cfg.OrderedTopic(topic):
				what = "the ordered topic of " + topic + ", and the corrections would break its order"
			case cfg.LateTopic(topic):
				what = "the late topic of " + topic + ", where the corrections come from"
			default:
				continue
			}
			return fault.Usage(fmt.Errorf("publish corrections to %s: it is %s", to, what),
				"name another topic with --to; consumers upsert what they read there")
		}
	}
	return nil
}

// CheckRepair checks everything that a repair needs of the cluster, and creates missing
// corrections topics with the settings of the late topics. It needs READ and DESCRIBE on
// the late topics, WRITE and DESCRIBE on the corrections topics, READ on its group, WRITE
// and DESCRIBE on its transactional id; it uses CREATE, ALTER and DESCRIBE_CONFIGS like
// Check. With dryRun it changes nothing.
func CheckRepair(ctx context.Context, first, adm *kadm.Client, cfg config.Config, to string, dryRun bool, reporter *fault.Reporter, cluster *Cluster) ([]Corrections, error) {
	found := map[string]Corrections{}
	i := &inspection{
		first: first, adm: adm, cfg: cfg, tools: fault.CommandsFor(cfg), extract: cfg.EventTime, reporter: reporter, cluster: cluster,
		rehearse: dryRun,
		examine: func(r *round, ctx context.Context, source string) error {
			t, err := r.correctable(ctx, source, CorrectionsTopic(to, source))
			found[source] = t
			return err
		},
	}
	if _, err := i.patiently(kadm.WithAuthorizedOps(ctx)); err != nil {
		return nil, err
	}
	var topics []Corrections
	for _, source := range cfg.Topics {
		topics = append(topics, found[source])
	}
	return topics, nil
}

// correctable inspects a late topic and its corrections topic, the latter first: see source.
func (r *round) correctable(ctx context.Context, source, to string) (t Corrections, err error) {
	out, err := r.look(ctx, "corrections topic", to)
	if err != nil {
		return t, err
	}
	late, err := r.look(ctx, "late topic", r.cfg.LateTopic(source))
	if err != nil {
		return t, err
	}
	if out.denied || out.lacks(kadm.OpWrite) {
		r.fault(fmt.Errorf("write to the %s: not allowed to WRITE it: %w", out, kerr.TopicAuthorizationFailed),
			"allow it: "+r.tools.Allow("--topic", out.name, kadm.OpWrite, kadm.OpDescribe))
		out = nil
	}
	switch {
	case late.denied, late.lacks(kadm.OpRead):
		r.fault(fmt.Errorf("read the %s: it does not exist, or not allowed to READ it: %w", late, kerr.TopicAuthorizationFailed),
			"check the name, or allow it: "+r.tools.Allow("--topic", late.name, kadm.OpRead, kadm.OpDescribe))
		return t, nil
	case late.missing():
		r.fault(fmt.Errorf("look up the %s: it does not exist", late),
			"`tidemark run` creates it when it starts: check TIDEMARK_TOPICS and TIDEMARK_LATE_SUFFIX")
		return t, nil
	case out == nil:
		return t, nil
	case out.partitions() > late.partitions():
		r.fault(fmt.Errorf("write to the %s: it has %d partitions, more than the %[4]d of %[3]s", out, out.partitions(), late.name, late.partitions()),
			"name another topic with --to")
		return t, nil
	}
	t = Corrections{Source: source, Late: late.name, To: to, ID: late.ID, MaxBatch: out.settings.maxBatch(), NeededMax: late.settings.neededBatch(r.room()), LateMax: late.settings.maxBatch()}
	t.Partitions, err = r.output(ctx, late, out)
	return t, err
}
