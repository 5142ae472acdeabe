package proxy

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// membership is what a process is to the brokers as a member of its group. A static
// member stays one when its client is closed, until the session timeout, and nobody
// else gets its partitions meanwhile. So it outlives sessions, and whoever ends the
// process ends it too: see leave.
type membership struct {
	id string // that brokers gave us last; empty: none
	// asked says that a client has asked to join since, and has not been told its id:
	// brokers hold that answer back until all members have joined.
	asked bool
}

// after takes note of the membership of a client that has ended.
func (m *membership) after(cl *kgo.Client, asked bool) {
	if id, _ := cl.GroupMetadata(); id != "" {
		*m = membership{id: id}
	} else if asked {
		m.asked = true
	}
}

// leave ends the membership. The client does not do it: it never leaves a group that it
// joined as a static member. cl is another one, which is ended by die when it takes too
// long.
//
// Leaving takes our own member id, and brokers refuse it once another process has taken
// the place of our instance, as they should: to leave by the instance alone would throw
// that one out. Only who has asked to join and not been told its id has no other way.
func (m *membership) leave(cl *kgo.Client, die context.CancelFunc, reporter *fault.Reporter, group, instance string) {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	defer context.AfterFunc(ctx, die)()
	var err error
	if m.id != "" {
		err = leaveGroup(ctx, cl, group, m.id, instance)
	}
	if m.asked && (m.id == "" || notMember(err)) {
		err = leaveGroup(ctx, cl, group, "", instance)
	}
	if err != nil && !notMember(err) {
		reporter.Warn("cannot leave the group; its partitions wait for the session timeout", err, "group", group)
	}
}

// notMember reports that brokers do not know us as a member: we are out already, or
// another process of our instance is in our place.
func notMember(err error) bool {
	return errors.Is(err, kerr.UnknownMemberID) || errors.Is(err, kerr.FencedInstanceID)
}

// leaveGroup has a static member leave; without a member id, whoever has the instance.
func leaveGroup(ctx context.Context, cl *kgo.Client, group, id, instance string) error {
	member := kmsg.NewLeaveGroupRequestMember()
	member.MemberID, member.InstanceID = id, &instance
	member.Reason = kmsg.StringPtr("the process ends")
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group, req.MemberID = group, id
	req.Members = append(req.Members, member)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return err
	}
	err = kerr.ErrorForCode(resp.ErrorCode)
	for _, m := range resp.Members {
		err = errors.Join(err, kerr.ErrorForCode(m.ErrorCode))
	}
	return err
}
