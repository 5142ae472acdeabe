package group

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// A consumer that gets into our group takes partitions, and commits offsets of which
// nobody knows what is owed below them. So there are two guards. In a group of ours
// brokers let nobody in: see Protocol and marked. And we go into no group that has other
// members: we wait until they are gone, see AwaitGroup. A group with the new protocol
// (KIP-848) would take us in beside its members.

// ErrStrangers says that others than we are in the group.
var ErrStrangers = errors.New("the group has members that are not Tidemark")

// strangers returns the members of the group that do not share partitions as we do; none
// while a rebalance has not shown yet how it is shared.
func strangers(ctx context.Context, adm *kadm.Client, group string) ([]string, error) {
	groups, err := adm.DescribeGroups(ctx, group)
	g := groups[group]
	switch err = cmp.Or(err, g.Err); {
	case err != nil && !errors.Is(err, kerr.GroupIDNotFound):
		return nil, fmt.Errorf("describe group %q: %w", group, err)
	case err == nil && len(g.Members) > 0:
		if g.Protocol == "" || g.Protocol == Protocol {
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

// AwaitGroup waits until nobody else is in the group. As long as somebody is, it goes on if
// meanwhile returns nil. Else, and when ctx is done, it returns why it has ended.
func AwaitGroup(ctx context.Context, adm *kadm.Client, reporter *fault.Reporter, cfg config.Config, meanwhile func(others error) error) error {
	for pause := (fault.Backoff{First: 250 * time.Millisecond, Longest: time.Second}); ; {
		others := StrangersIn(ctx, adm, reporter, cfg)
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

// StrangersIn looks who else is in the group, and tells of them; its ErrStrangers names
// them. That it cannot find out is no reason to stop.
func StrangersIn(ctx context.Context, adm *kadm.Client, reporter *fault.Reporter, cfg config.Config) error {
	asking, cancel := context.WithTimeout(ctx, FencePatience)
	defer cancel()
	others, err := strangers(asking, adm, cfg.Group)
	if err != nil && ctx.Err() == nil {
		reporter.Warn("cannot check whether the group has members other than Tidemark", err, "group", cfg.Group)
	}
	if len(others) == 0 {
		return nil
	}
	reporter.Throttle("", slog.LevelError, fault.None, "the group has members that are not Tidemark; waiting until they are gone",
		"group", cfg.Group, "members", others, "hint", StrangersHint(fault.CommandsFor(cfg)))
	return fmt.Errorf("%w: %s", ErrStrangers, strings.Join(others, ", "))
}

func StrangersHint(t fault.Commands) string {
	return "give Tidemark a group of its own (TIDEMARK_GROUP), or stop them; who they are: " +
		t.Line("kafka-consumer-groups", "--describe", "--members", "--group", t.Config.Group) +
		"; if they have committed offsets of these topics, run `tidemark position rebuild` when they are gone; if they are instances of a version of Tidemark that shares partitions otherwise, stop them all before the new ones start"
}
