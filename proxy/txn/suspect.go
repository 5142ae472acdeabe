package txn

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A batch is refused as a whole, and the client does not say which record the brokers
// refuse. So after the abort, the records of a suspect partition are sent in groups. The
// writer waits for each group, and sends the refused records of a group again in ever
// smaller parts, within the same transaction:
//
//	group   a b c d e f g h    refused from c on (the batches behind a refused one fail with it)
//	                c d e      accepted
//	                f g        refused
//	                f          refused alone: found; g and h are not sent
//
// If the record is the first of its partition since the last commit, nothing of the
// partition is in the transaction: its state in memory is dropped, and the rest of the
// transaction stays. That is the case each time a suspended partition is tried again.
// Otherwise everything goes back to the commit once more; when the partition reaches the
// record again, what precedes it is committed and the partition is suspended.

// suspect is a partition of which brokers refuse a record. Which one is not known yet, or
// whether they still do.
type suspect struct {
	left   int       // how many of the next records are suspect
	alone  bool      // they are sent one by one
	group  []*Handed // sent, and not yet waited for
	closed *closed   // the output partition accepted none; it is tried again

	oversized bool // the next record was too large; it is tried again
}

// Handed is a record that has been handed to the client.
type Handed struct {
	Record
	Err error // the answer; nil: accepted
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

// Examining reports whether the group of another source partition than s is under way. The
// caller has to close it before s may write.
func (w *Writer) Examining(s *Source) bool { return w.examined != nil && w.examined != s }

// CloseGroup waits for the group of a suspect that is under way, if there is one. With drop,
// it may return a *Refused, for the partition to be suspended at once; without, the
// partition is suspended when it reaches the record again.
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
			w.batch.onAck(h.Record.Record, h.Err) // some may have another error
		}
		if w.mustRollBack() {
			return ErrRollback
		}
		return nil
	}
	for _, h := range group {
		w.batch.onAck(h.Record.Record, nil)
	}
	// A record behind the refused one may still have been accepted: late and ordered
	// records go to two output partitions.
	accepted := len(refusedOf(group)) < len(group)
	return w.refuse(s, culprit, drop && !accepted && s.written == len(group))
}

func refusedOf(hs []*Handed) (refused []*Handed) {
	for _, h := range hs {
		if h.Err != nil {
			refused = append(refused, h)
		}
	}
	return refused
}

// Sifter finds the record that brokers refuse for good.
type Sifter struct {
	Send    func(*Handed) error // to the client; the answer is in Handed.Err after Flush
	Flush   func() error
	ForGood func(error) bool
}

// First sends refused records again, in order and in ever smaller parts, and returns the
// first that is refused by itself; nil: none. It stops at any other error, and leaves that
// in Err of the records that were not accepted.
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

// answeredAlone handles the answer to a record that was sent alone.
func (w *Writer) answeredAlone(s *Source, r Record, err error) error {
	at := s.suspect
	switch {
	case RefusedForGood(err):
		w.batch.onAck(r.Record, nil)
		return w.refuse(s, &Handed{Record: r, Err: err}, s.written == 1)
	case err != nil && at != nil && at.closed != nil && s.written == 1:
		w.batch.onAck(r.Record, nil)
		if !AboutPartition(err) {
			err = at.closed.err // the wait was cut short, so err says nothing new
		}
		s.suspect, s.closed = nil, &closed{topic: r.Topic, err: err}
		w.unwrite(s)
		return &Refused{Source: s, Record: r, Halt: w.HaltClosed(s)}
	}
	w.batch.onAck(r.Record, err)
	return nil
}
