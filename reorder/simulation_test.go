package reorder

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
)

// The simulation has everything at once, for it is where two things meet that
// one of them goes wrong: one to three partitions, two processes that take them
// from each other, a committer, clocks that do as they like, and every fault
// that may come between. A history is made by its seed alone and comes back with
// it.
//
// Three things judge it. The laws of what is durable (world.settle) know the log
// and the outputs only. The twin knows what each step has to do; at a commit it
// is put by whole, beside the metadata, and a process that starts from the
// metadata has to go on as a process that starts from the twin. And where
// nothing happened that asks a clock or the memory, the outputs are those of a
// run without incident, byte for byte.

// features are what a usual run has to have seen: a law that was never at stake
// proves nothing.
var features = []string{
	"crash", "crash before the effect", "effect absent", "reply lost", "reply lost, then crash", "crash after the effect",
	"abort without a crash", "durable", "durable with several partitions", "nothing changed",
	"crash inside a release", "commit inside a release", "release taken up again", "replay", "replay interrupted",
	"rebalance", "handover", "handover between transactions", "zombie steps", "zombie is refused", "zombie notices", "stale owner starts over",
	"hole", "control record", "control record read again", "leader rises", "equal times", "extreme times", "origin inside the log", "high offsets", "epoch not 0",
	"invalid", "late", "on time at the watermark's edge", "overflow", "future", "guard step", "guard full", "guard switched", "guard waits for room to begin", "guard waits for room to end",
	"verdict would be another now: future", "verdict would be another now: not future",
	"flush", "flush cut by a commit", "flush cut by a crash", "new epoch",
	"drain", "answer not quiet", "answer that waits", "answer after a gap", "answer to a question before assignment", "answer while replaying", "process stopped", "process suspended",
	"wall clock forward", "wall clock back", "relieved", "relieved release cut", "memory needed while replaying", "a replay gives way", "a replay begins again",
	"options changed", "owner with other options",
	"settled on an outside word", "settled although it can be told now", "settled and not told yet", "waits for an outside word", "an outside service changes its mind", "no room to settle",
	"log cut", "log rewritten", "records deleted", "loss accepted", "loss noticed by the client", "loss between two commits", "read again as new",
	"duplicate", "duplicate of a record before a restart", "commit before a duplicate", "group taken up again", "identity switched", "identity switched inside a group", "what nobody asks for is kept",
	"at least once", "seen before a crash", "a repeat is dropped", "commit before a clock's move is relied on", "commit before a verdict is relied on",
	"as without incident", "as without incident, with new epochs", "as without incident, with the guard", "as without incident, with duplicates",
}

type coverage map[string]int

func TestSimulation(t *testing.T) {
	begun := time.Now()
	saw := coverage{}
	hunt(t, 6000, func(s source, trace *strings.Builder) { simulate(s, trace, saw) })
	from, to := histories(6000)
	t.Logf("%d histories, %.0f a second", to-from, float64(to-from)/time.Since(begun).Seconds())
	for name := range maps.Keys(saw) {
		if !slices.Contains(features, name) {
			t.Errorf("%q is on no list", name)
		}
	}
	for _, name := range features {
		if to-from >= 5000 && saw[name] == 0 {
			t.Errorf("%q never happened", name)
		}
		if testing.Verbose() {
			t.Logf("%9d %s", saw[name], name)
		}
	}
}

// featuresOfPrevious are those that only records without a time bring.
var featuresOfPrevious = []string{
	"the time of its key", "at the edge", "at the edge, ahead of all that was seen", "nothing to take a time from",
	"commit with records at the edge", "commit inside a release, with records at the edge",
	"without a time, and not owed", "at the edge again", "the lender is out",
	"as without incident, with records without a time",
}

// TestSimulationOfPrevious is the simulation with records that take the time of one
// before them.
func TestSimulationOfPrevious(t *testing.T) {
	saw := coverage{}
	hunt(t, 6000, func(s source, trace *strings.Builder) { simulatePrevious(s, trace, saw) })
	from, to := histories(6000)
	for _, name := range featuresOfPrevious {
		if to-from >= 5000 && saw[name] == 0 {
			t.Errorf("%q never happened", name)
		}
		t.Logf("%9d %s", saw[name], name)
	}
}

// TestSimulationSeeds: histories in which something was found once. Each was an engine,
// a law or a twin that was wrong; they say something as long as the generators are the
// same.
func TestSimulationSeeds(t *testing.T) {
	for _, seed := range []uint64{819, 2195, 4359, 29947, 126281, 5000115475, 5000275932, 8200090272} {
		if err := try(func() { simulate(seeded(seed), nil, coverage{}) }); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
}

// TestSimulationReplays: a seed brings a history back, to the letter.
func TestSimulationReplays(t *testing.T) {
	for seed := range uint64(50) {
		var traces [2]strings.Builder
		for i := range traces {
			if err := try(func() { simulate(seeded(seed), &traces[i], coverage{}) }); err != nil {
				t.Fatal(err)
			}
		}
		if traces[0].String() != traces[1].String() || traces[0].Len() == 0 {
			t.Fatalf("seed %d: another history", seed)
		}
	}
}

type simulation struct {
	s     source
	trace *strings.Builder
	saw   coverage
	topic []*shared
	procs [2]*process
	gen   int // generation of the group
	moves int

	opts   Options // of all processes, if they are alike, and of the logs
	alike  bool
	rate   int  // one move in so many is a fault
	clock  bool // brokers answer
	memory bool // it may run short
	jumpy  bool // the wall clock is no part of the log
	vague  bool // much is for an outside service to say
	fickle bool // what records are known by changes, and nothing else
	toggle bool // the guard is switched on and off, and nothing else
	eager  bool // what is put out is seen before it is committed
	idle   bool // and often only the clock goes on
	early  bool // and much is from the future, or may be
	often  int  // one move in so many is a commit
	most   int  // moves
	losses bool // the logs lose records
	calm   bool // no more faults
}

// shared is a partition as the brokers have it.
type shared struct {
	durable
	marks  []Record // control records
	owner  *process
	since  int            // generation in which the owner became it
	twin   twin           // of what is committed
	fresh  Snapshot       // where the group began
	wall   watermark.Time // true time, as far as it is known from the log
	heavy  int
	epoch  uint32
	leader int32 // newest leader epoch there has ever been

	parted  int64 // where the log has parted from what was committed; -1: nowhere
	varied  bool  // the outputs may depend on more than the log
	crowded bool  // the guard was full
}

// process is one running sidecar.
type process struct {
	name string
	eng  *Engine
	now  watermark.Instant // monotonic
	off  time.Duration     // how wrong its wall clock is
	gen  int               // the generation it knows of
	has  []*member
}

// member is a partition in the hands of a process.
type member struct {
	world
	of    *shared
	proc  *process
	twin  twin
	base  int   // outputs that were durable before those pending
	good  int   // outputs compared with the twin's
	next  int64 // H and its leader epoch
	nextE int32

	began    watermark.Instant // when it was assigned
	asked    watermark.Instant // the last answer's question
	forced   bool              // the release under way is for want of memory
	flushing bool              // and this one for a new epoch
}

func simulate(s source, trace *strings.Builder, saw coverage) {
	newSimulation(s, trace, saw, false).run()
}

// simulatePrevious has records that take the time of one before them.
func simulatePrevious(s source, trace *strings.Builder, saw coverage) {
	newSimulation(s, trace, saw, true).run()
}

func (m *simulation) run() {
	for m.moves < m.most && m.busy() {
		m.move()
	}
	m.end()
}

func newSimulation(s source, trace *strings.Builder, saw coverage, previous bool) *simulation {
	m := &simulation{
		s: s, trace: trace, saw: saw, most: 600, often: 10, opts: s.options(), rate: oneOf(s, 12, 30, 80),
		alike: s.maybe(2), clock: !s.maybe(3), memory: s.maybe(3), jumpy: s.maybe(2), losses: s.maybe(4), vague: s.maybe(3),
	}
	if m.opts.Previous = previous; previous {
		m.losses = false // who has lost the record that lent it its time may be lost too
	}
	steep := s.maybe(80)
	if steep {
		m.opts.Bound, m.opts.MaxFuture = 5*time.Second, 40*time.Millisecond
		m.alike, m.clock, m.memory, m.losses = true, false, false, false
	}
	doubtful := !steep && s.maybe(80)
	if doubtful {
		m.opts.Bound, m.memory = 5*time.Second, false
	}
	m.fickle = !steep && !doubtful && s.maybe(20)
	if m.fickle {
		m.opts.Bound, m.opts.Strategy, m.opts.MaxFuture = 5*time.Millisecond, watermark.Bounded, 0
		m.alike, m.rate = false, 12
	}
	m.toggle = !steep && !doubtful && !m.fickle && s.maybe(150)
	if m.toggle {
		m.opts.Bound, m.opts.Strategy = time.Minute, oneOf(s, watermark.Bounded, watermark.Punctuated)
		m.alike, m.clock, m.memory, m.losses, m.jumpy = false, false, false, s.maybe(3) && !previous, false
		m.rate, m.most = 200, 1500
	}
	m.eager = !steep && !doubtful && !m.fickle && !m.toggle && s.maybe(3)
	if m.eager {
		m.alike, m.losses = true, false
		m.often, m.rate = oneOf(s, 10, 60), oneOf(s, 12, 12, 30)
		switch s(3) {
		case 0:
			m.idle, m.clock, m.opts.IdleTimeout, m.opts.Bound = true, true, 200*time.Millisecond, 5*time.Second
			if m.often, m.rate = 60, 30; s.maybe(2) { // and nothing but the clock has anything committed first
				m.opts.Strategy, m.opts.MaxFuture, m.opts.ReanchorAfter, m.memory, m.vague = watermark.Bounded, 0, 0, false, false
			}
		case 1:
			m.early, m.jumpy, m.opts.MaxFuture, m.opts.Bound = true, true, 40*time.Millisecond, oneOf[time.Duration](s, 5, 100)*time.Millisecond
		}
		m.saw["at least once"]++
	}
	m.tracef("%+v eager=%v alike=%v clock=%v memory=%v jumpy=%v losses=%v vague=%v", m.opts, m.eager, m.alike, m.clock, m.memory, m.jumpy, m.losses, m.vague)
	m.gen = 1
	for i := range m.procs {
		m.procs[i] = &process{name: string(rune('A' + i)), gen: 1}
		m.boot(m.procs[i])
	}
	partitions := 1 + s(3)
	if m.toggle || m.idle {
		partitions = 1
	}
	for i := range partitions {
		t := &shared{parted: -1, owner: m.procs[s(2)], since: 1}
		t.at = Scope{Group: "g", Partition: int32(i)}
		t.heavy = oneOf(s, 1, 1, 40)
		t.apart = m.alike && !m.losses && m.opts.Identity != nil
		t.known = !m.losses
		if m.eager {
			t.reader = &reader{top: watermark.None, saw: m.saw}
		}
		if steep && i == 0 {
			t.log = s.steep(m.opts)
		} else if doubtful && i == 0 {
			t.log = s.doubtful()
		} else if m.fickle {
			t.log = s.repeating()
		} else if m.toggle {
			t.log = s.ahead(m.opts, 150)
		} else if m.early {
			t.log = s.ahead(m.opts, 20)
		} else if m.idle {
			t.log = s.behind(m.opts)
		} else {
			t.log = m.log(25)
		}
		if previous {
			s.forget(t.log)
		}
		m.place(t)
		m.topic = append(m.topic, t)
	}
	for _, p := range m.procs {
		m.sync(p)
	}
	return m
}

// log makes one as source.log does. Where much is vague, a third of the records are for
// an outside service to judge.
func (m *simulation) log(n int) []logged {
	log := m.s.log(m.opts, n)
	for i := range log {
		if r := &log[i]; m.vague && !r.Invalid && m.s.maybe(3) {
			r.Invalid, r.Outside, r.doubtful = true, true, true
		}
	}
	return log
}

// steep makes a log whose guard takes a step with each record believed.
func (s source) steep(o Options) (log []logged) {
	wall := watermark.Time(1_763_700_000_000e6)
	for i := range int64(70 + s(20)) {
		r := logged{Record: Record{Offset: i, Time: wall}, wall: wall, marker: watermark.None}
		if i%2 == 1 {
			r.Time = wall.Add(o.MaxFuture + o.MaxFuture*3/8) // beyond the limit, and the next is not
			wall = wall.Add(o.MaxFuture + o.MaxFuture/2 + time.Duration(s(1000)))
		}
		log = append(log, r)
	}
	return log
}

// doubtful makes a log with more that is settled on an outside service's word,
// between records that are held, than a commit has room for.
func (s source) doubtful() (log []logged) {
	wall := watermark.Time(1_763_700_000_000e6)
	for i := range int64(3*MaxSettled + 20 + s(20)) {
		wall = wall.Add(time.Millisecond)
		r := logged{Record: Record{Offset: i, Time: wall}, wall: wall}
		if i%3 > 0 {
			r.Invalid, r.Outside, r.doubtful = true, true, true
		}
		log = append(log, r)
	}
	return log
}

// repeating makes a log in which records of one event time stand together.
func (s source) repeating() (log []logged) {
	wall := watermark.Time(1_763_700_000_000e6)
	for i := range int64(30 + s(20)) {
		if s.maybe(12) {
			wall = wall.Add(20 * time.Millisecond)
		}
		log = append(log, logged{Record: Record{Offset: i, Time: wall}, wall: wall, marker: watermark.None})
	}
	return log
}

// ahead makes a log with much that is from the future by any guard that judges, and as
// much that is beyond a limit that it may raise.
func (s source) ahead(o Options, n int64) (log []logged) {
	wall := watermark.Time(1_763_700_000_000e6)
	for i := range n + int64(s(30)) {
		log = append(log, s.aheadOf(o, i, wall))
		wall = wall.Add(oneOf[time.Duration](s, 1, 55, 55) * time.Millisecond)
	}
	return log
}

func (s source) aheadOf(o Options, offset int64, wall watermark.Time) logged {
	ms := oneOf[time.Duration](s, 0, 0, 40, 45, 50, 60, 60)
	r := logged{Record: Record{Offset: offset, Time: wall.Add(ms * time.Millisecond)}, wall: wall, marker: watermark.None}
	if o.Strategy == watermark.Punctuated {
		r.marker = oneOf(s, watermark.None, wall.Add(-time.Minute), wall, wall.Add(40*time.Millisecond))
	}
	return r
}

// behind makes a log of records that come behind the newest by up to the bound, and by
// a little more.
func (s source) behind(o Options) (log []logged) {
	top := watermark.Time(1_763_700_000_000e6)
	for i := range int64(20 + s(20)) {
		top = top.Add(o.Bound * time.Duration(s(6)) / 8)
		r := logged{Record: Record{Offset: i, Time: top.Sub(o.Bound * time.Duration(s(9)) / 8)}, wall: top, marker: watermark.None}
		if o.Strategy == watermark.Punctuated {
			r.marker = s.marker(o, top, top)
		}
		log = append(log, r)
	}
	return log
}

// place puts a log where it begins, fills some of its holes with control
// records, and lets the group begin with it.
func (m *simulation) place(t *shared) {
	s := m.s
	shift := oneOf[int64](s, 0, 0, 1000, 1<<40)
	for i := range t.log {
		t.log[i].Offset += shift
		if i > 0 {
			m.control(t, t.log[i-1].Offset+1, t.log[i].Offset, t.log[i].LeaderEpoch)
			if t.log[i].LeaderEpoch > t.log[i-1].LeaderEpoch {
				m.saw["leader rises"]++
			}
		}
		if t.log[i].Time == watermark.Max || t.log[i].Time <= watermark.None+2 {
			m.saw["extreme times"]++
		}
	}
	if shift == 1<<40 {
		m.saw["high offsets"]++
	}
	last := t.log[len(t.log)-1]
	t.end, t.leader = last.Offset+1+int64(s(3)), last.LeaderEpoch
	m.control(t, last.Offset+1, t.end, last.LeaderEpoch)
	first := t.log[0]
	if s.maybe(4) {
		first = t.log[s(len(t.log))/3]
		m.saw["origin inside the log"]++
	}
	if s.maybe(4) {
		t.epoch = 7
		m.saw["epoch not 0"]++
	}
	fresh := Fresh(first.Offset, first.LeaderEpoch, t.epoch)
	fresh.Known = int32(s(4))
	t.fresh = fresh
	t.start(fresh)
	t.twin = twin{epoch: t.epoch}
	t.wall = first.wall
}

func (m *simulation) control(t *shared, from, to int64, leader int32) {
	for o := from; o < to; o++ {
		if m.s.maybe(2) {
			t.marks = append(t.marks, Record{Offset: o, LeaderEpoch: leader})
		} else {
			m.saw["hole"]++
		}
	}
}

// following returns what is to be read at or after an offset: a record, or a
// control record, or neither.
func (t *shared) following(offset int64) (record *logged, control *Record) {
	if i := t.pick(offset); i < len(t.log) {
		record = &t.log[i]
	}
	i, _ := slices.BinarySearchFunc(t.marks, offset, func(c Record, o int64) int { return int(min(max(c.Offset-o, -1), 1)) })
	if i < len(t.marks) && (record == nil || t.marks[i].Offset < record.Offset) {
		return nil, &t.marks[i]
	}
	return record, nil
}

func (m *simulation) tracef(format string, a ...any) {
	if m.trace != nil {
		fmt.Fprintf(m.trace, format+"\n", a...)
	}
}

func failf(format string, a ...any) { panic(violation(fmt.Sprintf(format, a...))) }

// boot starts a process: nothing is left of what it knew.
func (m *simulation) boot(p *process) {
	o, budget := m.opts, int64(1)<<40
	switch {
	case m.toggle:
		if o.MaxFuture = 40 * time.Millisecond; p.eng != nil && p.eng.opts.MaxFuture > 0 && !m.s.maybe(8) {
			o.MaxFuture = 0
		}
	case m.fickle:
		o.Identity = oneOf[Identity](m.s, nil, firstByte{}, firstByte{}, secondByte{})
	case !m.alike:
		o = m.s.options()
		o.Previous = m.opts.Previous // the commit's fingerprint has seen to it
	}
	if p.eng != nil && o != p.eng.opts {
		m.saw["options changed"]++
	}
	if m.memory {
		budget = oneOf[int64](m.s, 1000, 6000, 1<<40)
	}
	p.eng, p.has = NewEngine(o, budget), nil
	p.now = watermark.Instant(m.s(3)) * watermark.Instant(time.Hour)
	p.eng.Tick(p.now)
	m.tracef("%s: starts with %+v, %d bytes", p.name, o, budget)
}

// sync lets a process know who owns what. What it has stays with it only if it
// has been the owner all the time and everything is committed.
func (m *simulation) sync(p *process) {
	clean := true
	for _, k := range p.has {
		clean = clean && !k.p.Changed()
	}
	had := p.has
	p.has = nil
	for _, k := range had {
		if clean && k.of.owner == p && k.of.since <= p.gen {
			p.has = append(p.has, k)
			continue
		}
		if k.of.owner == p && k.of.since > p.gen {
			m.saw["stale owner starts over"]++
		}
		m.release(k)
	}
	p.gen = m.gen
	for _, t := range m.topic {
		if t.owner == p && !slices.ContainsFunc(p.has, func(k *member) bool { return k.of == t }) {
			m.take(p, t)
		}
	}
	slices.SortFunc(p.has, func(a, b *member) int { return int(a.at.Partition - b.at.Partition) })
}

// release forgets a partition that a process has.
func (m *simulation) release(k *member) {
	if k.due && k.p.Due() {
		m.saw["crash inside a release"]++
		if k.flushing {
			m.saw["flush cut by a crash"]++
		}
	}
	if _, replaying := k.p.Replaying(); replaying && k.p.Position() > k.taken.Low {
		m.saw["replay interrupted"]++
	}
	if m.eager && len(k.pending) > 0 {
		m.saw["seen before a crash"]++
		n := len(k.pending)
		k.show(oneOf(m.s, n, m.s(n+1)), oneOf(m.s, 0, m.s(n+1), n))
	}
	k.eng.Revoke(k.p)
}

// take begins with a partition where its commit says.
func (m *simulation) take(p *process, t *shared) {
	p.now += oneOf[watermark.Instant](m.s, 0, 0, 0, watermark.Instant(4*time.Second)) // offsets are waited for
	k := &member{of: t, proc: p, world: world{
		durable: &t.durable, eng: p.eng, opts: p.eng.opts, trace: m.trace, heavy: t.heavy, now: p.now,
		name: fmt.Sprintf("%s/%d: ", p.name, t.at.Partition),
	}}
	p.has = append(p.has, k)
	k.begin()
	k.teller = len(t.asked)
	t.asked = append(t.asked, k.opts.Identity)
	was := t.twin.o
	k.twin, k.base, k.good = t.twin.copied(), len(t.out), len(t.out)
	k.twin.restart(p.eng.opts, p.now, len(t.out), k.taken.Low)
	k.next, k.nextE, k.began, k.asked = k.taken.Next, k.taken.NextEpoch, p.now, p.now
	if len(t.out) > 0 && was != p.eng.opts {
		m.saw["owner with other options"]++
		if was.MaxFuture > 0 != (p.eng.opts.MaxFuture > 0) {
			m.saw["guard switched"]++
		}
		if was.Identity != p.eng.opts.Identity && len(k.twin.owed(len(t.out))) > 0 {
			m.saw["identity switched"]++
			if len(k.twin.before) > 0 && k.opts.Identity != nil {
				m.saw["identity switched inside a group"]++
			} else if len(k.twin.before) > 0 {
				m.saw["what nobody asks for is kept"]++
			}
		}
	}
	switch _, replaying := k.p.Replaying(); {
	case t.parted >= 0 && t.parted < k.taken.Low:
		m.noticed(k)
	case !replaying:
		k.due = true
		t.parted = -1
	default:
		m.saw["replay"]++
	}
}

// busy reports whether there is anything left to do.
func (m *simulation) busy() bool {
	for _, t := range m.topic {
		if t.was.Next < t.end && !t.readOut() {
			return true
		}
	}
	return false
}

// readOut reports whether all there is to read is committed.
func (t *shared) readOut() bool {
	r, c := t.following(t.was.Next)
	return r == nil && c == nil && t.parted < 0
}

func (m *simulation) move() {
	m.moves++
	p := m.procs[(m.moves+m.s(2))%2]
	if len(p.has) == 0 && !m.s.maybe(8) {
		p = m.other(p)
	}
	p.now += watermark.Instant(oneOf(m.s, 0, 0, 1, 20*time.Millisecond))
	p.eng.Tick(p.now)
	m.accounts(p)
	switch {
	case m.s.maybe(m.rate):
		m.fault(p)
	case m.toggle && m.losses && m.s.maybe(40):
		m.damage(m.topic[0])
	case m.toggle && m.switches(p):
	case m.s.maybe(m.often):
		m.commit(p)
	case m.memory && p.eng.Crowded() && m.relieve(p):
	case len(p.has) == 0:
	default:
		k := p.has[(m.moves/2+m.s(len(p.has)))%len(p.has)]
		if m.clock && (m.s.maybe(8) || m.idle && m.s.maybe(3)) {
			m.answers(k)
		} else {
			m.step(k)
		}
		for end, replaying := k.p.Replaying(); m.toggle && replaying && k.p.Position() < end && k.p == k.proc.has[0].p; end, replaying = k.p.Replaying() {
			m.step(k) // there are many, and they are not what this is about
		}
	}
}

// switches starts a process again, with the guard on or off, when it has read a few
// records since it began.
func (m *simulation) switches(p *process) bool {
	for _, k := range p.has {
		if _, replaying := k.p.Replaying(); replaying || k.next < k.taken.Next+2+int64(m.s(3)) {
			return false
		}
	}
	if len(p.has) > 0 {
		m.commit(p)
		m.crash(p)
	}
	return len(p.has) > 0
}

func (m *simulation) other(p *process) *process {
	if p == m.procs[0] {
		return m.procs[1]
	}
	return m.procs[0]
}

// accounts checks what an engine says it holds.
func (m *simulation) accounts(p *process) {
	var bytes int64
	for _, k := range p.has {
		bytes += k.p.Status().Bytes
	}
	if replaying := m.replaying(p); replaying > 1 && p.eng.Crowded() {
		failf("%s holds %d bytes of %d while it reads %d partitions again", p.name, bytes, p.eng.budget, replaying)
	}
	if p.eng.Bytes() != bytes || p.eng.Crowded() != (bytes > p.eng.budget) {
		failf("%s counts %d bytes, its partitions hold %d", p.name, p.eng.Bytes(), bytes)
	}
}

// replaying counts the partitions of which something has been read again, and not all.
func (m *simulation) replaying(p *process) (n int) {
	for _, k := range p.has {
		_, replaying := k.p.Replaying()
		if k.p.Waits() && (!replaying || k.p.Status().Bytes != 0 || k.p.Position() != k.taken.Low) {
			k.failf("waits for memory, and has found %d bytes", k.p.Status().Bytes)
		}
		if replaying && k.p.Status().Bytes > 0 {
			n++
		}
	}
	return n
}

// yields lets replays give way while memory is short, and begin again.
func (m *simulation) yields(p *process) {
	for y := p.eng.Yield(); y != nil; y = p.eng.Yield() {
		m.tracef("%s: a replay gives way, %d bytes are held", p.name, p.eng.Bytes())
		m.saw["a replay gives way"]++
	}
	if y := p.eng.Resume(); y != nil {
		m.saw["a replay begins again"]++
	}
}

// step lets a partition go on by a little.
func (m *simulation) step(k *member) {
	defer m.yields(k.proc)
	if k.p.Waits() {
		return
	}
	if m.eager && k.p.CommitFirst() {
		if k.p.doubts.moved {
			m.saw["commit before a clock's move is relied on"]++
		} else {
			m.saw["commit before a verdict is relied on"]++
		}
		m.commit(k.proc)
		return
	}
	if k.proc.gen < m.gen && k.of.owner != k.proc {
		m.saw["zombie steps"]++
	}
	end, replaying := k.p.Replaying()
	r, c := k.of.following(k.p.Position())
	switch {
	case k.due:
		if !k.world.next() {
			k.forced, k.flushing = false, false
		} else {
			m.apart(k)
		}
		k.agree()
	case replaying && c != nil && c.Offset < end:
		m.saw["control record read again"]++
		k.p.Skip(c.Offset+1, c.LeaderEpoch)
	case replaying && r != nil && r.Offset < end:
		m.again(k, *r)
	case replaying:
		m.endReplay(k)
	case c != nil:
		m.saw["control record"]++
		k.skip(c.Offset+1, c.LeaderEpoch)
	case r != nil:
		m.read(k, *r)
	}
}

// apart takes note of a record that was told from its original.
func (m *simulation) apart(k *member) {
	o := k.pending[len(k.pending)-1]
	if o.verdict != Duplicate {
		return
	}
	m.saw["duplicate"]++
	if !slices.ContainsFunc(k.twin.out[k.twin.from:], func(b output) bool {
		return b.verdict == OnTime && b.Time == o.Time && b.epoch == o.epoch && idOf(k.opts.Identity, b.Offset) == idOf(k.opts.Identity, o.Offset)
	}) {
		m.saw["duplicate of a record before a restart"]++
	}
}

func (k *member) skip(next int64, leader int32) {
	k.p.Skip(next, leader)
	if next > k.next {
		k.next, k.nextE = next, max(k.nextE, leader)
	}
}

// read has a record judged, by the wall clock of the process.
func (m *simulation) read(k *member, r logged) {
	if m.s.maybe(4) {
		k.skip(r.Offset, r.LeaderEpoch) // a hole, if anything
	}
	if r.Outside && !k.p.Settles(r.Offset) {
		m.saw["no room to settle"]++
		k.p.MakeRoom()
		m.force(k)
		return
	}
	r.wall = m.wall(k, r)
	if k.twin.waits = k.waits(r.Offset); k.twin.waits {
		k.of.crowded = true
		m.saw["guard waits for room to begin"]++
	}
	w, epoch, steps := k.p.Watermark(), k.p.Epoch(), len(k.p.guard.Steps())
	v := k.step(r)
	if v == Flush {
		m.saw["flush"]++
		k.flushing = true
		if r.doubtful { // by the time the flush is durable, it may not be told any more
			k.of.varied = true
		}
		if k.opts.ReanchorAfter == 0 || k.twin.run+1 < k.opts.ReanchorAfter || r.Time > k.twin.natural() || k.twin.future(r) {
			k.failf("#%d flushes", r.Offset)
		}
		k.twin.flush()
		k.agree()
		return
	}
	k.next, k.nextE = r.Offset+1, r.LeaderEpoch
	if k.twin.full = v == Future && len(k.p.guard.Steps()) >= watermark.MaxSteps; k.twin.full {
		k.of.crowded = true
		m.saw["guard full"]++
	}
	if r.Previous {
		m.readPrevious(k, r, v, w)
		return
	}
	if late := v == BehindWatermark || v == Overflow; late && r.Time > w || v == OnTime && k.p.Epoch() == epoch && r.Time <= w {
		k.failf("#%d t=%s is %v, W was %s", r.Offset, ms(r.Time), v, ms(w))
	}
	if slices.ContainsFunc(k.twin.seen, func(o logged) bool { return o.Time == r.Time }) {
		m.saw["equal times"]++
	}
	k.twin.read(r, k.proc.now)
	if v == Future {
		k.refused = append(k.refused, Position{r.Time, r.Offset})
		if k.opts.MaxFuture == 0 {
			m.saw["guard waits for room to end"]++
		}
	}
	k.twin.waits = k.waits(r.Offset + 1)
	if full := k.disbelieved && len(k.p.guard.Steps()) >= watermark.MaxSteps; full {
		k.twin.full, k.of.crowded = true, true
	}
	k.twin.mark(r)
	k.twin.full = false
	k.twin.release()
	k.agree()
	switch {
	case v == InvalidTime && r.Outside:
		m.saw["settled on an outside word"]++
	case v == InvalidTime:
		m.saw["invalid"]++
	case v == BehindWatermark:
		m.saw["late"]++
	case v == Overflow:
		m.saw["overflow"]++
	case v == Future:
		m.saw["future"]++
	case k.p.Epoch() > epoch:
		m.saw["new epoch"]++
	case r.Time == w+1:
		m.saw["on time at the watermark's edge"]++
	}
	if len(k.p.guard.Steps()) > steps {
		m.saw["guard step"]++
	}
}

// readPrevious goes on with a record without a time.
func (m *simulation) readPrevious(k *member, r logged, v Verdict, w watermark.Time) {
	if now := k.p.Watermark(); now != w && r.marker == watermark.None || v != OnTime && v != InvalidTime {
		k.failf("#%d has no time, and is %v; W=%s, was %s", r.Offset, v, ms(now), ms(w))
	}
	k.twin.read(r, k.proc.now)
	k.twin.waits = k.waits(r.Offset + 1)
	if full := k.disbelieved && len(k.p.guard.Steps()) >= watermark.MaxSteps; full {
		k.twin.full, k.of.crowded = true, true
	}
	k.twin.mark(r)
	k.twin.full = false
	k.twin.release()
	k.agree()
	switch {
	case v == InvalidTime:
		m.saw["nothing to take a time from"]++
	case k.twin.atEdge(r.Offset):
		m.saw["at the edge"]++
		if k.p.edge.Time > k.p.clock.Max {
			m.saw["at the edge, ahead of all that was seen"]++
		}
	default:
		m.saw["the time of its key"]++
	}
}

// waits reports whether the guard has been switched on and has no room to begin.
func (k *member) waits(offset int64) bool {
	steps := k.p.guard.Steps()
	if len(steps) < watermark.MaxSteps || k.opts.MaxFuture == 0 {
		return false
	}
	last := steps[len(steps)-1]
	return last.Limit == watermark.Max && last.Offset != offset
}

// wall is what the wall clock of a process shows when it reads a record: true
// time is what the log has come to, and the clock may be wrong.
func (m *simulation) wall(k *member, r logged) watermark.Time {
	const end = watermark.Max - watermark.Time(time.Hour) // nobody will run this in 2262
	switch {
	case m.jumpy:
		k.of.wall = max(k.of.wall, r.wall)
		return min(k.of.wall.Add(k.proc.off), end)
	case m.alike:
		return r.wall // the log has seen to it
	}
	return min(r.wall, end)
}

// again reads what was judged before the commit.
func (m *simulation) again(k *member, r logged) {
	k.now = k.proc.now
	recalled := k.p.Recalls(r.Offset, r.LeaderEpoch)
	if r.Outside && !recalled { // it could tell when the record was judged
		m.saw["waits for an outside word"]++
		if !m.calm && !m.s.maybe(3) {
			return
		}
		r = r.told()
	}
	lost := r.LeaderEpoch > k.taken.NextEpoch
	if recalled && !lost && slices.Contains(k.twin.word, r.Offset) {
		if r.Outside {
			m.saw["settled and not told yet"]++
		} else {
			m.saw["settled although it can be told now"]++
		}
	}
	future := k.p.guard.WasFuture(r.Offset, r.Time)
	if now := k.opts.MaxFuture > 0 && r.Time > m.wall(k, r).Add(k.opts.MaxFuture); !r.Invalid && !r.Previous && !lost && now != future {
		if now {
			m.saw["verdict would be another now: future"]++
		} else {
			m.saw["verdict would be another now: not future"]++
		}
	}
	v := k.againOne(r)
	if asked(r) {
		k.twin.observe(k.proc.now, k.replies, -1)
		m.saw["answer while replaying"]++
	}
	if owed := k.owes(r.Offset); owed != (v == OnTime) && !lost {
		k.failf("#%d is %v, but owed: %v", r.Offset, v, owed)
	}
	if v == Remembered {
		m.saw["group taken up again"]++
	}
	switch lender, held := k.twin.lenders[r.Offset], v == OnTime; {
	case !r.Previous:
	case !held && v == Settled:
		m.saw["without a time, and not owed"]++
	case held && lender == r.Offset:
		m.saw["at the edge again"]++
	case held && !k.owes(lender):
		m.saw["the lender is out"]++
	}
	if k.eng.Crowded() {
		m.saw["memory needed while replaying"]++
	}
}

// owes reports whether a record is held, or due and not out.
func (k *member) owes(offset int64) bool {
	return slices.ContainsFunc(k.twin.owed(k.good), func(at Position) bool { return at.Offset == offset })
}

// agree compares what has come out with what had to.
func (k *member) agree() {
	for n := k.base + len(k.pending); k.good < n; k.good++ {
		got := k.pending[k.good-k.base]
		if k.good >= len(k.twin.out) || got != k.twin.out[k.good] {
			k.failf("put out:\n%sby definition:\n%s", list([]output{got}), list(k.twin.out[k.good:]))
		}
	}
	st, clock := k.p.Status(), k.p.clock
	held := len(k.twin.held) + len(k.twin.out) - k.good
	if clock.W != k.twin.w() || clock.Natural != k.twin.natural() || clock.Max != newest(k.twin.seen) ||
		st.Epoch != k.twin.epoch || st.Records != held || k.p.lateRun != k.twin.run {
		k.failf("W=%s natural=%s max=%s epoch=%d held=%d run=%d, by definition W=%s natural=%s max=%s epoch=%d held=%d run=%d",
			ms(clock.W), ms(clock.Natural), ms(clock.Max), st.Epoch, st.Records, k.p.lateRun,
			ms(k.twin.w()), ms(k.twin.natural()), ms(newest(k.twin.seen)), k.twin.epoch, held, k.twin.run)
	}
	if !k.due && k.good != len(k.twin.out) {
		k.failf("not put out:\n%s", list(k.twin.out[k.good:]))
	}
}

// state is what a snapshot has to say.
func (k *member) state(steps []watermark.Step) Snapshot {
	s := Snapshot{
		Origin: k.of.fresh.Origin, Known: k.of.fresh.Known, Low: k.next, LowEpoch: k.nextE, Next: k.next, NextEpoch: k.nextE,
		W: k.twin.w(), Natural: k.twin.natural(), Max: newest(k.twin.seen), Epoch: k.twin.epoch, LateRun: k.twin.run, Steps: steps,
		Disorder: k.twin.histogram(),
	}
	for _, out := range k.twin.group(k.good) {
		s.Low = min(s.Low, out.Offset)
	}
	for i, at := range k.twin.owed(k.good) {
		s.Low = min(s.Low, at.Offset)
		s.Count++
		s.Sum += OffsetHash(at.Offset)
		if i == 0 && k.good < len(k.twin.out) {
			s.Releasing, s.Frontier = true, at
		}
	}
	for _, out := range k.twin.repeating(k.good) {
		s.Repeats = out.Offset
	}
	s.LowEpoch = k.leaderAt(s)
	return s
}

// answers lets the broker answer a few questions about the end.
func (m *simulation) answers(k *member) {
	if k.due {
		return // a release is not interrupted by the clock
	}
	p := k.proc
	for range 1 + m.s(4) {
		p.now += watermark.Instant(oneOf(m.s, 0, 200*time.Millisecond, time.Second, 2*time.Second, 2*time.Second+1))
		p.eng.Tick(p.now)
		sent := p.now - watermark.Instant(oneOf(m.s, 0, 0, 0, 300*time.Millisecond, 1500*time.Millisecond, 5*time.Second))
		answer, looked := m.s.answer(), !m.s.maybe(3)
		_, replaying := k.p.Replaying()
		before := k.p.Watermark()
		k.begins(event{now: p.now, sent: sent, answer: answer, looked: looked})
		if looked {
			position := k.p.NextOffset()
			if replaying {
				position = -1
			}
			k.twin.observe(p.now, k.replies, position)
			k.twin.release()
		} else {
			k.due = false
			m.saw["answer that waits"]++
		}
		switch {
		case replaying:
			m.saw["answer while replaying"]++
		case sent < k.began:
			m.saw["answer to a question before assignment"]++
		case answer != quiet:
			m.saw["answer not quiet"]++
		case sent.Sub(k.asked) > watermark.Gap:
			m.saw["answer after a gap"]++
		}
		k.asked = sent
		if replaying {
			k.due = false
			continue
		}
		if k.p.Watermark() != before {
			k.of.varied = true
			m.saw["drain"]++
		}
		if k.agree(); k.p.Due() {
			return
		}
	}
}

// relieve makes room, unless a release is under way.
func (m *simulation) relieve(p *process) bool {
	var most int64
	for _, k := range p.has {
		if _, replaying := k.p.Replaying(); k.due {
			return false
		} else if !replaying {
			most = max(most, k.p.Status().Bytes)
		}
	}
	state := p.eng.Relieve()
	for _, k := range p.has {
		if k.p == state {
			if k.p.Status().Bytes < most {
				k.failf("gives way, but does not hold most")
			}
			m.force(k)
			m.saw["relieved"]++
		}
	}
	return state != nil
}

func (m *simulation) force(k *member) {
	k.tracef("relieve W=%s", k.p.Watermark())
	k.twin.happen(event{force: true})
	k.of.varied, k.due, k.forced = true, true, true
	k.agree()
}

// end lets everything come to rest, and everything out.
func (m *simulation) end() {
	m.calm = true
	m.tracef("all is calm")
	for _, p := range m.procs {
		m.sync(p)
		for moves := 0; m.rests(p); moves++ {
			if moves > 10_000 {
				failf("%s does not come to an end", p.name)
			}
		}
		m.commit(p)
	}
	for _, t := range m.topic {
		m.compare(t)
	}
	for _, p := range m.procs {
		for _, k := range p.has {
			for k.p.Status().Records > 0 {
				k.p.force()
				for m.force(k); k.due; {
					m.step(k)
				}
			}
		}
		m.commit(p)
		for _, k := range p.has {
			k.all()
		}
		m.accounts(p)
		if p.eng.Bytes() != 0 || p.eng.Relieve() != nil {
			failf("%d bytes left in an empty engine", p.eng.Bytes())
		}
	}
}

// rests lets a process do what there is to do, and reports whether there was
// any.
func (m *simulation) rests(p *process) (some bool) {
	for _, k := range p.has {
		_, replaying := k.p.Replaying()
		if r, c := k.of.following(k.p.Position()); k.due || replaying || r != nil || c != nil {
			m.step(k)
			some = true
		}
	}
	return some
}

// compare holds the outputs of a history without a rule of clock or memory to
// those of one without incident.
func (m *simulation) compare(t *shared) {
	o := m.opts
	if m.jumpy {
		o.MaxFuture = 0
		for _, out := range t.out {
			if out.verdict == Future {
				return
			}
		}
	}
	if t.varied || t.crowded || !m.alike || m.jumpy && o.Strategy == watermark.Punctuated {
		return
	}
	log := slices.Clone(t.log[t.pick(t.fresh.Origin):])
	for i := range log { // what the outside service said when it mattered
		if r := &log[i]; r.doubtful {
			r.Invalid = slices.ContainsFunc(t.out, func(o output) bool { return o.Offset == r.Offset && o.verdict == InvalidTime })
		}
	}
	want := expected(o, log, t.epoch)
	if !reflect.DeepEqual(t.out, want) && len(t.out)+len(want) > 0 {
		failf("partition %d put out:\n%swithout incident:\n%s", t.at.Partition, list(t.out), list(want))
	}
	m.saw["as without incident"]++
	if slices.ContainsFunc(t.log, func(r logged) bool { return r.Previous }) {
		m.saw["as without incident, with records without a time"]++
	}
	if t.last != nil && t.last.epoch > t.epoch {
		m.saw["as without incident, with new epochs"]++
	}
	if !m.jumpy && slices.ContainsFunc(t.out, func(out output) bool { return out.verdict == Future }) {
		m.saw["as without incident, with the guard"]++
	}
	if slices.ContainsFunc(t.out, func(out output) bool { return out.verdict == Duplicate }) {
		m.saw["as without incident, with duplicates"]++
	}
}
