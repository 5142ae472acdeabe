package group

import (
	"slices"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Balancer is a balancer that remembers what the group assigned last. The
// transaction session hides a revocation from us when another has come since
// the last transaction ended, and then it is the only one that knows.
type Balancer struct {
	kgo.GroupBalancer
	latest atomic.Pointer[map[string][]int32]
	asked  atomic.Bool // the client has asked to join
}

func NewBalancer() *Balancer {
	return &Balancer{GroupBalancer: kgo.CooperativeStickyBalancer()}
}

// JoinGroupMetadata is called with every question to join the group.
func (o *Balancer) JoinGroupMetadata(topics []string, mine map[string][]int32, generation int32) []byte {
	o.asked.Store(true)
	return o.GroupBalancer.JoinGroupMetadata(topics, mine, generation)
}

// ParseSyncAssignment takes note of a new assignment.
func (o *Balancer) ParseSyncAssignment(assignment []byte) (map[string][]int32, error) {
	mine, err := o.GroupBalancer.ParseSyncAssignment(assignment)
	if err == nil {
		o.assign(mine)
	}
	return mine, err
}

// assign sets what the group has assigned to us.
func (o *Balancer) assign(mine map[string][]int32) { o.latest.Store(&mine) }

func (o *Balancer) has(topic string, n int32) bool {
	mine := o.latest.Load()
	return mine != nil && slices.Contains((*mine)[topic], n)
}

// Protocol is the name of our way to share partitions. Brokers refuse a member of a group
// that does not know it.
const Protocol = "tidemark"

// ProtocolName is the balancer's name to the brokers. What members send each other, and
// how partitions move, is the cooperative-sticky one's.
func (o *Balancer) ProtocolName() string { return Protocol }

// MemberBalancer returns one that marks what it assigns.
func (o *Balancer) MemberBalancer(members []kmsg.JoinGroupResponseMember) (kgo.GroupMemberBalancer, map[string]struct{}, error) {
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
			a.UserData = []byte(Protocol)
			all[i].MemberAssignment = a.AppendTo(nil)
		}
	}
	return all
}
