package reorder

import "github.com/tidemarkhq/tidemark/watermark"

// Without transactions, what is put out is seen at once, and after a crash everything
// since the last commit is judged again. Readers drop what is not above the last
// (epoch, event time, offset) they have seen; that makes up for it if the second run
// decides as the first did. The log alone decides almost everything. What else there
// is must not be forgotten once something is out that rests on it:
//
//	decision                        the second run may                 committed before
//	the clock, or want of memory,   not move it: a record that was     the next record is
//	moved the watermark             late is on time, behind what is    judged
//	                                out
//	the guard raised its limit      refuse what was accepted, when     the next record is
//	                                the wall clock has gone back: the  judged
//	                                watermark stays behind
//	an outside service did not      know it now: it comes in order     anything comes out
//	know a record                   at any time
//	the clock has jumped back,      have another run of late records   the next record is
//	after a run of late records     (the three above), and begin the   judged
//	                                epoch elsewhere
//	the guard refused a record      accept it, and learn another       see refuse
//	                                bound from it
//	a record without a time took    find that out, or the edge at      it comes out
//	one from another, or at the     another place, for the clock has
//	edge of the watermark           moved on: its time is a later one
//	it found none                   find one, for the clock has made   anything comes out
//	                                a watermark
//
// In each case the watermark of the second run would be the lower one somewhere, or a
// record would stand in order that had not. Where it is only higher nothing is lost:
// what had come out in order comes out late as well, and that is a repeat. So it is
// when a refused record is accepted, but for the bound that is learned: nothing at or
// after its event time can have come out, unless the limit has been raised.
type doubts struct {
	moved bool           // the watermark, the limit or the epoch, not by the log alone
	word  bool           // a verdict was an outside service's, or that there is no time
	timed bool           // one was the guard's, or gave a record its time,
	time  watermark.Time // and from here on another might matter
}

// from says that another verdict might matter from an event time on.
func (d *doubts) from(t watermark.Time) {
	if !d.timed || t < d.time {
		d.timed, d.time = true, t
	}
}

// refuse takes note of an event time that the guard has refused. Were it accepted, the
// adaptive bound might be another, up to the largest.
func (p *Partition) refuse(t watermark.Time) {
	if p.opts.Strategy != watermark.Adaptive {
		return
	}
	p.doubts.from(t.Sub(p.opts.Bound))
}

// CommitFirst reports whether, if what comes out is not hidden until the commit, a
// commit has to come before the next record is stepped and before Next is called: it
// would rest on what reading again may decide otherwise.
func (p *Partition) CommitFirst() bool {
	d := &p.doubts
	if d.moved || !d.word && !d.timed {
		return d.moved
	}
	at, due := p.Peek()
	return due && (d.word || at.Time >= d.time)
}
