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
//
// In each case the watermark of the second run would be the lower one somewhere, or a
// record would stand in order that had not. Where it is only higher nothing is lost:
// what had come out in order comes out late as well, and that is a repeat. So it is
// when a refused record is accepted, but for the bound that is learned: nothing at or
// after its event time can have come out, unless the limit has been raised.
type doubts struct {
	moved   bool           // the watermark, the limit or the epoch, not by the log alone
	word    bool           // a verdict was an outside service's
	refused bool           // one was the guard's,
	time    watermark.Time // and from here on another bound might matter
}

// refuse takes note of an event time that the guard has refused. Were it accepted, the
// adaptive bound might be another, up to the largest.
func (p *Partition) refuse(t watermark.Time) {
	if p.opts.Strategy != watermark.Adaptive {
		return
	}
	d := &p.doubts
	if t = t.Sub(p.opts.Bound); !d.refused || t < d.time {
		d.refused, d.time = true, t
	}
}

// CommitFirst reports whether, if what comes out is not hidden until the commit, a
// commit has to come before the next record is stepped and before Next is called: it
// would rest on what reading again may decide otherwise.
func (p *Partition) CommitFirst() bool {
	d := &p.doubts
	if d.moved || !d.word && !d.refused {
		return d.moved
	}
	at, due := p.Peek()
	return due && (d.word || at.Time >= d.time)
}
