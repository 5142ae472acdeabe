package txn

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A batch is refused as a whole, and the client does not pass on which record the brokers
// find fault with. So after the abort the records of a partition under suspicion go in
// groups, each of which is waited for, and what is refused of a group is sent again in ever
// smaller parts, within the same transaction:
//
//	group   a b c d e f g h    refused from c on (the batches behind a refused one fail with it)
//	                c d e      taken
//	                f g        refused
//	                f          refused alone: the one; g and h are not sent
//
// If the record is the first of its partition since the last commit, nothing of the
// partition is in the transaction: its state in memory is dropped, and whatever else is in
// the transaction stays. So it is each time the partition is tried again. Otherwise all
// goes back to the commit once more, and on coming to the record again, what precedes it is
// committed and the partition is suspended.

// suspect is a partition one of whose records brokers refuse, and of which it is not known
// which one it is, or whether they still do.
type suspect struct {
	left   int       // so many of the records to come are under suspicion
	alone  bool      // they are sent one by one
	group  []*Handed // sent, and not yet waited for
	closed error     // why the output partition took none; it is tried again
}

// Handed is a record that has been handed to the client.
type Handed struct {
	Record
	Err error // that it was answered with
}

// groupSize is how many records of a suspect are sent together.
const groupSize = 512

func (w *Writer) suspectWriterOf(f *failure) {
	if s := w.writerOf(f); s != nil {
		s.Suspect(s.written)
	}
}

// Suspect has the next records of a partition examined.
func (s *Source) Suspect(records int) { s.suspect = &suspect{left: records} }

// examine hands over a record of a suspect.
func (w *Writer) examine(ctx context.Context, s *Source, r Record) error {
	at := s.suspect
	if at.left--; at.left <= 0 {
		defer func() {
			if w.examined != s && s.suspect == at {
				s.suspect = nil
			}
		}()
	}
	if at.alone || w.Limits.SizeAware {
		return w.alone(ctx, s, r)
	}
	h := &Handed{Record: r}
	at.group = append(at.group, h)
	w.examined = s
	w.batch.add(r.Record)
	w.hand(ctx, h)
	if len(at.group) < groupSize && at.left > 0 {
		return nil
	}
	return w.CloseGroup(ctx, true)
}

func (w *Writer) hand(ctx context.Context, h *Handed) {
	h.Err, h.Context = nil, nil
	w.Client.Produce(ctx, h.Record.Record, func(_ *kgo.Record, err error) { h.Err = err })
}

// Examining reports whether the group of another source partition than s is under way. It
// has to be closed before s may write.
func (w *Writer) Examining(s *Source) bool { return w.examined != nil && w.examined != s }

// CloseGroup waits for the group of a suspect that is under way, if there is one. With
// drop, the partition may be suspended on the spot, which a *Refused says; without, that is
// left to its coming to the record again.
func (w *Writer) CloseGroup(ctx context.Context, drop bool) error {
	s := w.examined
	if s == nil {
		return nil
	}
	group := s.suspect.group
	w.examined, s.suspect.group = nil, nil
	if err := w.Flush(ctx); err != nil {
		return err
	}
	culprit, err := Sifter{
		Send:    func(h *Handed) error { w.hand(ctx, h); return nil },
		Flush:   func() error { return w.Flush(ctx) },
		ForGood: RefusedForGood,
	}.First(refusedOf(group))
	if err != nil {
		return err
	}
	if culprit == nil {
		for _, h := range group {
			w.batch.onAck(h.Record.Record, h.Err) // some may have come to another error
		}
		if w.mustRollBack() {
			return ErrRollback
		}
		return nil
	}
	for _, h := range group {
		w.batch.onAck(h.Record.Record, nil)
	}
	// A record behind the one at fault may have been taken all the same: late and ordered
	// records go to two output partitions.
	taken := len(refusedOf(group)) < len(group)
	return w.refuse(s, culprit, drop && !taken && s.written == len(group))
}

func refusedOf(hs []*Handed) (refused []*Handed) {
	for _, h := range hs {
		if h.Err != nil {
			refused = append(refused, h)
		}
	}
	return refused
}

// Sifter finds out which record it is that brokers refuse for good.
type Sifter struct {
	Send    func(*Handed) error // to the client; the answer comes to the record itself
	Flush   func() error
	ForGood func(error) bool
}

// First sends refused records again, in order and in ever smaller parts, up to the first
// that is refused by itself; nil: it met none. It stops at any other error, which it leaves
// with the records that were not taken.
func (f Sifter) First(refused []*Handed) (*Handed, error) {
	const tries = 3 // of a record alone
	for _, h := range refused {
		if !f.ForGood(h.Err) {
			return nil, nil
		}
	}
	if len(refused) == 1 {
		h := refused[0]
		for range tries {
			if err := f.again(refused); err != nil || !f.ForGood(h.Err) {
				return nil, err
			}
		}
		return h, nil
	}
	for half := (len(refused) + 1) / 2; len(refused) > 0; refused = refused[min(half, len(refused)):] {
		part := refused[:min(half, len(refused))]
		if err := f.again(part); err != nil {
			return nil, err
		}
		culprit, err := f.First(refusedOf(part))
		if culprit != nil || err != nil {
			return culprit, err
		}
		if len(refusedOf(part)) > 0 {
			return nil, nil // what follows must not overtake them
		}
	}
	return nil, nil
}

func (f Sifter) again(hs []*Handed) error {
	for _, h := range hs {
		if err := f.Send(h); err != nil {
			return err
		}
	}
	return f.Flush()
}

// answeredAlone takes the answer to a record that was sent alone.
func (w *Writer) answeredAlone(s *Source, r Record, err error) error {
	at := s.suspect
	switch {
	case RefusedForGood(err):
		w.batch.onAck(r.Record, nil)
		return w.refuse(s, &Handed{Record: r, Err: err}, s.written == 1)
	case err != nil && at != nil && at.closed != nil && s.written == 1:
		w.batch.onAck(r.Record, nil)
		if !AboutPartition(err) {
			err = at.closed // it was not waited for
		}
		s.suspect, s.closed = nil, &closed{err: err}
		w.unwrite(s)
		return &Refused{Source: s, Record: r, Halt: w.HaltClosed(s), Drop: true}
	}
	w.batch.onAck(r.Record, err)
	return nil
}
