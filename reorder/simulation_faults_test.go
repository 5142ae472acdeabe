package reorder

import (
	"slices"
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
)

// What may befall a history of the simulation: transactions that end in every
// way there is, processes that die or do not know that they are dead to the
// group, clocks that jump, logs that lose records.

// commit ends the transaction of a process in one of the ways it can.
func (m *simulation) commit(p *process) {
	type part struct {
		k    *member
		s    Snapshot
		text string
	}
	var parts []part
	for _, k := range p.has {
		if k.p.Changed() || m.s.maybe(8) {
			s, text, ok := m.prepare(k)
			if ok {
				parts = append(parts, part{k, s, text})
			}
			continue
		}
		if s := k.p.Snapshot(); len(k.pending) > 0 || p.gen == m.gen && !k.isCommitted(s) {
			k.failf("says that nothing has changed, but has put out %d, and says %+v, committed is %+v", len(k.pending), s, k.was)
		}
		m.saw["nothing changed"]++
	}
	if p.gen < m.gen {
		m.tracef("%s: refused, for another has its partitions", p.name)
		m.saw["zombie is refused"]++
		m.abort(p)
		return
	}
	outcome := m.s(16)
	if m.calm {
		outcome = 0
	}
	if outcome == 15 {
		m.saw["crash before the effect"]++
		m.crash(p)
		return
	}
	for _, c := range parts {
		if m.eager {
			c.k.show(len(c.k.pending), len(c.k.pending)) // it has been acknowledged
		}
	}
	if outcome == 14 {
		m.saw["effect absent"]++
		m.abort(p)
		return
	}
	for _, c := range parts {
		n := len(c.k.pending)
		c.k.settle(c.s, c.text)
		c.k.base += n
		c.k.of.twin, c.k.of.parted = c.k.twin.copied(), -1
	}
	if m.saw["durable"]++; len(parts) > 1 {
		m.saw["durable with several partitions"]++
	}
	switch outcome {
	case 13:
		m.saw["reply lost"]++
		m.abort(p)
	case 12:
		m.saw["reply lost, then crash"]++
		m.crash(p)
	case 11:
		for _, c := range parts {
			c.k.p.Advance()
		}
		m.saw["crash after the effect"]++
		m.crash(p)
	default:
		m.tracef("%s: durable", p.name)
		for _, c := range parts {
			c.k.p.Advance()
			c.k.land()
		}
	}
}

// prepare checks a snapshot against what it has to say. While a partition is
// read again there is nothing to commit.
func (m *simulation) prepare(k *member) (s Snapshot, text string, ok bool) {
	if _, replaying := k.p.Replaying(); replaying {
		if s = k.p.Snapshot(); !same(s, k.taken) {
			k.failf("snapshot while replaying = %+v, want %+v", s, k.taken)
		}
		return s, "", false
	}
	s, text = k.world.prepare()
	want := k.state(s.Steps)
	want.Settled, want.Edge = s.Settled, s.Edge
	if !same(s, want) {
		k.failf("snapshot = %+v,\nwant %+v", s, want)
	}
	k.settles(s)
	if edges := k.edges(s); edges {
		m.saw["commit with records at the edge"]++
		if s.Releasing {
			m.saw["commit inside a release, with records at the edge"]++
		}
	}
	if s.Releasing {
		m.saw["commit inside a release"]++
		if s.Repeats != 0 {
			m.saw["commit before a duplicate"]++
		}
		if k.flushing {
			m.saw["flush cut by a commit"]++
		}
		if k.forced {
			m.saw["relieved release cut"]++
		}
	}
	return s, text, true
}

// settles checks that a snapshot has every offset that was settled on an outside
// service's word and will be read again, and none that is owed.
func (k *member) settles(s Snapshot) {
	for _, offset := range k.twin.word {
		if offset > s.Low && offset < s.Next && !spans(s.Settled).has(offset) {
			k.failf("#%d was settled on an outside service's word, and is forgotten: %v", offset, s.Settled)
		}
	}
	for _, at := range k.twin.owed(k.good) {
		if spans(s.Settled).has(at.Offset) {
			k.failf("#%d is owed, and settled: %v", at.Offset, s.Settled)
		}
	}
}

// edges reports whether a record at the edge is owed, and checks that a snapshot says so.
func (k *member) edges(s Snapshot) (some bool) {
	for _, at := range k.twin.owed(k.good) {
		if k.twin.atEdge(at.Offset) {
			if some = true; s.Edge == 0 || s.Edge > at.Offset || s.Edge < s.Low {
				k.failf("#%d is owed at the edge, and the commit has %d", at.Offset, s.Edge)
			}
		}
	}
	return some
}

// isCommitted reports whether a snapshot says what is committed, but for the
// disorder, which another strategy does not carry on.
func (k *member) isCommitted(s Snapshot) bool {
	c := k.was
	c.Disorder = s.Disorder
	return same(c, s)
}

// abort begins again from what is committed, with the same engine.
func (m *simulation) abort(p *process) {
	m.tracef("%s: begins again", p.name)
	m.saw["abort without a crash"]++
	for _, k := range p.has {
		m.release(k)
	}
	p.has = nil
	m.accounts(p)
	m.sync(p)
}

func (m *simulation) crash(p *process) {
	m.tracef("%s: crash", p.name)
	m.saw["crash"]++
	for _, k := range p.has {
		m.release(k)
		if m.eager && m.s.maybe(2) { // what was decided may now be decided otherwise
			m.changeMind(k.of)
		}
	}
	if m.eager && m.s.maybe(2) {
		p.off += oneOf[time.Duration](m.s, -1, 1, -6, 6) * 50 * time.Millisecond
	}
	m.boot(p)
	m.sync(p)
}

func (m *simulation) fault(p *process) {
	switch m.s(12) {
	case 0:
		m.crash(p)
	case 1:
		m.abort(p)
	case 2, 3:
		m.rebalance()
	case 4: // suspended: its monotonic clock stands still
		m.saw["process suspended"]++
		p.off += time.Duration(1+m.s(5)) * time.Hour
	case 5: // stopped: it goes on
		m.saw["process stopped"]++
		p.now += watermark.Instant(time.Hour)
		p.off += time.Duration(m.s(2)) * time.Hour
	case 6:
		p.off -= oneOf(m.s, time.Hour, 20*time.Millisecond, 4*time.Minute)
		m.saw["wall clock back"]++
	case 7:
		p.off += oneOf(m.s, time.Hour, 20*time.Millisecond, 4*time.Minute)
		m.saw["wall clock forward"]++
	case 8:
		if p.gen < m.gen {
			m.saw["zombie notices"]++
			m.abort(p)
		}
	case 9:
		if m.losses {
			m.damage(m.topic[m.s(len(m.topic))])
		}
	default:
		m.changeMind(m.topic[m.s(len(m.topic))])
	}
}

// changeMind has the outside service tell what it could not, or not any more what it
// could. At least once nothing helps against the latter, where a record has not been
// committed.
func (m *simulation) changeMind(t *shared) {
	m.saw["an outside service changes its mind"]++
	t.log = slices.Clone(t.log)
	for i := range t.log {
		if r := &t.log[i]; r.doubtful && (!m.eager || r.Outside) && m.s.maybe(2) {
			r.Invalid, r.Outside = !r.Invalid, !r.Outside
		}
	}
}

// rebalance gives partitions to others. A process may have committed before, or
// lose what it has not, or know nothing of it.
func (m *simulation) rebalance() {
	m.saw["rebalance"]++
	for _, p := range m.procs {
		if p.gen == m.gen && m.s.maybe(2) {
			m.commit(p)
		}
	}
	m.gen++
	for _, t := range m.topic {
		if p := m.procs[m.s(2)]; p != t.owner {
			t.owner, t.since = p, m.gen
			m.saw["handover"]++
			if !slices.ContainsFunc(m.procs[0].has, changed) && !slices.ContainsFunc(m.procs[1].has, changed) {
				m.saw["handover between transactions"]++
			}
		}
		m.tracef("generation %d: partition %d is %s's", m.gen, t.at.Partition, t.owner.name)
	}
	for _, p := range m.procs {
		if m.eager || !m.s.maybe(3) { // what a zombie puts out cannot be taken back
			m.sync(p)
		}
	}
}

func changed(k *member) bool { return k.p.Changed() }

// damage has the log of a partition lose records: its end, which a new leader
// may write over, or one that is held. Whoever reads it is told, or starts anew.
func (m *simulation) damage(t *shared) {
	from := max(t.pick(t.was.Low)-2, t.pick(t.fresh.Origin))
	if t.parted >= 0 || from >= len(t.log) {
		return
	}
	owed := t.twin.owed(len(t.out))
	if t.varied = true; len(owed) > 0 && m.s.maybe(3) {
		m.remove(t, oneOf(m.s, owed...).Offset)
		m.startOver(t, m.procs[:]...)
		return
	}
	to := len(t.log)
	if m.toggle { // where steps have been taken
		to = max(min(to, t.pick(t.was.Next)), from+1)
	}
	m.part(t, from+m.s(to-from), m.s.maybe(2))
	for _, k := range t.owner.has {
		if k.of == t && t.owner.gen == m.gen && t.parted < k.p.Position() && !k.p.Waits() && m.s.maybe(2) {
			m.startOver(t, m.other(t.owner))
			m.saw["loss between two commits"]++
			m.noticed(k)
			return
		}
	}
	m.startOver(t, m.procs[:]...)
}

// remove takes one record out of the log.
func (m *simulation) remove(t *shared, offset int64) {
	m.tracef("partition %d: #%d is deleted", t.at.Partition, offset)
	m.saw["records deleted"]++
	t.log = slices.DeleteFunc(slices.Clone(t.log), func(r logged) bool { return r.Offset == offset })
	t.parted = t.was.Next
}

// startOver has processes that hold a partition begin anew.
func (m *simulation) startOver(t *shared, procs ...*process) {
	for _, p := range procs {
		if slices.ContainsFunc(p.has, func(k *member) bool { return k.of == t }) {
			m.crash(p)
		}
	}
}

// part ends the log at its i-th record; a new leader may write on from there.
func (m *simulation) part(t *shared, i int, rewritten bool) {
	at := t.log[i].Offset
	leader := t.leader + 1
	wall, lost := t.log[len(t.log)-1].wall, t.log[i:]
	t.log = slices.Clone(t.log[:i])
	t.marks = slices.DeleteFunc(slices.Clone(t.marks), func(c Record) bool { return c.Offset >= at })
	t.parted, t.end = at, at
	t.forget(at)
	if !rewritten {
		m.tracef("partition %d: ends at %d", t.at.Partition, at)
		m.saw["log cut"]++
		return
	}
	m.saw["log rewritten"]++
	at += int64(m.s(2))
	for j, r := range m.log(10) {
		r.Offset, r.LeaderEpoch = r.Offset+at, r.LeaderEpoch+leader
		r.wall = max(wall, r.wall)
		if m.s.maybe(2) && i > 0 {
			r.Time = t.log[(i+j)%i].Time
		}
		if m.toggle {
			r = m.s.aheadOf(m.opts, r.Offset, lost[min(j, len(lost)-1)].wall)
			r.LeaderEpoch = leader
		}
		t.log = append(t.log, r)
		t.end, t.leader = r.Offset+1, r.LeaderEpoch
	}
	m.tracef("partition %d: rewritten from %d to %d, %d records", t.at.Partition, at, t.end, len(t.log)-i)
}

// noticed: the client finds that the log no longer has what was read, or the
// offset it reads from.
func (m *simulation) noticed(k *member) {
	m.saw["loss noticed by the client"]++
	aside := k.twin.repeating(k.good)
	if _, replaying := k.p.Replaying(); replaying {
		k.p.EndReplay(k.of.parted, true)
		k.twin.stir(k.eng.now)
		aside = k.twin.aside
	}
	k.p.Rewind(k.of.parted)
	k.accepted()
	m.lost(k, min(k.next, k.of.parted), k.nextE, aside)
}

// endReplay ends a replay, which has found what it had to find unless the log
// has lost some of it.
func (m *simulation) endReplay(k *member) {
	next, leader := k.taken.Next, k.taken.NextEpoch
	broken := false
	if k.of.end < next {
		next, broken = k.of.end, true
	}
	for _, r := range k.log[k.pick(k.taken.Low):k.pick(k.taken.Next)] {
		if r.LeaderEpoch > leader {
			next, leader, broken = r.Offset, r.LeaderEpoch, true
			break
		}
	}
	owed := k.twin.owed(k.good)
	for _, at := range owed {
		broken = broken || !k.exists(at.Offset)
	}
	loss := k.world.endReplay(false)
	if (loss != nil) != broken || loss != nil && int(loss.Owed) != len(owed) {
		k.failf("loss: %v, but something is missing: %v", loss, broken)
	}
	k.twin.stir(k.proc.now) // if it goes on, now or after the loss was accepted
	if k.due = true; !broken {
		k.of.parted = -1 // if anything, what nobody had read is another now
		if k.p.Due() {
			m.saw["release taken up again"]++
		}
		k.agree()
		return
	}
	if _, replaying := k.p.Replaying(); !replaying {
		k.failf("goes on although the loss was not accepted")
	}
	k.world.endReplay(true)
	if next < k.taken.Next && leader > k.taken.NextEpoch {
		m.saw["read again as new"]++
	}
	m.lost(k, next, leader, k.twin.aside) // nothing has been set aside since the commit
}

func (k *member) exists(offset int64) bool {
	i := k.pick(offset)
	return i < len(k.log) && k.log[i].Offset == offset
}

// lost goes on after a loss that has been accepted, with the log from next on.
func (m *simulation) lost(k *member, next int64, leader int32, aside []output) {
	m.saw["loss accepted"]++
	k.tracef("loss accepted, next to read is %d", k.p.Position())
	if k.p.Position() != next {
		k.failf("next to read is %d, want %d", k.p.Position(), next)
	}
	k.next, k.nextE, k.due = next, leader, true
	k.twin.lose(k.good, aside, func(offset int64) bool { return offset >= next || !k.exists(offset) })
	k.agree()
}
