package proxy

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Tally is what became of the records of a partition since the process began, as
// far as it is committed. Nothing in it goes back but Carried and Held, and at every
// commit
//
//	Read + Carried = Ordered + late + Dropped + Lost + Held
//
// It is counted apart from what the engine holds: Held is asked of the engine, and
// the rest is counted where it happens.
type Tally struct {
	Read    int64 // judged for the first time
	Carried int64 // held when the partition was taken up, less those held when it was given up
	Ordered int64 // to the ordered topic
	Late    [reorder.Duplicate + 1]int64
	Dropped int64 // duplicates that went to no output
	Lost    int64 // held, and gone from the source when they were to be read again
	Held    int64 // read, and not yet put out
}

// AllLate returns how many records went to the late topic.
func (t *Tally) AllLate() (n int64) {
	for _, k := range t.Late {
		n += k
	}
	return n
}

// Unaccounted returns how many records are missing from the account: 0, unless
// Tidemark is at fault.
func (t *Tally) Unaccounted() int64 {
	return t.Read + t.Carried - t.Ordered - t.AllLate() - t.Dropped - t.Lost - t.Held
}

// account keeps the tally of one partition for as long as the process lives, whoever
// has the partition meanwhile.
type account struct {
	now, kept           Tally     // with what is not committed, and without
	disorder, committed Histogram // the same of how far behind records came

	marked  time.Time // when rates were last worked out,
	at      Tally     // and from what
	ordered float64   // records a second, since then
	late    [reorder.Duplicate + 1]float64
}

// keep says that everything counted so far is committed.
func (a *account) keep() {
	if a.kept.Read != a.now.Read { // it is large, and changes with Read alone
		a.committed = a.disorder
	}
	a.kept = a.now
}

// undo says that what was not is void.
func (a *account) undo() {
	if a.kept.Read != a.now.Read {
		a.disorder = a.committed
	}
	a.now = a.kept
}

// accounts are those of all partitions that the process has had.
type accounts map[emit.Source]*account

// open returns the account of a partition that is taken up where a commit left it.
func (as accounts) open(src emit.Source, held uint32) *account {
	a := as[src]
	if a == nil {
		a = &account{marked: time.Now()}
		as[src] = a
	}
	a.now.Carried += int64(held) - a.now.Held
	a.now.Held = int64(held)
	a.keep()
	return a
}

func (as accounts) undo() {
	for _, a := range as {
		a.undo()
	}
}

// disorder adds up the partitions of each topic, those included that others have by now:
// what is counted must not go back. For the same reason they are always added in the same
// order, since the last digit of the sum depends on it.
func (as accounts) disorder() map[string]*Histogram {
	of := map[string]*Histogram{}
	for _, src := range slices.SortedFunc(maps.Keys(as), func(a, b emit.Source) int { return cmp.Compare(a.Partition, b.Partition) }) {
		if of[src.Topic] == nil {
			of[src.Topic] = new(Histogram)
		}
		of[src.Topic].Add(&as[src].committed)
	}
	return of
}

// rates works out the records a second since the last time, and not more often than
// every second. The time is that of the process: sessions have clocks of their own.
func (a *account) rates(now time.Time) (ordered float64, late [reorder.Duplicate + 1]float64) {
	if since := now.Sub(a.marked); since >= publishEvery {
		a.ordered = float64(a.kept.Ordered-a.at.Ordered) / since.Seconds()
		for v := range a.late {
			a.late[v] = float64(a.kept.Late[v]-a.at.Late[v]) / since.Seconds()
		}
		a.marked, a.at = now, a.kept
	}
	return a.ordered, a.late
}

// takings are the records that were put out since the last commit, by the poll that
// let them: each poll's share waits as long as the poll has been back.
type takings struct {
	taking // of the last poll
	before []taking
}

type taking struct {
	polled watermark.Instant
	n      uint64 // records put out since then
}

// poll says that what is put out from now on was let by what was polled at now.
func (t *takings) poll(now watermark.Instant) {
	if t.n > 0 {
		t.before = append(t.before, t.taking)
	}
	t.taking = taking{polled: now}
}

// committed counts for how long each record has been waiting for the commit that has
// ended now.
func (t *takings) committed(now watermark.Instant, h *Histogram) {
	for _, b := range t.before {
		h.observe(now.Sub(b.polled), b.n)
	}
	if t.n > 0 {
		h.observe(now.Sub(t.polled), t.n)
	}
	t.undo()
}

func (t *takings) undo() { t.before, t.n = t.before[:0], 0 }

// settle takes account of a commit.
func (s *session) settle(ps []*partition) {
	for _, p := range ps {
		p.account.keep()
		p.committed = p.state.Low()
	}
	s.takings.committed(s.now(), s.latency)
}

// tally takes note of what is held, for the commit that is about to be made.
func (s *session) tally() {
	s.each(func(p *partition) { p.account.now.Held = int64(p.state.Owed()) })
}

// endReplay is that of the partition's state. What it had and is gone is lost.
func (p *partition) endReplay(end int64, accept bool) *reorder.Loss {
	had := p.state.Owed()
	loss := p.state.EndReplay(end, accept)
	if loss != nil && accept {
		p.account.lose(int64(had - p.state.Owed()))
	}
	return loss
}

// rewind is that of the partition's state, with the same loss.
func (p *partition) rewind(end int64) {
	had := p.state.Owed()
	p.state.Rewind(end)
	p.account.lose(int64(had - p.state.Owed()))
}

// lose counts records that were held and are gone. It may be less than none: where
// event times are others than they were, more of what is read again is to be held than
// the commit says. Nobody has read that, so it counts as carried over.
func (a *account) lose(n int64) {
	a.now.Lost += max(n, 0)
	a.now.Carried += max(-n, 0)
}

// judged counts a record that has been judged for the first time, when the newest
// event time before it was as given.
func (a *account) judged(newest, t watermark.Time, v reorder.Verdict) {
	a.now.Read++
	if v == reorder.OnTime || v == reorder.BehindWatermark || v == reorder.Overflow {
		a.disorder.observe(newest.Since(t), 1)
	}
}
