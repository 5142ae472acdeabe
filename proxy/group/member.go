package group

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// Member is our membership of the group, over one client. The client calls it from
// goroutines of its own; what concerns the loop, it records as an event or asks as a
// request, and wakes the loop.
//
// Rebalances are held back (BlockRebalanceOnPoll) except while the loop is in Poll, or in
// the end of a transaction that takes long. So whoever calls Poll, or ends a transaction,
// has to take the events (TakeEvents) afterwards, before anything else.
type Member struct {
	admin    *Admin
	balancer *Balancer
	Stopping context.Context    // done when the process is told to stop
	life     context.Context    // the client's; it does nothing once that is done
	Cancel   context.CancelFunc // ends it

	ready    chan struct{} // closed when the client may join
	requests chan Request
	blocked  atomic.Bool // a rebalance waits for AllowRebalance

	stopStabilizing context.CancelFunc // of the assignment before

	mu     sync.Mutex
	events []Event
	woken  bool
	cancel context.CancelFunc // of the poll under way
}

// Event is something that happened to our membership.
type Event struct {
	Revoked map[string][]int32 // these partitions are not ours any more
	// Assigned is what a new generation of the group assigned to us; it may lack partitions
	// of which no revocation tells. nil: the event is a revocation.
	Assigned *map[string][]int32
}

func NewMember(admin *Admin) *Member {
	life, die := context.WithCancel(context.Background())
	return &Member{
		admin: admin, balancer: NewBalancer(), life: life, Cancel: die, Stopping: context.Background(), stopStabilizing: func() {},
		ready: make(chan struct{}), requests: make(chan Request, 1),
	}
}

// slowPoll is how much longer than its deadline a poll may take before it is reported.
const slowPoll = 5 * time.Second

// Options are those of the client that make it a member.
func (m *Member) Options() []kgo.Opt {
	cfg := m.admin.Config
	return []kgo.Opt{
		kgo.WithContext(m.life),
		kgo.ConsumerGroup(cfg.Group),
		kgo.InstanceID(cfg.Instance),
		kgo.SessionTimeout(cfg.SessionTimeout),
		kgo.RebalanceTimeout(rebalanceTimeout(cfg)),
		kgo.Balancers(m.balancer),
		kgo.HeartbeatInterval(Heartbeat),
		kgo.DisableAutoCommit(),

		// Rebalances wait until what has been polled is committed, so that they find
		// nothing to abort. OnPartitionsCallbackBlocked tells that one is waiting.
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsCallbackBlocked(func(context.Context, *kgo.Client) { m.blocked.Store(true); m.Wake() }),
		kgo.OnPartitionsAssigned(m.onAssigned),
		kgo.OnPartitionsRevoked(m.onRevoked),
		kgo.OnPartitionsLost(m.onRevoked),
		kgo.AdjustFetchOffsetsFn(m.position),
	}
}

// Start lets the client join.
func (m *Member) Start() { close(m.ready) }

// Poll waits for records, at most so many, until the deadline or a wake.
func (m *Member) Poll(ctx context.Context, atMost time.Duration, most int) kgo.Fetches {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	m.mu.Lock()
	if m.woken {
		cancel()
	}
	m.woken, m.cancel = false, cancel
	m.mu.Unlock()
	defer m.admin.Reporter.Waits.Begin(fault.Wait{What: "the end of a rebalance of the group", After: atMost + slowPoll})()
	fetches := m.admin.Client.PollRecords(ctx, most)
	if len(fetches) == 0 {
		m.Block() // an empty answer does not hold rebalances back
	}
	return fetches
}

// Block holds rebalances back from now on, once those under way are through.
func (m *Member) Block() {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	m.admin.Client.PollRecords(cancelled, 1)
}

// Wake makes the poll under way, or the next one, return.
func (m *Member) Wake() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.woken = true
	if m.cancel != nil {
		m.cancel()
	}
}

// Allow lets rebalances through until the next poll.
func (m *Member) Allow() {
	m.blocked.Store(false)
	m.admin.Client.AllowRebalance()
}

// RebalancePending reports whether a rebalance waits for allow.
func (m *Member) RebalancePending() bool { return m.blocked.Load() }

// AskedToJoin reports whether the client has asked to join the group.
func (m *Member) AskedToJoin() bool { return m.balancer.asked.Load() }

// NotAsked says that brokers have told us that we are no member.
func (m *Member) NotAsked() { m.balancer.asked.Store(false) }

// Has reports whether the group has assigned a partition to us.
func (m *Member) Has(topic string, n int32) bool { return m.balancer.has(topic, n) }

// TakeRequest returns partitions that are to be taken up; false: there are none. One that
// the group has rebalanced away meanwhile is passed over.
func (m *Member) TakeRequest() (req Request, ok bool) {
	for {
		select {
		case req = <-m.requests:
			if req.ctx.Err() == nil {
				return req, true
			}
		default:
			return req, false
		}
	}
}

// Answer says where reading begins, or, not ok, that the partitions could not be taken up.
func (a Request) Answer(at Positions, ok bool) {
	if !ok {
		close(a.reply)
		return
	}
	a.reply <- at
}

// record takes note of an event for the loop.
func (m *Member) record(e Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, e)
}

// Gone reports whether a partition is not ours any more, by this event.
func (e Event) Gone(topic string, n int32) bool {
	if e.Assigned != nil {
		return !slices.Contains((*e.Assigned)[topic], n)
	}
	return slices.Contains(e.Revoked[topic], n)
}

// PeekEvents returns what TakeEvents will return.
func (m *Member) PeekEvents() []Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.events)
}

// TakeEvents returns what has happened since it was called last.
func (m *Member) TakeEvents() []Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	events := m.events
	m.events = nil
	return events
}

// Assign sets what the group has assigned to us, as an answer of the group does.
func (m *Member) Assign(mine map[string][]int32) { m.balancer.assign(mine) }

// Assigned returns what the group has assigned to us last; nil: nothing yet.
func (m *Member) Assigned() *map[string][]int32 { return m.balancer.latest.Load() }

// onAssigned is called by the client in every new generation of the group, before it
// fetches offsets, while the loop waits in poll. By now everything has been revoked that
// is no longer ours, and nobody else has it yet.
func (m *Member) onAssigned(_ context.Context, _ *kgo.Client, added map[string][]int32) {
	<-m.ready
	m.admin.Reporter.Rebalances.Add(1)
	m.record(Event{Assigned: m.Assigned()})
	if len(added) > 0 && m.admin.Atomic {
		m.admin.fenceDead(m.Stopping, added)
		m.stabilize(added)
	}
}

// onRevoked is called by the client while the loop waits in poll or in the end of a
// transaction, with nothing uncommitted unless the group was lost.
func (m *Member) onRevoked(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	m.record(Event{Revoked: lost})
	m.Wake()
	if len(lost) > 0 {
		m.admin.Reporter.Progress("partitions revoked", "partitions", ListPartitions(lost))
	}
}

// Request asks the loop to take up partitions; reply gets their positions.
type Request struct {
	ctx        context.Context // ends when the group rebalances again
	Partitions map[string][]int32
	reply      chan Positions
}

type Positions map[string]map[int32]kgo.Offset

// position is called by the client when it has fetched offsets and is about
// to read. ctx ends when the group rebalances again.
func (m *Member) position(ctx context.Context, fetched map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	req := Request{ctx: ctx, Partitions: map[string][]int32{}, reply: make(chan Positions, 1)}
	for topic, ps := range fetched {
		for n := range ps {
			req.Partitions[topic] = append(req.Partitions[topic], n)
		}
	}
	select {
	case m.requests <- req:
		m.Wake()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case at, ok := <-req.reply:
		if !ok {
			return nil, fmt.Errorf("partitions %v could not be taken up", req.Partitions)
		}
		return at, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// stabilize sees to it that offsets of newly assigned partitions can be read at all:
// the client asks for them until they are stable, for ever, and we hear nothing of it.
// It looks once before the client does, and goes on beside it if need be.
func (m *Member) stabilize(added map[string][]int32) {
	a := m.admin
	ctx, cancel := context.WithCancel(m.life)
	m.stopStabilizing()
	m.stopStabilizing = cancel
	req, names := a.offsetRequest(a.Config.Group, added, true)
	stable := func(ctx context.Context) bool {
		_, err := a.fetchOnce(ctx, req, names)
		return !errors.Is(err, kerr.UnstableOffsetCommit) // any other the client meets itself, and tells
	}
	first, giveUp := context.WithTimeout(m.Stopping, FencePatience)
	defer giveUp()
	if stable(first) {
		return
	}
	h := new(holders)
	a.heldBack(first, a.Config.Group, h, kerr.UnstableOffsetCommit)
	go func() {
		pause := fault.Backoff{First: 100 * time.Millisecond, Longest: time.Second}
		for pause.Wait(ctx) == nil && !stable(ctx) && ctx.Err() == nil {
			a.heldBack(ctx, a.Config.Group, h, kerr.UnstableOffsetCommit)
		}
	}()
}
