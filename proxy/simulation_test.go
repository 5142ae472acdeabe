package proxy

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/reorder"
)

// The whole client, simulated: from a seed comes a plan of what goes wrong and
// when, and a group of sidecars lives through it on kfake in the fake time of
// a bubble. When all faults have gone, everything has to come out, soon, and
// the contract has to hold.
//
// The seed gives the plan and not an exact replay: goroutines run in whatever
// order the scheduler likes, in a bubble too. What a seed has found, the same
// seed finds again after some tries, mostly.
//
// The leaders of partitions stay where they are: see docs/design/limits-of-tools.md.

const (
	simulationsVar = "TIDEMARK_TEST_SIMULATIONS" // how many seeds; 50000 is a night's work
	seedVar        = "TIDEMARK_TEST_SEED"        // the only seed, or the first of those
)

func TestSimulation(t *testing.T) {
	if os.Getenv(brokersVar) != "" {
		t.Skip("real brokers do not fail by plan")
	}
	first, n := simulations(t)
	var total tally
	var mu sync.Mutex
	var next atomic.Uint64
	var workers sync.WaitGroup
	// A bubble that hangs holds its worker up until it is given up.
	for range 2 * runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < n; i = next.Add(1) - 1 {
				happened := simulate(t, first+i)
				mu.Lock()
				total.add(happened)
				if total.seeds%500 == 0 {
					fmt.Println(total)
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	fmt.Println(total)
	if hung := total.counts["hung"]; hung > 1+int(n)/20 {
		t.Errorf("%d of %d bubbles hung", hung, n)
	}
	if n < 300 {
		return
	}
	for _, kind := range kinds() {
		if total.counts[kind] == 0 {
			t.Errorf("it never happened in %d plans: %s", n, kind)
		}
	}
}

func simulations(t *testing.T) (first, n uint64) {
	number := func(name string, otherwise uint64) uint64 {
		text := os.Getenv(name)
		if text == "" {
			return otherwise
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return n
	}
	n = 100 // CI runs 300
	switch {
	case os.Getenv(seedVar) != "":
		n = 1
	case testing.Short():
		n = 10 // under the race detector, which looks at something else
	}
	return number(seedVar, 0), number(simulationsVar, n)
}

// simulate lives through the plan of a seed and returns what happened in it.
func simulate(t *testing.T, seed uint64) (happened tally) {
	t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
		p := planOf(seed)
		var m *simulation
		bubbles.Add(1)
		var b bubble
		ended := b.run(t, func(t *testing.T) {
			withFake(t, func(t *testing.T, c *cluster) {
				defer func() {
					if t.Failed() {
						t.Log(p)
					}
				}()
				m = &simulation{t: t, c: c, plan: p, rnd: rand.New(rand.NewPCG(seed, 6)), began: time.Now()}
				c.looks = seed%2 == 0 // which must not change anything
				m.live()
			}, kfake.MaxVersions(p.version), kfake.NumBrokers(p.brokers), kfake.Ports([]int{9092, 9093, 9094}[:p.brokers]...))
		})
		if !ended {
			fmt.Printf("seed %d hangs:\n%s\n%.6000s\n", seed, p, b.goroutines(false))
			hung.Add(1)
			happened.count("hung", 1)
		} else if m != nil {
			happened = m.tally
		}
		happened.seeds = 1
		if t.Failed() {
			fmt.Println("seed", seed, "fails") // what it says comes when all are done
		}
	})
	return happened
}

// tally counts what happened, by kind.
type tally struct {
	seeds   int
	virtual time.Duration
	slowest time.Duration // from the end of faults until all was put out
	counts  map[string]int
}

func (y *tally) count(kind string, n int) {
	if n == 0 {
		return
	}
	if y.counts == nil {
		y.counts = map[string]int{}
	}
	y.counts[kind] += n
}

func (y *tally) add(o tally) {
	y.seeds += o.seeds
	y.virtual += o.virtual
	y.slowest = max(y.slowest, o.slowest)
	for kind, n := range o.counts {
		y.count(kind, n)
	}
}

func (y tally) String() string {
	s := fmt.Sprintf("%d seeds, %v of fake time, all put out %v after the faults at the latest",
		y.seeds, y.virtual.Truncate(time.Second), y.slowest.Truncate(time.Second))
	for _, kind := range slices.Sorted(maps.Keys(y.counts)) {
		s += fmt.Sprintf("; %s %d", kind, y.counts[kind])
	}
	return s
}

// kinds are what has to happen in the usual number of plans.
func kinds() []string {
	all := []string{
		"request lost", "answer lost", "crashed", "cut", "cut for an hour", "frozen", "frozen beyond the session timeout",
		"delayed", "coordinators moved", "aborted", "rebalanced", "left politely", "overflow", "re-anchored", "repeated",
		"waited for a slower one", "refused for good", "records without a time",
		"compared with an undisturbed run", "without faults", "quiet beside one that was busy for longer", "hole at the end of a log",
	}
	for _, r := range refusals {
		if r.key == kmsg.DescribeGroups && !channelLocks {
			continue // asked about members that died, for the most part
		}
		all = append(all, "refused "+r.key.Name())
	}
	if channelLocks {
		all = append(all, "started twice", "died before its transaction ended")
	}
	return all
}

// simulation is a plan that is under way.
type simulation struct {
	tally
	t       *testing.T
	c       *cluster
	plan    *plan
	rnd     *rand.Rand // of what the plan leaves open
	began   time.Time
	topic   string
	cfg     config.Config
	bound   string // another one, for those that start from now on
	members []*member
	zombies []*sidecar
	refused map[kmsg.Key][]*kfake.FaultHandle
	aborts  *kfake.FaultHandle
	topicID [16]byte
}

// member is an instance that somebody keeps running.
type member struct {
	name      string
	wanted    bool
	notBefore time.Time
	s         *sidecar  // nil: it does not run
	leaving   time.Time // when it was told to
}

func (m *simulation) live() {
	p := m.plan
	m.topic = m.c.topic(p.work.partitions)
	m.cfg = m.c.config(m.topic, p.env...)
	m.topicID = m.c.fake.TopicInfo(m.topic).TopicID
	m.refused = map[kmsg.Key][]*kfake.FaultHandle{}
	m.c.neverCutByMaxBytes()
	m.aborts = m.c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Observe: true, Count: -1, When: func(r kmsg.Request) bool {
		e := r.(*kmsg.EndTxnRequest)
		return !e.Commit && strings.HasPrefix(e.TransactionalID, m.cfg.Group+"/")
	}})
	for n := range p.members {
		m.members = append(m.members, &member{name: name(n), wanted: n == 0, notBefore: m.began.Add(time.Millisecond)})
	}
	work := p.work
	written := m.c.writing(m.topic, &work)
	for _, e := range p.events {
		m.until(e.at)
		e.do(m)
	}
	m.until(p.span)
	<-written
	m.heal()
	m.finish()
	if p.busy {
		m.besideBusy(&work)
	}
	if p.hole {
		m.beforeHole(&work)
	}
	m.goHome()
	m.judge(&work)
}

// until lets time pass up to a moment of the plan, and looks after the members.
func (m *simulation) until(at time.Duration) {
	const step = 50 * time.Millisecond
	for {
		m.mind()
		left := at - time.Since(m.began)
		if left <= 0 {
			return
		}
		time.Sleep(min(left, step))
	}
}

// mind does what keeps processes running: it starts those again that have
// crashed or ended.
func (m *simulation) mind() {
	for _, b := range m.members {
		switch {
		case b.s == nil:
			if b.wanted && !time.Now().Before(b.notBefore) {
				b.s = m.c.start(m.topic, append(slices.Clone(m.plan.env), instance(b.name), m.boundNow())...)
				b.leaving = time.Time{}
			}
		case !b.s.running():
			m.ended(b.s)
			m.isDown(b)
		case b.s.link.isBroken():
			m.count("crashed", 1)
			b.s.crash()
			m.isDown(b)
		case !b.leaving.IsZero() && time.Since(b.leaving) > group.StopTime+group.LeaveTime+group.CloseTime+time.Second:
			m.t.Fatalf("%s was told to stop %v ago and runs", b.name, time.Since(b.leaving))
		}
	}
}

func (m *simulation) boundNow() string {
	if m.bound != "" {
		return m.bound
	}
	if s := m.plan.strategy; s == config.WindowMin || s == config.Punctuated {
		return "TIDEMARK_MAX_OUT_OF_ORDERNESS=" // has no effect
	}
	return "TIDEMARK_MAX_OUT_OF_ORDERNESS=" + m.plan.bound.String()
}

// isDown notes that a member does not run any more.
func (m *simulation) isDown(b *member) {
	m.linkEnds(b.s)
	b.s = nil
	if soon := time.Now().Add(between(m.rnd, time.Millisecond, 8*time.Second)); b.leaving.IsZero() && b.notBefore.Before(soon) {
		b.notBefore = soon
	}
}

func (m *simulation) linkEnds(s *sidecar) {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	m.count("request lost", s.link.requestsLost)
	m.count("answer lost", s.link.answersLost)
}

// leave tells a member to stop, as a signal does.
func (b *member) leave() {
	if b.s == nil || !b.leaving.IsZero() {
		return
	}
	b.leaving = time.Now()
	b.s.link.melt() // one that is suspended does not hear it
	b.s.end()
	time.AfterFunc(group.StopTime, b.s.kill)
}

// ended judges how a sidecar ended by itself.
func (m *simulation) ended(s *sidecar) {
	if s.err == nil {
		return
	}
	m.count("gave up", 1)
	fault, ok := errors.AsType[*fault.Fault](s.err)
	if !ok || fault.Code != 1 || m.plan.faultless || !excused(s.err, m.counts["started twice"] > 0) {
		m.t.Errorf("%s ended: %v", s.cfg.Instance, s.err)
	}
}

// excused reports that to give up was right: a plan can start a process twice, of which one
// gives way to the other; fence a producer three times in a minute, refuse a record six
// times, or answer a new session's first questions with an unknown error.
func excused(err error, twice bool) bool {
	return twice && strings.Contains(err.Error(), "was started a second time") || fault.IsFenced(err) || errors.Is(err, kerr.FencedInstanceID) || errors.Is(err, kerr.UnknownServerError) ||
		strings.Contains(err.Error(), "refused 6 times")
}

// refuse has brokers refuse a share of the members' requests of one kind, n of
// them at the most.
func (m *simulation) refuse(key kmsg.Key, err *kerr.Error, n int, share float64, seed uint64) *kfake.FaultHandle {
	rnd := rand.New(rand.NewPCG(seed, 8))
	f := kfake.Fault{
		Keys: []kmsg.Key{key}, Err: err, Count: n,
		When: func(kmsg.Request) bool { return share == 1 || rnd.Float64() < share },
	}
	h := m.c.fake.Fault(m.aimed(f)...)
	m.refused[key] = append(m.refused[key], h)
	return h
}

// aimed restricts a fault to requests of the members.
func (m *simulation) aimed(f kfake.Fault) (all []kfake.Fault) {
	group := func() { f := f; f.Group = m.cfg.Group; all = append(all, f) }
	txns := func() {
		for n := range m.members {
			f := f
			f.TxnID = m.cfg.Group + "/" + name(n)
			all = append(all, f)
		}
	}
	topics := func(names ...string) {
		for _, topic := range names {
			f := f
			f.Topic = topic
			all = append(all, f)
		}
	}
	ordered, late := m.cfg.OrderedTopic(m.topic), m.cfg.LateTopic(m.topic)
	switch f.Keys[0] {
	case kmsg.Produce, kmsg.DescribeProducers, kmsg.CreateTopics:
		topics(ordered, late)
	case kmsg.Fetch, kmsg.ListOffsets:
		topics(m.topic)
	case kmsg.Metadata:
		topics(m.topic, ordered, late)
	case kmsg.InitProducerID, kmsg.EndTxn, kmsg.AddPartitionsToTxn, kmsg.AddOffsetsToTxn, kmsg.TxnOffsetCommit:
		txns()
	case kmsg.FindCoordinator:
		group()
		txns()
	default:
		group()
	}
	return all
}

// heal ends all faults.
func (m *simulation) heal() {
	for key, hs := range m.refused {
		for _, h := range hs {
			h.Remove()
			m.count("refused "+key.Name(), h.Hits())
		}
	}
	for _, z := range m.zombies {
		m.linkEnds(z)
		z.crash()
	}
	for _, b := range m.members {
		if b.s == nil {
			continue
		}
		b.s.link.heal()
		if m.plan.crashEnd {
			m.linkEnds(b.s)
			b.s.crash()
			b.s = nil
		}
	}
	if !m.plan.crashEnd {
		return
	}
	for n, b := range m.members {
		b.wanted, b.notBefore = n == 0, time.Now()
	}
}

// finish waits until all is put out, for as long as that may take.
func (m *simulation) finish() {
	healed := time.Now()
	cfg := m.cfg
	// A transaction that the dead left open is ended by who takes over, however long
	// it may last.
	limit := m.plan.session + min(m.plan.txn, 10*time.Second) + 15*time.Second
	if m.plan.apart || m.refused[kmsg.Produce] != nil {
		limit += retrySuspended // a partition may stand still
	}
	if cfg.IdleTimeout > 0 {
		limit += cfg.IdleTimeout + 4*time.Second
		if m.plan.strategy == config.Punctuated {
			limit += time.Minute // what is held before there is a marker may be that old
		}
	}
	expired := false
	for !m.done() || !m.stable() {
		m.mind()
		took := time.Since(healed)
		if took > limit {
			m.t.Fatalf("%v after the last fault not all is put out: %s", took, m.state())
		}
		if !expired && took > m.plan.session+time.Second {
			expired = true
			m.expire()
		}
		time.Sleep(100 * time.Millisecond)
	}
	m.slowest = time.Since(healed)
}

// stable reports whether no transaction holds offsets of the group: what the dead left
// open has been ended by who took over.
func (m *simulation) stable() bool {
	all, err := m.c.adm.FetchOffsets(kadm.RequireStable(m.c.ctx), m.cfg.Group)
	return err == nil && all.Error() == nil
}

// besideBusy has brokers acknowledge slowly while one partition catches up. Another,
// which ends in a burst, does not wait for that: its last record comes out by the
// clock, which goes on meanwhile, with the next commit but one.
func (m *simulation) besideBusy(w *workload) {
	const backlog = 100_000
	slow := 700*time.Millisecond + time.Duration(m.rnd.Int64N(int64(800*time.Millisecond)))
	newest := func(n int32) int64 {
		s, _ := m.snapshot(n)
		return s.Max.Millis() + 1
	}
	quiet, busy := int32(0), int32(1)
	h := m.c.slowAcks(m.topic, slow)
	m.c.produce(m.c.cl, record(m.topic, quiet, newest(quiet), "last of a burst"))
	m.c.backlog(m.topic, busy, newest(busy), backlog)
	w.records += backlog + 1
	began := time.Now()
	done := func(n int32) bool {
		s, ok := m.snapshot(n)
		return ok && s.Next == m.c.fake.PartitionInfo(m.topic, n).HighWatermark && s.Count == 0 && !s.Releasing
	}
	// Each of two commits waits for all that is in flight, some six batches.
	limit := m.tookOver() + m.plan.bound + m.plan.idle + 16*slow + 2*time.Second
	for !done(quiet) {
		m.mind()
		if time.Since(began) > limit {
			m.t.Fatalf("%v after its last record a quiet partition has not put it out, and acknowledgements take %v: %s", time.Since(began), slow, m.state())
		}
		time.Sleep(50 * time.Millisecond)
	}
	if m.count("quiet beside a busy one", 1); !done(busy) {
		m.count("quiet beside one that was busy for longer", 1)
	}
	h.Store(0)
	for !done(busy) && time.Since(began) < 5*time.Minute {
		m.mind()
		time.Sleep(50 * time.Millisecond)
	}
}

// tookOver is how long it may take from the end of faults until somebody has the
// partitions, with nothing to do for those who had them before.
func (m *simulation) tookOver() time.Duration {
	if m.plan.crashEnd {
		return m.plan.session
	}
	return 0
}

// beforeHole has a log end in offsets without records. What is held of it comes out by
// the clock all the same.
func (m *simulation) beforeHole(w *workload) {
	const n, width = 0, 3
	s, _ := m.snapshot(n)
	m.c.produce(m.c.cl, record(m.topic, n, s.Max.Millis()+1, "last before a hole"))
	w.records++
	high := m.c.holeBehind(m.topic, int32(w.partitions), n, width)
	began := time.Now()
	limit := m.tookOver() + m.plan.bound + m.plan.idle + 3*group.HolePatience + 4*time.Second
	if m.cfg.MaxDrift > 0 {
		// It may have to wait until those behind it are idle, and each of these for those behind it.
		limit += time.Duration(w.partitions-1) * m.plan.idle
	}
	for {
		s, ok := m.snapshot(n)
		if ok && s.Next == high && s.Count == 0 && !s.Releasing {
			break
		}
		m.mind()
		if time.Since(began) > limit {
			m.t.Fatalf("%v after the last record before a hole it is not put out: %s", time.Since(began), m.state())
		}
		time.Sleep(50 * time.Millisecond)
	}
	m.count("hole at the end of a log", 1)
}

// goHome has all members leave.
func (m *simulation) goHome() {
	for _, b := range m.members {
		b.wanted = false
		b.leave()
	}
	for slices.ContainsFunc(m.members, func(b *member) bool { return b.s != nil }) {
		m.mind()
		time.Sleep(20 * time.Millisecond)
	}
}

// expire has dead members thrown out when their session has timed out: see
// the cluster's expire.
func (m *simulation) expire() {
	for _, b := range m.members {
		if b.s == nil {
			_, _ = m.c.adm.LeaveGroup(m.c.ctx, kadm.LeaveGroup(m.cfg.Group).InstanceIDs(b.name))
		}
	}
}

// done reports whether the group has read the source to its end and put out
// what it has to.
func (m *simulation) done() bool {
	for _, p := range m.c.fake.PartitionInfos(m.topic) {
		s, ok := m.snapshot(p.Partition)
		if !ok || s.Next != p.HighWatermark || s.Releasing || m.plan.idle > 0 && s.Count > 0 {
			return false
		}
	}
	return true
}

func (m *simulation) snapshot(n int32) (s reorder.Snapshot, ok bool) {
	g := m.c.fake.GroupInfo(m.cfg.Group)
	if g == nil {
		return s, false
	}
	at, ok := g.Commits[m.topic][n]
	if !ok || at.Metadata == "" {
		return s, false
	}
	scope := reorder.Scope{Group: m.cfg.Group, TopicID: m.topicID, Partition: n, Fingerprint: m.cfg.EventTime.Fingerprint()}
	s, err := reorder.Decode(at.Metadata, at.Offset, at.LeaderEpoch, scope)
	if err != nil {
		m.t.Fatalf("commit of partition %d at %d: %v: %s", n, at.Offset, err, at.Metadata)
	}
	return s, true
}

// state says how far the group is.
func (m *simulation) state() string {
	var b strings.Builder
	for _, p := range m.c.fake.PartitionInfos(m.topic) {
		s, _ := m.snapshot(p.Partition)
		fmt.Fprintf(&b, "partition %d ends at %d, stable %d, commit %d to %d with %d held; ",
			p.Partition, p.HighWatermark, p.LastStableOffset, s.Low, s.Next, s.Count)
	}
	if g := m.c.fake.GroupInfo(m.cfg.Group); g != nil {
		fmt.Fprintf(&b, "group %s, %d members", g.State, len(g.Members))
	}
	return b.String()
}

// judge checks what came out.
func (m *simulation) judge(w *workload) {
	p, c := m.plan, m.c
	m.virtual = time.Since(m.began)
	m.count("aborted", m.aborts.Hits())
	if g := c.fake.GroupInfo(m.cfg.Group); g != nil {
		m.count("rebalanced", int(g.Epoch))
	}
	once := p.delivery == config.ExactlyOnce
	if p.hanging {
		// One that was suspended, comes back when others have its partitions, puts something
		// out and dies before it hears of them has left a transaction open that nobody has
		// seen. Readers wait for it until it times out.
		for _, out := range []string{m.cfg.OrderedTopic(m.topic), m.cfg.LateTopic(m.topic)} {
			c.awaitFor(p.txn+5*time.Second, "the last transaction on "+out, func() bool { return c.settled(out) })
		}
	}
	r := c.verify(m.cfg)
	if r.Read != int64(w.records) {
		m.t.Errorf("%d records were read, %d were written", r.Read, w.records)
	}
	if p.idle > 0 && r.Buffered != 0 {
		m.t.Errorf("%d records are held", r.Buffered)
	}
	if p.exact() && p.reanchor == 0 && (once || r.Repeated == 0) {
		c.whole(r, w)
	}
	if p.faultless {
		m.count("without faults", 1)
		if r.Repeated != 0 {
			m.t.Errorf("nothing went wrong, and %d records came again", r.Repeated)
		}
	}
	m.count("repeated", int(r.Repeated))
	if p.work.untimed {
		m.count("records without a time", int(r.Unjudged["event-time"]))
	}
	m.count("overflow", int(r.Late["overflow"]))
	for _, s := range m.c.sidecars {
		m.count("waited for a slower one", int(s.proc.reporter.Snapshot().Pauses))
	}
	for n := range w.partitions {
		if s, ok := m.snapshot(n); ok {
			m.count("re-anchored", int(s.Epoch))
		}
	}
	if p.beside {
		m.count("compared with an undisturbed run", 1)
		calm := c.start(m.topic, beside(m.topic, append(p.env, m.boundNow())...)...)
		c.awaitRead(calm)
		calm.stop()
		c.same(m.cfg, calm.cfg)
	}
}
