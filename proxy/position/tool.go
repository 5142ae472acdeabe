package position

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
	"github.com/tidemarkhq/tidemark/proxy/recovery"
	"github.com/tidemarkhq/tidemark/reorder"
)

// Tool looks at the positions of a group, and changes them.
type Tool struct {
	Config    config.Config
	Client    *kgo.Client // not a member of the group
	Reporter  *fault.Reporter
	WallClock func() time.Time
	// Waits is called once when something has to be waited for. May be nil.
	Waits func(what string)

	adm     *kadm.Client
	cluster string
	topics  map[string]preflight.Topic
}

// Open looks up the topics.
func (t *Tool) Open(ctx context.Context) error {
	t.adm = kadm.NewClient(t.Client)
	var names []string
	for _, source := range t.Config.Topics {
		names = append(names, source, t.Config.OrderedTopic(source), t.Config.LateTopic(source))
	}
	listed, err := t.adm.Metadata(ctx, names...)
	if err != nil {
		return fmt.Errorf("look up the topics: %w", err)
	}
	t.cluster, t.topics = listed.Cluster, map[string]preflight.Topic{}
	for _, source := range t.Config.Topics {
		topic := preflight.Topic{Name: source, Ordered: t.Config.OrderedTopic(source), Late: t.Config.LateTopic(source)}
		if topic.Usable, err = partitionsOf(listed, topic.Ordered); err != nil && !missing(err) {
			return err
		}
		n, err := partitionsOf(listed, topic.Late)
		if err != nil && !missing(err) {
			return err
		}
		topic.Usable = min(topic.Usable, n)
		if topic.Partitions, err = partitionsOf(listed, source); err != nil {
			if missing(err) {
				return fault.Usage(fmt.Errorf("look up the source topic %s: it does not exist", source),
					preflight.Nearest(ctx, t.adm, source)+"check TIDEMARK_TOPICS, or --topic, and where TIDEMARK_BROKERS leads")
			}
			return err
		}
		topic.ID = listed.Topics[source].ID
		t.topics[source] = topic
	}
	return nil
}

func missing(err error) bool { return errors.Is(err, kerr.UnknownTopicOrPartition) }

// partitionsOf returns how many partitions a topic has. Without it there are none.
func partitionsOf(listed kadm.Metadata, topic string) (int32, error) {
	d := listed.Topics[topic]
	if d.Err != nil {
		return 0, fmt.Errorf("look up %s: %w", topic, d.Err)
	}
	return int32(len(d.Partitions)), nil
}

// admin returns who asks about the group.
func (t *Tool) admin() *group.Admin {
	return &group.Admin{Config: t.Config, Client: t.Client, Kadm: t.adm, Reporter: t.Reporter, Topics: t.topics, Silent: true}
}

func (t *Tool) source(topic string, n int32) emit.Source {
	at := t.topics[topic]
	return emit.Source{Topic: topic, Ordered: at.Ordered, Late: at.Late, Partition: n}
}

func (t *Tool) scope(topic string, n int32) reorder.Scope {
	return reorder.Scope{Group: t.Config.Group, TopicID: t.topics[topic].ID, Partition: n, Fingerprint: t.Config.EventTime.Fingerprint()}
}

// Partitions are partitions of topics; nil: all.
type Partitions map[string][]int32

// every returns those of all topics.
func (t *Tool) every() Partitions {
	all := Partitions{}
	for topic, at := range t.topics {
		for n := range at.Partitions {
			all[topic] = append(all[topic], n)
		}
	}
	return all
}

// sources returns partitions in the order in which they are shown.
func (t *Tool) sources(of Partitions) (all []emit.Source) {
	for _, topic := range t.Config.Topics {
		for _, n := range of[topic] {
			all = append(all, t.source(topic, n))
		}
	}
	return all
}

type commits = map[string]map[int32]group.Commit

// transactionPatience is more than brokers take to end a transaction that is overdue: they
// look every 10 s.
const transactionPatience = 30 * time.Second

// fetch reads the group's commits. stable: what open transactions are about to commit is
// waited for, until they have timed out.
func (t *Tool) fetch(ctx context.Context, stable bool) (commits, error) {
	began, pause := time.Now(), fault.Backoff{First: 50 * time.Millisecond, Longest: time.Second}
	for {
		all, err := t.fetchOnce(ctx, stable)
		switch {
		case !errors.Is(err, kerr.UnstableOffsetCommit):
			return all, err
		case time.Since(began) > t.Config.TransactionTimeout+transactionPatience:
			return nil, fault.Failed(err, "an open transaction holds offsets of the group; find it: "+fault.CommandsFor(t.Config).Line("kafka-transactions", "list"))
		}
		t.waits("waiting for the end of a transaction that holds offsets of the group")
		if err := pause.Wait(ctx); err != nil {
			return nil, err
		}
	}
}

func (t *Tool) waits(what string) {
	if t.Waits != nil {
		t.Waits(what)
		t.Waits = nil
	}
}

// fetchOnce asks for what the group has committed for all partitions. A group that nobody
// knows has committed nothing.
func (t *Tool) fetchOnce(ctx context.Context, stable bool) (commits, error) {
	if stable {
		ctx = kadm.RequireStable(ctx)
	}
	found, err := t.adm.FetchOffsets(ctx, t.Config.Group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, fmt.Errorf("fetch the offsets of group %q: %w", t.Config.Group, err)
	}
	all := commits{}
	for topic, at := range t.topics {
		all[topic] = map[int32]group.Commit{}
		for n := range at.Partitions {
			c, ok := found.Lookup(topic, n)
			if !ok {
				all[topic][n] = group.Commit{Offset: -1, LeaderEpoch: -1}
				continue
			}
			if c.Err != nil {
				return nil, fmt.Errorf("fetch the offset of group %q, %s partition %d: %w", t.Config.Group, topic, n, c.Err)
			}
			all[topic][n] = group.Commit{Offset: c.At, LeaderEpoch: c.LeaderEpoch, Metadata: c.Metadata}
		}
	}
	return all, nil
}

// members returns who is in the group, also where the group has the new protocol.
func (t *Tool) members(ctx context.Context) (names []string, err error) {
	described, err := t.adm.DescribeGroups(ctx, t.Config.Group)
	if err == nil {
		err = described[t.Config.Group].Err
	}
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, fmt.Errorf("describe group %q: %w", t.Config.Group, err)
	}
	for _, m := range described[t.Config.Group].Members {
		name := m.ClientID + m.ClientHost
		if m.InstanceID != nil {
			name = *m.InstanceID
		}
		names = append(names, name)
	}
	if len(names) > 0 {
		return names, nil
	}
	modern, err := t.adm.DescribeConsumerGroups(ctx, t.Config.Group)
	if err != nil || modern[t.Config.Group].Err != nil {
		return nil, nil // there is none, or the brokers do not know the protocol
	}
	for _, m := range modern[t.Config.Group].Members {
		names = append(names, m.ClientID+m.ClientHost)
	}
	return names, nil
}

// atRest returns an error while the group has members.
func (t *Tool) atRest(ctx context.Context) error {
	names, err := t.members(ctx)
	if err != nil || len(names) == 0 {
		return err
	}
	return fault.Usage(fmt.Errorf("group %q has live members: %s", t.Config.Group, strings.Join(names, ", ")),
		"stop them first; one that has crashed is a member until its session times out (TIDEMARK_SESSION_TIMEOUT)")
}

// bounds are where the logs of a partition begin and end, for readers of committed records.
type bounds struct{ start, end int64 }

// listed asks where topics begin and end.
func (t *Tool) listed(ctx context.Context, topics ...string) (map[string]map[int32]bounds, error) {
	starts, err := t.adm.ListStartOffsets(ctx, topics...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list the first offsets: %w", err)
	}
	ends, err := t.adm.ListCommittedOffsets(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list the last stable offsets: %w", err)
	}
	all := map[string]map[int32]bounds{}
	ends.Each(func(o kadm.ListedOffset) {
		if all[o.Topic] == nil {
			all[o.Topic] = map[int32]bounds{}
		}
		start, _ := starts.Lookup(o.Topic, o.Partition)
		all[o.Topic][o.Partition] = bounds{start.Offset, o.Offset}
	})
	return all, nil
}

// outputsOf returns the outputs that there are.
func (t *Tool) outputsOf() (names []string) {
	for _, topic := range slices.Sorted(maps.Keys(t.topics)) {
		if at := t.topics[topic]; at.Usable > 0 {
			names = append(names, at.Ordered, at.Late)
		}
	}
	return names
}

// settle waits until nothing is open on the outputs: what a sidecar that died has left open
// is aborted by the brokers when it is overdue.
func (t *Tool) settle(ctx context.Context, of []emit.Source) error {
	outputs := t.outputsOf()
	if len(outputs) == 0 {
		return nil
	}
	began, pause := time.Now(), fault.Backoff{First: 50 * time.Millisecond, Longest: time.Second}
	for {
		ends, err := t.adm.ListEndOffsets(ctx, outputs...)
		if err == nil {
			err = ends.Error()
		}
		if err != nil {
			return fmt.Errorf("list the ends of the outputs: %w", err)
		}
		stable, err := t.listed(ctx, outputs...)
		if err != nil {
			return err
		}
		open, at := "", int32(0)
		for _, src := range of {
			for _, topic := range []string{src.Ordered, src.Late} {
				if end, ok := ends.Lookup(topic, src.Partition); ok && stable[topic][src.Partition].end < end.Offset {
					open, at = topic, src.Partition
				}
			}
		}
		switch {
		case open == "":
			return nil
		case time.Since(began) > t.Config.TransactionTimeout+transactionPatience:
			return fault.Failed(fmt.Errorf("a transaction stays open on %s partition %d", open, at),
				"it is not one of this group's, which would be over by now; find out whose it is: "+
					fault.CommandsFor(t.Config).Line("kafka-transactions", "describe-producers", "--topic", open, "--partition", fmt.Sprint(at)))
		}
		t.waits(fmt.Sprintf("waiting for the end of a transaction on %s partition %d", open, at))
		if err := pause.Wait(ctx); err != nil {
			return err
		}
	}
}

// commit commits for a group without members: brokers refuse it while there are any. It
// asks for the topics by their ids where there are some.
func (t *Tool) commit(ctx context.Context, steps []Step) error {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group = t.Config.Group // generation -1 and no member: a simple consumer
	for _, s := range steps {
		n := len(req.Topics) - 1
		if n < 0 || req.Topics[n].Topic != s.Topic {
			topic := kmsg.NewOffsetCommitRequestTopic()
			topic.Topic, topic.TopicID = s.Topic, t.topics[s.Topic].ID
			req.Topics = append(req.Topics, topic)
			n++
		}
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.LeaderEpoch = s.Partition, s.Commit.Offset, s.Commit.LeaderEpoch
		p.Metadata = &s.Commit.Metadata
		req.Topics[n].Partitions = append(req.Topics[n].Partitions, p)
	}
	resp, err := req.RequestWith(ctx, t.Client)
	if err != nil {
		return fmt.Errorf("commit in group %q: %w", t.Config.Group, err)
	}
	for _, topic := range resp.Topics {
		for _, p := range topic.Partitions {
			err := kerr.ErrorForCode(p.ErrorCode)
			switch {
			case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.IllegalGeneration), errors.Is(err, kerr.RebalanceInProgress):
				return fault.Usage(fmt.Errorf("commit in group %q: it has got members meanwhile: %w", t.Config.Group, err), "stop them and plan again")
			case err != nil:
				return fmt.Errorf("commit in group %q, %s partition %d: %w", t.Config.Group, topic.Topic, p.Partition, err)
			}
		}
	}
	return nil
}

// Explain adds to an error of the brokers what cures it.
func (t *Tool) Explain(err error) error {
	if err == nil || errors.As(err, new(*fault.Fault)) {
		return err
	}
	if f := fault.Forbidden(t.Config, err); f != nil {
		return f
	}
	if errors.Is(err, kerr.TopicAuthorizationFailed) {
		return fault.Usage(err, fault.ReadHint(t.Config, err))
	}
	return fault.Failed(err, fault.ReadHint(t.Config, err))
}

// loader returns who knows the numbers of epochs.
func (t *Tool) loader() *recovery.Loader {
	return &recovery.Loader{Admin: t.admin(), Fingerprint: t.Config.EventTime.Fingerprint(), WallClock: t.WallClock}
}
