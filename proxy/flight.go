package proxy

import (
	"context"
	"slices"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
)

// What is handed to the client has to stay as it is until it is acknowledged,
// and not longer: should the transaction be aborted, everything is made anew from
// the source. Records fly in flights of a thousand; when all of a flight
// have landed, and those of the flights before, their memory is used again. So a
// transaction may be as long as it likes, and what was written to a moment ago,
// and is in the processor's cache, is written to next.

// flight is a number of records that are handed to the client together with the memory they
// live in.
type flight struct {
	number uint64 // see reorder.Engine
	outbox *emit.Outbox
	n      int64        // records handed over
	bytes  int          // in their keys and values
	acked  atomic.Int64 // and acknowledged, or refused
	land   func(*kgo.Record, error)
}

// A flight is full with so many records, or with more than so many bytes.
const (
	flightSize  = 1024
	flightBytes = 1 << 20
)

// add takes note of a record that is handed over now. One that is counted and then
// not handed over would never be acknowledged: its flight, and all behind it, would
// never land.
func (f *flight) add(r *kgo.Record) {
	f.n++
	f.bytes += len(r.Key) + len(r.Value)
}

// full reports whether the flight is to get no more records.
func (f *flight) full() bool { return f.n >= flightSize || f.bytes > flightBytes }

// send hands a record to the client, which may wait for room.
func (s *session) send(ctx context.Context, r *kgo.Record) {
	s.flight.add(r)
	s.cl.Produce(ctx, r, s.flight.land)
}

func (s *session) newFlight() *flight {
	f := &flight{outbox: emit.NewOutbox(s.headers)}
	f.land = func(r *kgo.Record, err error) {
		if err != nil {
			s.refused(r, err)
		}
		f.acked.Add(1)
	}
	return f
}

// refused keeps a failure; they are looked at before each commit. The client itself
// would commit all the same.
func (s *session) refused(r *kgo.Record, err error) {
	s.unacked.add(&refusal{r.Topic, r.Partition, emit.WireSize(r), err})
}

// takeOff begins a new flight.
func (s *session) takeOff() {
	number := uint64(1)
	if s.flight != nil {
		number += s.flight.number
		s.aloft = append(s.aloft, s.flight)
		s.takeBack()
	}
	if n := len(s.landed); n > 0 {
		s.flight, s.landed = s.landed[n-1], s.landed[:n-1]
	} else {
		s.flight = s.newFlight()
	}
	s.flight.number = number
	s.engine.Flight(number)
}

// takeBack takes back the memory of flights that have landed.
func (s *session) takeBack() {
	n := 0
	for n < len(s.aloft) && s.aloft[n].acked.Load() == s.aloft[n].n {
		f := s.aloft[n]
		s.engine.Landed(f.number)
		f.outbox.Reset()
		f.n, f.bytes = 0, 0
		f.acked.Store(0)
		s.landed = append(s.landed, f)
		n++
	}
	s.aloft = slices.Delete(s.aloft, 0, n)
}
