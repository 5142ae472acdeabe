package proxy

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

// plan is what a seed has in store.
type plan struct {
	seed      uint64
	brokers   int
	version   *kversion.Versions
	oldTxn    bool // of before KIP-890
	delivery  config.Delivery
	members   int
	bound     time.Duration
	strategy  config.Strategy
	idle      time.Duration
	memory    string
	reanchor  int
	session   time.Duration
	txn       time.Duration
	env       []string
	work      workload
	span      time.Duration
	events    []event
	faultless bool // nothing goes wrong; instances may come and go politely
	rebound   bool // the bound changes
	apart     bool // brokers refuse the records of one partition for a while, and nothing else goes wrong
	crashEnd  bool // all crash in the end, and one is started
	busy      bool // in the end one partition catches up slowly, and another is quiet
	hole      bool // in the end a log has offsets without records behind its last one
	hanging   bool // members die for good between the two last requests of a transaction
	beside    bool // the bytes are compared with those of an undisturbed run
}

// event is something that happens at a moment of the plan.
type event struct {
	at   time.Duration
	what string
	do   func(*simulation)
}

func (p *plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "plan of seed %d (%s=%d runs it alone)\n", p.seed, seedVar, p.seed)
	fmt.Fprintf(&b, "  %d brokers, %d members, %s, old transactions %v\n  %s\n", p.brokers, p.members, p.delivery, p.oldTxn, strings.Join(p.env, " "))
	fmt.Fprintf(&b, "  %d records in %d partitions over %v, with transactions %v, %d bytes more\n",
		p.work.records, p.work.partitions, p.span, p.work.transactions, p.work.payload)
	for _, e := range p.events {
		fmt.Fprintf(&b, "  %8.3fs %s\n", e.at.Seconds(), e.what)
	}
	end := "goes on with whoever lives"
	if p.crashEnd {
		end = "all crash, one is started"
	}
	if p.busy {
		end += "; then one partition catches up behind slow acknowledgements, and another is quiet"
	}
	if p.hole {
		end += "; then a log ends in offsets without records"
	}
	fmt.Fprintf(&b, "  %8.3fs faults end; %s", p.span.Seconds(), end)
	return b.String()
}

// pick returns one of its arguments.
func pick[T any](rnd *rand.Rand, of ...T) T { return of[rnd.IntN(len(of))] }

// chance is true in so many of a hundred cases.
func chance(rnd *rand.Rand, percent int) bool { return rnd.IntN(100) < percent }

// between returns a duration of a random order of magnitude.
func between(rnd *rand.Rand, least, most time.Duration) time.Duration {
	return time.Duration(float64(least) * math.Pow(float64(most)/float64(least), rnd.Float64()))
}

func planOf(seed uint64) *plan {
	rnd := rand.New(rand.NewPCG(seed, 7))
	p := &plan{
		seed: seed, brokers: pick(rnd, 1, 1, 3), version: kversion.Stable(), delivery: config.ExactlyOnce, members: 1,
		bound: pick(rnd, 0, 20*time.Millisecond, testBound, testBound, 2*time.Second),
		idle:  pick(rnd, 0, 0, time.Second, 3*time.Second), memory: "256MiB",
		session: 6 * time.Second, txn: pick(rnd, 3*time.Second, 10*time.Second),
		span: between(rnd, 2*time.Second, 12*time.Second),
	}
	if p.oldTxn = chance(rnd, 30); p.oldTxn {
		p.version = kversion.V3_6_0()
	}
	if chance(rnd, 30) {
		p.delivery = config.AtLeastOnce
	}
	if channelLocks {
		p.members = pick(rnd, 1, 2, 2, 3)
	}
	p.work = workload{
		seed: seed, records: 2000, partitions: 1 + rnd.Int32N(4), chunk: 200,
		transactions: chance(rnd, 40), pause: p.span / 20, bound: max(p.bound, 1),
	}
	switch {
	case chance(rnd, 15): // more than fits
		p.memory, p.work.payload = "1MiB", 1500
		p.bound, p.idle = 20*time.Minute, 0
	case chance(rnd, 15):
		p.reanchor = pick(rnd, 3, 10)
	}
	p.faultless = chance(rnd, 8)
	if last := rand.New(rand.NewPCG(seed, 10)); !p.faultless && p.members > 1 && p.delivery == config.ExactlyOnce {
		p.hanging = chance(last, 25)
	}
	if p.hanging {
		p.txn = time.Minute // which nobody is to wait for
	}
	// At least once, what is read again after a crash has been put out by the
	// bound of before, and what is late by that may not be by the new one.
	if !p.faultless && p.delivery == config.ExactlyOnce {
		p.rebound = chance(rnd, 10)
	}
	p.env = append(p.environment(rnd), p.watermark(rand.New(rand.NewPCG(seed, 9)))...)
	if aligned := rand.New(rand.NewPCG(seed, 8)); p.idle > 0 && chance(aligned, 50) {
		p.env = append(p.env, "TIDEMARK_MAX_DRIFT="+between(aligned, time.Millisecond, time.Second).Truncate(time.Millisecond).String())
	}
	if p.strategy != config.Punctuated && chance(rand.New(rand.NewPCG(seed, 14)), 25) { // there is a watermark before the first of them
		p.work.untimed = true
		p.env = append(p.env, "TIDEMARK_EVENT_TIME=header:event-time,previous")
	}
	if seed%3 == 0 {
		p.env = append(p.env, "TIDEMARK_DEDUP=key") // no two have the same, and all of one time are compared
	}
	if p.idle > 0 && p.txn >= 10*time.Second && p.strategy == "" && p.memory != "1MiB" && p.reanchor == 0 && !p.hanging && !p.rebound &&
		p.work.partitions > 1 && chance(rand.New(rand.NewPCG(seed, 11)), 25) {
		// The topics become so large that kfake would show what was aborted in them.
		p.busy, p.faultless, p.work.transactions = true, true, false
	}
	p.hole = p.idle > 0 && p.strategy == "" && p.memory != "1MiB" && p.reanchor == 0 && !p.hanging && !p.rebound && !p.busy &&
		chance(rand.New(rand.NewPCG(seed, 13)), 15)
	refused := rand.New(rand.NewPCG(seed, 12))
	p.apart = !p.faultless && !p.rebound && !p.hanging && p.work.partitions > 1 && chance(refused, 10)
	p.schedule(rnd)
	if p.busy { // a rebalance may undo a transaction
		p.events = slices.DeleteFunc(p.events, func(e event) bool { return strings.HasSuffix(e.what, " joins") })
	}
	if p.apart {
		p.events = slices.DeleteFunc(p.events, func(e event) bool { return !strings.HasSuffix(e.what, " joins") })
		p.refuseApart(refused)
		p.span = max(p.span, p.events[len(p.events)-1].at)
	}
	p.crashEnd = !p.faultless && chance(rnd, 50) || p.hanging
	p.beside = p.exact() && p.delivery == config.ExactlyOnce && chance(rnd, 25)
	return p
}

func (p *plan) environment(rnd *rand.Rand) []string {
	return []string{
		"TIDEMARK_DELIVERY=" + string(p.delivery),
		"TIDEMARK_MAX_OUT_OF_ORDERNESS=" + p.bound.String(),
		"TIDEMARK_IDLE_TIMEOUT=" + p.idle.String(),
		"TIDEMARK_MEMORY=" + p.memory,
		"TIDEMARK_REANCHOR_AFTER=" + fmt.Sprint(p.reanchor),
		"TIDEMARK_COMMIT_INTERVAL=" + between(rnd, 10*time.Millisecond, time.Second).Truncate(time.Millisecond).String(),
		"TIDEMARK_SESSION_TIMEOUT=" + p.session.String(),
		"TIDEMARK_TRANSACTION_TIMEOUT=" + p.txn.String(),
		"TIDEMARK_HEADERS=" + pick(rnd, "watermark,source-offset", "watermark,source-offset,event-time", "source-offset"),
		"TIDEMARK_HEADER_PREFIX=" + pick(rnd, "tidemark-", "tidemark-", "x."),
		"TIDEMARK_WINDOWS=" + []string{"", "", "tumbling:1s", "hopping:5s/2s,sliding:300ms,tumbling:1d@Asia/Kolkata"}[p.seed%4],
	}
}

// watermark has every fourth plan follow another strategy than the fixed bound,
// with numbers of its own.
func (p *plan) watermark(rnd *rand.Rand) []string {
	if p.rebound || p.memory == "1MiB" || !chance(rnd, 25) {
		return nil
	}
	p.work.unjudged = true
	switch p.strategy = pick(rnd, config.WindowMin, config.Punctuated, config.Adaptive); p.strategy {
	case config.WindowMin:
		return []string{
			"TIDEMARK_WATERMARK=window-min", "TIDEMARK_MAX_OUT_OF_ORDERNESS=",
			"TIDEMARK_WATERMARK_WINDOW=" + p.bound.String(), "TIDEMARK_WATERMARK_LATENESS=" + pick(rnd, "0s", "100ms"),
		}
	case config.Punctuated:
		p.work.markers = true
		return []string{"TIDEMARK_WATERMARK=punctuated", "TIDEMARK_MAX_OUT_OF_ORDERNESS="}
	}
	return []string{"TIDEMARK_WATERMARK=adaptive", "TIDEMARK_TARGET_LATE=" + pick(rnd, "0.3", "0.05", "0.01")}
}

// exact says that neither the clock nor the memory decides anything: the
// outputs are a function of the log.
func (p *plan) exact() bool { return p.idle == 0 && p.memory != "1MiB" && !p.rebound }

// schedule fills in what happens.
func (p *plan) schedule(rnd *rand.Rand) {
	for n := 1; n < p.members; n++ {
		p.add(p.moment(rnd), fmt.Sprint(name(n), " joins"), func(m *simulation) { m.members[n].wanted = true })
	}
	visits := rnd.IntN(3)
	for range visits {
		p.visit(rnd)
	}
	if !p.faultless {
		for range 1 + rnd.IntN(10) {
			p.mishap(rnd)
		}
		if p.rebound {
			bound := pick(rnd, 0, 100*time.Millisecond, 3*time.Second)
			p.add(p.moment(rnd), fmt.Sprint("restarts have a bound of ", bound), func(m *simulation) {
				m.bound = "TIDEMARK_MAX_OUT_OF_ORDERNESS=" + bound.String()
				for _, b := range m.members {
					b.leave()
				}
			})
		}
	}
	if p.hanging {
		p.add(p.span*9/10, "all but a die before they end a transaction", func(m *simulation) {
			for _, b := range m.members[1:] {
				if b.s != nil {
					m.count("died before its transaction ended", 1)
					b.s.link.breakBefore(kmsg.EndTxn)
					b.notBefore = time.Now().Add(time.Hour)
				}
			}
		})
	}
	slices.SortStableFunc(p.events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	if n := len(p.events); n > 0 {
		p.span = max(p.span, p.events[n-1].at)
	}
}

func name(member int) string { return string(rune('a' + member)) }

// moment returns one at which faults have not ended yet.
func (p *plan) moment(rnd *rand.Rand) time.Duration {
	return time.Duration(rnd.Int64N(int64(p.span)))
}

func (p *plan) add(at time.Duration, what string, do func(*simulation)) {
	p.events = append(p.events, event{at, what, do})
}

// visit has a member leave politely and come back.
func (p *plan) visit(rnd *rand.Rand) {
	n, at, away := rnd.IntN(p.members), p.moment(rnd), between(rnd, 10*time.Millisecond, 5*time.Second)
	p.add(at, fmt.Sprintf("%s leaves for %v", name(n), away), func(m *simulation) {
		m.count("left politely", 1)
		m.members[n].leave()
		m.members[n].notBefore = time.Now().Add(away)
	})
}

// mishap adds something that goes wrong.
func (p *plan) mishap(rnd *rand.Rand) {
	n, at := rnd.IntN(p.members), p.moment(rnd)
	who := name(n)
	on := func(do func(*simulation, *sidecar)) func(*simulation) {
		return func(m *simulation) {
			if s := m.members[n].s; s != nil {
				do(m, s)
			}
		}
	}
	// during adds something that begins and ends.
	during := func(d time.Duration, what string, begin, end func(*simulation, *sidecar)) {
		var s *sidecar
		p.add(at, what, func(m *simulation) {
			if s = m.members[n].s; s != nil {
				begin(m, s)
			}
		})
		p.add(at+d, fmt.Sprintf("... (%s) is over", what), func(m *simulation) {
			if s != nil {
				end(m, s)
			}
		})
	}
	seed := rnd.Uint64()
	switch k := rnd.IntN(100); {
	case k < 45:
		p.refusal(rnd, at)
	case k < 55:
		share, d := 0.002+0.05*rnd.Float64(), between(rnd, 200*time.Millisecond, 10*time.Second)
		during(d, fmt.Sprintf("the link of %s loses %.1f %% for %v", who, 100*share, d),
			func(_ *simulation, s *sidecar) { s.link.lose(share, seed) },
			func(_ *simulation, s *sidecar) { s.link.lose(0, 0) })
	case k < 70:
		after, lossy := 1+rnd.IntN(200), chance(rnd, 50)
		p.add(at, fmt.Sprintf("%s crashes at request %d from here, lossy %v", who, after, lossy),
			on(func(_ *simulation, s *sidecar) { s.link.breakAt(after, lossy) }))
	case k < 78:
		d := between(rnd, 100*time.Millisecond, time.Minute)
		if chance(rnd, 5) {
			d = time.Hour
		}
		kind := "cut"
		if d >= time.Minute {
			kind = "cut for an hour"
		}
		during(d, fmt.Sprintf("the link of %s is cut for %v", who, d),
			func(m *simulation, s *sidecar) { m.count(kind, 1); s.link.leave() },
			func(_ *simulation, s *sidecar) { s.link.comeBack() })
	case k < 86:
		d := between(rnd, time.Second, 20*time.Second)
		kind := "frozen"
		if d > p.session {
			kind = "frozen beyond the session timeout"
		}
		during(d, fmt.Sprintf("%s is frozen for %v", who, d),
			func(m *simulation, s *sidecar) {
				if m.members[n].leaving.IsZero() { // else it could not be on time
					m.count(kind, 1)
					s.link.freeze()
				}
			},
			func(_ *simulation, s *sidecar) { s.link.melt() })
	case k < 92:
		lag, d := between(rnd, time.Millisecond, 300*time.Millisecond), between(rnd, 200*time.Millisecond, 5*time.Second)
		during(d, fmt.Sprintf("each request of %s takes %v more for %v", who, lag, d),
			func(m *simulation, s *sidecar) { m.count("delayed", 1); s.link.delay.Store(int64(lag)) },
			func(_ *simulation, s *sidecar) { s.link.delay.Store(0) })
	case k < 97 || !channelLocks:
		p.add(at, "coordinators move", func(m *simulation) { m.count("coordinators moved", 1); m.c.fake.RehashCoordinators() })
	default:
		p.double(rnd, n, at)
	}
}

// double has an instance freeze, another started in its place, and the first
// come back.
func (p *plan) double(rnd *rand.Rand, n int, at time.Duration) {
	d := between(rnd, time.Second, 10*time.Second)
	var old *sidecar
	p.add(at, fmt.Sprintf("%s is frozen for %v, and started a second time", name(n), d), func(m *simulation) {
		if old = m.members[n].s; old != nil && m.members[n].leaving.IsZero() {
			m.count("started twice", 1)
			old.link.freeze()
			m.zombies = append(m.zombies, old)
			m.members[n].s = nil
		}
	})
	p.add(at+d, fmt.Sprintf("... the first %s is back", name(n)), func(*simulation) {
		if old != nil {
			old.link.melt()
		}
	})
}

// refusals are what brokers may answer to what a sidecar asks: for the most
// part errors that mean try again, then those that void a transaction, a
// membership or a producer.
var refusals = []struct {
	key  kmsg.Key
	errs []*kerr.Error
}{
	{kmsg.Produce, []*kerr.Error{
		kerr.NotLeaderForPartition, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.RequestTimedOut, kerr.KafkaStorageError,
		kerr.InvalidRecord, kerr.UnknownServerError, kerr.OutOfOrderSequenceNumber, kerr.UnknownProducerID,
		kerr.InvalidProducerEpoch, kerr.ProducerFenced, kerr.InvalidTxnState, kerr.InvalidProducerIDMapping, kerr.TransactionAbortable,
	}},
	{kmsg.EndTxn, []*kerr.Error{
		kerr.NotCoordinator, kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress, kerr.ConcurrentTransactions, kerr.RequestTimedOut,
		kerr.UnknownServerError, kerr.InvalidTxnState, kerr.InvalidProducerEpoch, kerr.ProducerFenced, kerr.InvalidProducerIDMapping, kerr.TransactionAbortable,
	}},
	{kmsg.TxnOffsetCommit, []*kerr.Error{
		kerr.RequestTimedOut, kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.CoordinatorNotAvailable, kerr.UnstableOffsetCommit,
		kerr.IllegalGeneration, kerr.RebalanceInProgress, kerr.UnknownMemberID, kerr.UnknownServerError, kerr.InvalidProducerEpoch,
		kerr.InvalidProducerIDMapping, kerr.FencedInstanceID, kerr.TransactionAbortable,
	}},
	{kmsg.AddPartitionsToTxn, []*kerr.Error{
		kerr.NotCoordinator, kerr.CoordinatorLoadInProgress, kerr.ConcurrentTransactions, kerr.UnknownServerError,
		kerr.InvalidTxnState, kerr.InvalidProducerEpoch, kerr.ProducerFenced, kerr.InvalidProducerIDMapping,
	}},
	{kmsg.AddOffsetsToTxn, []*kerr.Error{
		kerr.NotCoordinator, kerr.CoordinatorLoadInProgress, kerr.ConcurrentTransactions, kerr.UnknownServerError, kerr.InvalidProducerEpoch,
	}},
	{kmsg.InitProducerID, []*kerr.Error{
		kerr.NotCoordinator, kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress, kerr.ConcurrentTransactions,
		kerr.RequestTimedOut, kerr.UnknownServerError, kerr.ProducerFenced, kerr.InvalidProducerEpoch,
	}},
	{kmsg.OffsetFetch, []*kerr.Error{
		kerr.UnstableOffsetCommit, kerr.NotCoordinator, kerr.CoordinatorLoadInProgress, kerr.UnknownServerError,
	}},
	{kmsg.OffsetCommit, []*kerr.Error{
		kerr.RequestTimedOut, kerr.NotCoordinator, kerr.CoordinatorLoadInProgress, kerr.IllegalGeneration, kerr.UnknownMemberID,
		kerr.RebalanceInProgress, kerr.UnknownServerError,
	}},
	{kmsg.Heartbeat, []*kerr.Error{
		kerr.RebalanceInProgress, kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.NotCoordinator, kerr.CoordinatorNotAvailable,
	}},
	{kmsg.JoinGroup, []*kerr.Error{
		kerr.NotCoordinator, kerr.CoordinatorLoadInProgress, kerr.UnknownMemberID, kerr.UnknownServerError, kerr.RebalanceInProgress,
	}},
	{kmsg.SyncGroup, []*kerr.Error{
		kerr.RebalanceInProgress, kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.NotCoordinator, kerr.UnknownServerError,
	}},
	{kmsg.Fetch, []*kerr.Error{
		kerr.NotLeaderForPartition, kerr.UnknownServerError, kerr.KafkaStorageError, kerr.OffsetNotAvailable, kerr.UnknownLeaderEpoch,
	}},
	{kmsg.ListOffsets, []*kerr.Error{
		kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.OffsetNotAvailable, kerr.UnknownServerError, kerr.RequestTimedOut,
	}},
	{kmsg.Metadata, []*kerr.Error{kerr.LeaderNotAvailable}},
	{kmsg.FindCoordinator, []*kerr.Error{kerr.CoordinatorNotAvailable, kerr.UnknownServerError}},
	{kmsg.DescribeGroups, []*kerr.Error{kerr.CoordinatorNotAvailable, kerr.NotCoordinator, kerr.UnknownServerError}},
	{kmsg.DescribeProducers, []*kerr.Error{kerr.NotLeaderForPartition, kerr.UnknownServerError}},
	{kmsg.CreateTopics, []*kerr.Error{kerr.RequestTimedOut, kerr.NotController}},
	{kmsg.LeaveGroup, []*kerr.Error{kerr.NotCoordinator, kerr.UnknownServerError}},
}

// refuseApart has brokers refuse all records of one output partition, as if for good. The
// other partitions have to go on: what is there when settleApart is left has been read and
// committed by the end.
func (p *plan) refuseApart(rnd *rand.Rand) {
	const settleApart = 8 * time.Second
	n, at, d := rnd.Int32N(p.work.partitions), p.moment(rnd), between(rnd, 12*time.Second, 50*time.Second)
	err := pick(rnd, kerr.InvalidRecord, kerr.InvalidTimestamp, kerr.MessageTooLarge)
	var h *kfake.FaultHandle
	stable := map[int32]int64{}
	p.add(at, fmt.Sprintf("records for partition %d get %s for %v", n, err.Message, d), func(m *simulation) {
		h = m.c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: m.cfg.OrderedTopic(m.topic), Partitions: []int32{n}, Err: err, Count: -1})
	})
	p.add(at+d-settleApart, "... what is there by now has to be read", func(m *simulation) {
		for _, info := range m.c.fake.PartitionInfos(m.topic) {
			stable[info.Partition] = info.LastStableOffset
		}
	})
	p.add(at+d, "... they are taken again", func(m *simulation) {
		h.Remove()
		m.count("refused for good", h.Hits())
		for other, end := range stable {
			if s, _ := m.snapshot(other); other != n && s.Next < end {
				m.t.Errorf("partition %d was read to %d, and was to be read to %d while partition %d was refused", other, s.Next, end, n)
			}
		}
	})
}

// refusal has brokers refuse requests of one kind: a share of them for a
// while, or the next few.
func (p *plan) refusal(rnd *rand.Rand, at time.Duration) {
	r := pick(rnd, refusals...)
	err, seed := pick(rnd, r.errs...), rnd.Uint64()
	if r.key == kmsg.CreateTopics {
		at = 0 // they are created once
	}
	var h *kfake.FaultHandle
	if chance(rnd, 40) {
		n := 1 + rnd.IntN(4)
		p.add(at, fmt.Sprintf("the next %d requests to %s get %s", n, r.key.Name(), err.Message), func(m *simulation) {
			m.refuse(r.key, err, n, 1, seed)
		})
		return
	}
	share, d := 0.01*math.Pow(25, rnd.Float64()), between(rnd, 300*time.Millisecond, 10*time.Second)
	what := fmt.Sprintf("%.0f %% of requests to %s get %s for %v", 100*share, r.key.Name(), err.Message, d)
	p.add(at, what, func(m *simulation) { h = m.refuse(r.key, err, -1, share, seed) })
	p.add(at+d, fmt.Sprintf("... (%s) is over", what), func(*simulation) { h.Remove() })
}
