package group

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// A process that is told to stop, or that ends with a fault, is gone within the sum of
// these, whatever brokers do. It stays below the 10 s after which Docker kills a container.
const (
	StopTime  = 6 * time.Second // for what is under way, the last commit included
	LeaveTime = 2 * time.Second // to leave the group
	CloseTime = time.Second     // to close the client's connections
)

// Membership is what a process is to the brokers as a member of its group. A static
// member stays one when its client is closed, until the session timeout, and nobody
// else gets its partitions meanwhile. So it outlives sessions, and whoever ends the
// process ends it too: see leave.
type Membership struct {
	ID string // that brokers gave us last; empty: none
	// asked says that a client has asked to join since, and has not been told its id:
	// brokers hold that answer back until all members have joined.
	asked bool
}

// After takes note of the membership of a client that has ended.
func (m *Membership) After(cl *kgo.Client, asked bool) {
	if id, _ := cl.GroupMetadata(); id != "" {
		*m = Membership{ID: id}
	} else if asked {
		m.asked = true
	}
}

// Leave ends the membership. The client does not do it: it never leaves a group that it
// joined as a static member. cl is another one, which is ended by die when it takes too
// long.
//
// Leaving takes our own member id, and brokers refuse it once another process has taken
// the place of our instance, as they should: to leave by the instance alone would throw
// that one out. Only who has asked to join and not been told its id has no other way.
func (m *Membership) Leave(cl *kgo.Client, die context.CancelFunc, reporter *fault.Reporter, group, instance string) {
	ctx, cancel := context.WithTimeout(context.Background(), LeaveTime)
	defer cancel()
	defer context.AfterFunc(ctx, die)()
	var err error
	if m.ID != "" {
		err = leaveGroup(ctx, cl, group, m.ID, instance)
	}
	if m.asked && (m.ID == "" || notMember(err)) {
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

// Overtaken reports whether err is how a session ends whose place another process has
// taken: the group says so itself, or the transactional id is the other's, and so is our
// place in the group.
func Overtaken(ctx context.Context, err error, cl *kgo.Client, adm *kadm.Client, cfg config.Config, reporter *fault.Reporter) bool {
	return errors.Is(err, kerr.FencedInstanceID) ||
		(fault.IsFenced(err) || errors.Is(err, kerr.InvalidTxnState)) && Replaced(ctx, cl, adm, cfg, reporter)
}

// Fencings are when a process lost its transactional id and went on.
type Fencings []time.Time

// Add adds one and reports whether it is the third within a minute: then somebody else
// uses the id as well, and neither gets anywhere.
func (f *Fencings) Add() (tooMany bool) {
	for len(*f) > 0 && time.Since((*f)[0]) > time.Minute {
		*f = (*f)[1:]
	}
	*f = append(*f, time.Now())
	return len(*f) >= 3
}

// Replaced reports whether another process has joined the group under our
// instance id. It tells being fenced by a double of ours, who must win, from
// being fenced by a survivor or by a timeout. A double asks for the producer
// id first and joins right after, so it is given a moment.
//
// Since Kafka 4, who commits a transaction that another's producer id has already
// aborted is not told that it was fenced, but INVALID_TXN_STATE: to the coordinator
// the older epoch is that of a commit tried again, which does not fit the abort.
//
// Whoever is thrown out of the group, because it was suspended for longer than its
// session, joins again without a member id; if it is fenced before it is given a new
// one, the member under its instance id is itself. A double would have been seen then:
// with it in our place we are answered FENCED_INSTANCE_ID.
func Replaced(ctx context.Context, cl *kgo.Client, adm *kadm.Client, cfg config.Config, reporter *fault.Reporter) bool {
	ours, _ := cl.GroupMetadata()
	if ours == "" {
		return false
	}
	for range 8 {
		groups, err := adm.DescribeGroups(ctx, cfg.Group)
		if err != nil {
			reporter.Warn("cannot check whether another process uses this instance", err, "group", cfg.Group)
			return false
		}
		for _, m := range groups[cfg.Group].Members {
			if m.InstanceID != nil && *m.InstanceID == cfg.Instance && m.MemberID != ours {
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

// CloseClient closes a client that is a member of a group, in bounded time. die ends
// what it is doing: one that still tries to join would go on trying before it closes.
func CloseClient(cl *kgo.Client, die context.CancelFunc) {
	die()
	closed := make(chan struct{})
	go func() { cl.CloseAllowingRebalance(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(CloseTime): // it waits for a broker that does not answer
	}
}
