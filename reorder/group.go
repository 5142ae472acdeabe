package reorder

import (
	"bytes"
	"hash/maphash"

	"github.com/tidemarkhq/tidemark/watermark"
)

// Identity tells what a record is known by. Options are compared, so its
// implementations have to be comparable.
type Identity interface {
	// Of returns the identity in a payload, which may be a part of it; nothing
	// if there is none. Records of one event time with the same identity, byte
	// for byte, are repeats of the first of them.
	Of(body []byte) []byte
}

// nobody is known by anything.
type nobody struct{}

func (nobody) Of([]byte) []byte { return nil }

// A producer's repeat has the event time of its original, so in order the two
// stand side by side, and nothing has to be remembered of other times. A group
// is the records of one event time while they come out:
//
//	offset      3   4   6   7   9
//	identity    a   b   a   a   c
//	out         3   4                   the next to come out are
//	aside               6   7           the repeats, and then
//	queue                       9       what is known to repeat nothing
//
// With each record put out, the repeats that follow it are set aside, so that
// its lookahead watermark speaks of the next that really follows in order.
//
// The payloads of what is out stay in the arena until all of the group is out.
// There the identities are compared, and as long as they are there, L does not
// pass them: a recovery in the midst of the group reads them again.
//
// What had been set aside when a commit cut the group is a repeat, whatever records
// are known by afterwards. What it repeats need not be known any more, for the
// identity may be another one by now, so it may be the first of its identity that
// is. Then its payload is kept like that of an original.
//
// While nobody tells repeats apart, what is remembered of a group that was cut stays
// where it is until the group is out: repeats may be told apart again before that.
type group struct {
	of   Identity
	time watermark.Time
	open bool // some of it is out, and not all

	named bool       // the next of the queue is of the group and has an identity
	out   []uint64   // payloads of those that came out and have one
	aside []setAside // repeats; aside[head:] are to come out next
	head  int

	heads []int32 // of the chains in known, by hash, from 1 on; 0 is none
	known []known
}

// setAside is a repeat that has not come out.
type setAside struct {
	entry
	known bool // it is the first that is known by its identity
}

// known is an identity of the group, and the payload it stands in.
type known struct {
	hash uint64
	ref  uint64
	next int32
}

// relation is what a record is to those of its group that come before it.
type relation uint8

const (
	nameless relation = iota // it has no identity
	original
	repeat
)

// hashSeed makes it impossible to choose identities that hang in one chain.
var hashSeed = maphash.MakeSeed()

// duplicate puts out the next of the repeats set aside, if there are any.
func (p *Partition) duplicate(out *Release) bool {
	g := p.group
	if g.head == len(g.aside) {
		return false
	}
	e := g.aside[g.head]
	g.head++
	*out = Release{Position: e.Position, Epoch: p.epoch, Duplicate: true}
	if e.known || p.lent(e.ref) {
		g.out = append(g.out, e.ref)
		out.Body = p.store.look(e.ref)
	} else {
		out.Body = p.take(e.ref)
	}
	p.dirty = true
	p.endGroup()
	p.drop(e.Offset)
	return true
}

// inGroup returns the payload of a record that has left the queue and repeats
// none, and sets aside those that follow and repeat one of its time.
func (p *Partition) inGroup(e entry) (body []byte) {
	g := p.group
	if !g.open {
		if next, ok := p.queue.peek(p.clock.W); !ok || next.Time != e.Time {
			return p.take(e.ref) // alone at its time, as most are
		}
		g.open, g.time = true, e.Time
		g.named = g.add(&p.store, e.ref) == original
	}
	if g.named || p.lent(e.ref) {
		g.out = append(g.out, e.ref)
		body = p.store.look(e.ref)
	} else {
		body = p.take(e.ref)
	}
	p.lookAhead()
	return body
}

// lookAhead sets aside the repeats at the front of the queue.
func (p *Partition) lookAhead() {
	g := p.group
	for {
		e, ok := p.queue.peek(p.clock.W)
		if !ok || e.Time != g.time {
			break
		}
		if is := g.add(&p.store, e.ref); is != repeat {
			g.named = is == original
			break
		}
		p.queue.pop()
		p.warm = max(p.warm-1, 0)
		g.aside = append(g.aside, setAside{entry: e})
	}
	p.endGroup()
}

// lastAside returns the last offset of what has been set aside, 0 if nothing has.
func (p *Partition) lastAside() int64 {
	if g := p.group; g != nil && g.head < len(g.aside) {
		return g.aside[len(g.aside)-1].Offset
	}
	return 0
}

// endGroup gives back the payloads of a group that has come out as a whole.
func (p *Partition) endGroup() {
	g := p.group
	if at, due := p.front(); !g.open || due && at.Time == g.time {
		return
	}
	for _, ref := range g.out {
		p.take(ref)
	}
	g.open, g.out = false, g.out[:0]
	g.aside, g.head = g.aside[:0], 0
	g.forget()
	p.account()
	if g.of == (nobody{}) && p.lenders == nil {
		p.group = nil
	}
}

// remembers reports whether a record that is read again and not owed belongs to a
// group that is still to be known. Where nobody asks for repeats it does if there is
// no other reason for L to stand where it stands.
func (p *Partition) remembers(r Record) bool {
	s := p.replay
	if !s.Releasing || r.Time != s.Frontier.Time {
		return false
	}
	if p.group == nil && r.Offset == s.Low {
		p.group = &group{of: nobody{}}
	}
	return p.group != nil
}

// remember keeps a record that came out before the commit that cut its group.
func (p *Partition) remember(r Record) (body []byte) {
	ref, body := p.keep(r)
	p.group.out = append(p.group.out, ref)
	p.account()
	return body
}

// resumeGroup goes on with a group that was cut, once what is left of it has
// been read again. Payloads that tell nothing new are given back.
func (p *Partition) resumeGroup(s *Snapshot) {
	g := p.group
	switch {
	case g == nil:
		return
	case len(g.out) == 0 && s.Repeats == 0:
		if g.of == (nobody{}) && p.lenders == nil {
			p.group = nil
		}
		return
	}
	g.open, g.time = true, s.Frontier.Time
	all := g.of == (nobody{}) && (s.Repeats != 0 || p.store.offset(g.out[0]) == s.Low)
	n := 0
	for _, ref := range g.out {
		if all || g.add(&p.store, ref) == original || p.lent(ref) {
			g.out[n] = ref
			n++
		} else {
			p.take(ref)
		}
	}
	g.out = g.out[:n]
	p.account()
	for {
		e, ok := p.queue.peek(p.clock.W)
		if !ok || e.Time != g.time || e.Offset > s.Repeats {
			break
		}
		p.queue.pop()
		g.aside = append(g.aside, setAside{e, g.add(&p.store, e.ref) == original})
	}
	p.lookAhead()
}

// rewindGroup gives up the repeats that are lost: see Rewind.
func (p *Partition) rewindGroup(end int64) {
	g := p.group
	if g == nil {
		return
	}
	for i := len(g.aside); i > g.head && g.aside[i-1].Offset >= end; i-- {
		p.take(g.aside[i-1].ref)
		p.drop(g.aside[i-1].Offset)
		g.aside = g.aside[:i-1]
	}
	p.endGroup()
}

// add takes up a record that is not taken from the arena yet, unless it is a
// repeat or has no identity.
func (g *group) add(store *arena, ref uint64) relation {
	if isPrevious(store, ref) {
		return nameless // its time is not its own
	}
	id := g.of.Of(store.look(ref))
	if len(id) == 0 {
		return nameless
	}
	return g.insert(store, maphash.Bytes(hashSeed, id), id, ref)
}

// insert does so for an identity with the given hash. The hash finds who may
// be the same; the bytes decide.
func (g *group) insert(store *arena, hash uint64, id []byte, ref uint64) relation {
	if len(g.known) == len(g.heads) {
		g.grow()
	}
	head := g.chain(hash)
	for i := *head; i != 0; i = g.known[i-1].next {
		if k := &g.known[i-1]; k.hash == hash && bytes.Equal(id, g.of.Of(store.look(k.ref))) {
			return repeat
		}
	}
	g.known = append(g.known, known{hash, ref, *head})
	*head = int32(len(g.known))
	return original
}

func (g *group) chain(hash uint64) *int32 { return &g.heads[hash&uint64(len(g.heads)-1)] }

// fewKnown is how many identities there is room for at first, a power of two.
const fewKnown = 64

func (g *group) grow() {
	g.heads = make([]int32, max(2*len(g.heads), fewKnown))
	for i := range g.known {
		k := &g.known[i]
		head := g.chain(k.hash)
		k.next, *head = *head, int32(i+1)
	}
}

// forget empties the group at a cost that only its own size decides.
func (g *group) forget() {
	for i := range g.known {
		*g.chain(g.known[i].hash) = 0
	}
	g.known = g.known[:0]
	if max(cap(g.known), cap(g.out), cap(g.aside)) > keptRun {
		g.known, g.heads, g.out, g.aside = nil, nil, nil, nil // what a burst needed is not kept
	}
}
