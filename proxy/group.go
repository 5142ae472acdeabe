package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// A consumer that gets into our group takes partitions, and commits offsets of which
// nobody knows what is owed below them. So there are two guards. In a group of ours
// brokers let nobody in: see protocol and marked. And we go into no group that has other
// members: we wait until they are gone, see awaitGroup. A group with the new protocol
// (KIP-848) would take us in beside its members.

// protocol is the name of our way to share partitions. Brokers refuse a member of a group
// that does not know it.
const protocol = "tidemark"

// ProtocolName is the balancer's name to the brokers. What members send each other, and
// how partitions move, is the cooperative-sticky one's.
func (o *ownership) ProtocolName() string { return protocol }

// MemberBalancer returns one that marks what it assigns.
func (o *ownership) MemberBalancer(members []kmsg.JoinGroupResponseMember) (kgo.GroupMemberBalancer, map[string]struct{}, error) {
	b, topics, err := o.GroupBalancer.MemberBalancer(members)
	if err != nil {
		return nil, nil, err
	}
	return marked{b}, topics, nil
}

// marked writes user data into each assignment. Kafka turns a group into one of the new
// protocol as soon as a consumer with group.protocol=consumer wants to join it, and shares
// the partitions anew by itself; only where assignments have user data it does not, for
// that would be lost (4.1.1: ConsumerGroup.fromClassicGroup). Who wants to join is told
// GROUP_ID_NOT_FOUND.
type marked struct{ kgo.GroupMemberBalancer }

var _ kgo.GroupMemberBalancerOrError = marked{}

// BalanceOrError is what the client calls.
func (m marked) BalanceOrError(topics map[string]int32) (kgo.IntoSyncAssignment, error) {
	if b, ok := m.GroupMemberBalancer.(kgo.GroupMemberBalancerOrError); ok {
		plan, err := b.BalanceOrError(topics)
		return markedPlan{plan}, err
	}
	return markedPlan{m.Balance(topics)}, nil
}

type markedPlan struct{ plan kgo.IntoSyncAssignment }

// IntoSyncAssignment returns what each member is sent.
func (p markedPlan) IntoSyncAssignment() []kmsg.SyncGroupRequestGroupAssignment {
	all := p.plan.IntoSyncAssignment()
	for i := range all {
		var a kmsg.ConsumerMemberAssignment
		if a.ReadFrom(all[i].MemberAssignment) == nil {
			a.UserData = []byte(protocol)
			all[i].MemberAssignment = a.AppendTo(nil)
		}
	}
	return all
}

// errStrangers says that others than we are in the group.
var errStrangers = errors.New("the group has members that are not Tidemark")

// strangers returns the members of the group that do not share partitions as we do; none
// while a rebalance has not shown yet how it is shared.
func strangers(ctx context.Context, adm *kadm.Client, group string) ([]string, error) {
	groups, err := adm.DescribeGroups(ctx, group)
	g := groups[group]
	switch err = cmp.Or(err, g.Err); {
	case err != nil && !errors.Is(err, kerr.GroupIDNotFound):
		return nil, fmt.Errorf("describe group %q: %w", group, err)
	case err == nil && len(g.Members) > 0:
		if g.Protocol == "" || g.Protocol == protocol {
			return nil, nil
		}
		var names []string
		for _, m := range g.Members {
			names = append(names, m.ClientID+m.ClientHost)
		}
		return distinct(names), nil
	}
	// It has no members, or not such as this tells of: it may be one of the new protocol.
	modern, err := adm.DescribeConsumerGroups(ctx, group)
	m := modern[group]
	if err = cmp.Or(err, m.Err); err != nil {
		if errors.Is(err, kerr.GroupAuthorizationFailed) || ctx.Err() != nil {
			return nil, fmt.Errorf("describe group %q: %w", group, err)
		}
		return nil, nil // there is none, or the brokers do not know the protocol
	}
	var names []string
	for _, m := range m.Members {
		if m.MemberType != 0 { // it is no classic member
			names = append(names, m.ClientID+m.ClientHost)
		}
	}
	return distinct(names), nil
}

func distinct(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// awaitGroup waits until nobody else is in the group, and tells of who is. To end with an
// error instead would be no use: a supervisor would start us again, and when the others
// are gone, or are our own of an earlier version that are being replaced, we can go on.
func (r *runner) awaitGroup(adm *kadm.Client) {
	_ = awaitGroup(r.ctx, adm, r.reporter, r.cfg, func(others error) error {
		r.publisher.SetStage(others.Error())
		return nil
	})
}

// awaitGroup waits until nobody else is in the group. As long as somebody is, it goes on if
// meanwhile returns nil. Else, and when ctx is done, it returns why it has ended.
func awaitGroup(ctx context.Context, adm *kadm.Client, reporter *fault.Reporter, cfg config.Config, meanwhile func(others error) error) error {
	for pause := betweenSessions; ; {
		others := strangersIn(ctx, adm, reporter, cfg)
		if others == nil {
			return nil
		}
		if err := meanwhile(others); err != nil {
			return err
		}
		if err := pause.Wait(ctx); err != nil {
			return err
		}
	}
}

// amongOurselves returns an error if others have come into the group before us. Nobody
// comes after.
func (s *session) amongOurselves() error {
	if others := strangersIn(s.stopping, s.adm, s.reporter, s.cfg); others != nil {
		return fmt.Errorf("join group %q: %w", s.cfg.Group, others)
	}
	return nil
}

// strangersIn looks who else is in the group, and tells of them; its errStrangers names
// them. That it cannot find out is no reason to stop.
func strangersIn(ctx context.Context, adm *kadm.Client, reporter *fault.Reporter, cfg config.Config) error {
	asking, cancel := context.WithTimeout(ctx, fencePatience)
	defer cancel()
	others, err := strangers(asking, adm, cfg.Group)
	if err != nil && ctx.Err() == nil {
		reporter.Warn("cannot tell whether others than Tidemark are in the group", err, "group", cfg.Group)
	}
	if len(others) == 0 {
		return nil
	}
	reporter.Throttle("", slog.LevelError, fault.None, "the group has members that are not Tidemark; waiting until they are gone",
		"group", cfg.Group, "members", others, "hint", strangersHint(fault.CommandsFor(cfg)))
	return fmt.Errorf("%w: %s", errStrangers, strings.Join(others, ", "))
}

func strangersHint(t fault.Commands) string {
	return "stop them, or use a TIDEMARK_GROUP of its own; who they are: " +
		t.Line("kafka-consumer-groups", "--describe", "--members", "--group", t.Config.Group) +
		"; if they are instances of a version of Tidemark that shares partitions otherwise, stop them all before the new ones start"
}
