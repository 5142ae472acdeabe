package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// An output may not take what the source took: our headers were added, or its
// max.message.bytes is smaller. What brokers limit is a batch after
// compression, what the client limits is one before it, and a record that it
// finds too large it does not even send.
//
// So as long as every record fits uncompressed, the client packs batches up to
// the output's limit, and no broker can refuse one. With the first record that
// does not, the session is begun anew and wide: the client's limit is out of the
// way, the loop flushes before a batch could outgrow the output's limit, and a
// record that is larger by itself is sent alone. If the broker refuses it, it
// goes without one of our headers after the other, and if it is too large even
// bare, its partition stops.
//
// A batch that is refused although it was within the limit means that the limit
// is lower than we know; then half of it is assumed.

// limits is what has been learnt of the outputs. It outlives sessions.
type limits struct {
	wide   bool
	commit int            // bytes of a commit
	most   map[string]int // by output: bytes that a batch may have, where brokers refused more
}

func newLimits() *limits { return &limits{most: map[string]int{}, commit: commitBytes} }

const (
	batchDefault = 1_000_012 // max.message.bytes of a broker that was told nothing
	batchLeast   = 512       // the client takes no lower limit
	batchWide    = 100 << 20 // nor a higher one: it sends no larger request, and brokers take none
)

// errLarge says that the session has to begin anew with other limits.
var errLarge = errors.New("larger than the output's limit allows for; going on with what was learnt")

// errBare says that a record is too large even without our headers.
var errBare = errors.New("too large even without any added header")

// tooBig reports whether a broker refused a batch for its size.
func tooBig(err error) bool {
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge) // larger than a segment
}

// room is the most that a batch of an output may have before compression.
func (s *session) room(topic string) int {
	size := batchDefault
	for _, t := range s.topics {
		switch {
		case topic == t.Ordered && t.OrderedMax > 0:
			size = int(t.OrderedMax)
		case topic == t.Late && t.LateMax > 0:
			size = int(t.LateMax)
		}
	}
	if learnt, ok := s.limits.most[topic]; ok {
		size = min(size, learnt)
	}
	return max(size, batchLeast)
}

// maxBatch returns the client's limits for a session. The client asks at any
// time, so they are not those that are being learnt.
func (s *session) maxBatch() func(topic string) int32 {
	if s.limits.wide {
		return func(string) int32 { return batchWide }
	}
	rooms := map[string]int32{}
	for _, t := range s.topics {
		for _, out := range []string{t.Ordered, t.Late} {
			rooms[out] = int32(min(s.room(out), batchWide))
		}
	}
	return func(topic string) int32 {
		if n, ok := rooms[topic]; ok {
			return n
		}
		return batchDefault
	}
}

// tooLarge learns from a refusal in a batch that was packed.
func (s *session) tooLarge(r *refusal) error {
	room := s.room(r.topic)
	switch {
	case r.size > room && !s.limits.wide:
		s.limits.wide = true
	case room == batchLeast:
		return fault.Failed(fmt.Errorf("write to %s partition %d: a batch of %d bytes: %w", r.topic, r.partition, room, r.err),
			"raise it: "+fault.CommandsFor(s.cfg).Set(r.topic, fault.MaxMessageBytes, fmt.Sprint(batchDefault)))
	default:
		s.limits.most[r.topic] = max(room/2, batchLeast)
	}
	return fmt.Errorf("write to %s partition %d: %w: %w", r.topic, r.partition, errLarge, r.err)
}

// packed is what has been produced to an output partition since the last
// flush, in bytes.
type packed struct {
	flush int
	bytes int
}

// fit produces a record in a wide session.
func (s *session) fit(ctx context.Context, p *partition, r *kgo.Record, offset int64, held bool) error {
	size, room := emit.WireSize(r), s.room(r.Topic)
	if size > room {
		return s.alone(ctx, p, r, offset, held)
	}
	batch := &p.packed[0]
	if r.Topic == p.Late {
		batch = &p.packed[1]
	}
	if batch.flush == s.flushes && batch.bytes+size > room {
		if err := s.flush(ctx); err != nil {
			return err
		}
		if err := s.heed(ctx); err != nil {
			return err
		}
	}
	if batch.flush != s.flushes {
		*batch = packed{flush: s.flushes}
	}
	batch.bytes += size
	s.send(ctx, r)
	return nil
}

// alone produces a record in a batch of its own, with as many of the added
// headers as the broker takes. A refusal for its size leaves the transaction as
// it was.
func (s *session) alone(ctx context.Context, p *partition, r *kgo.Record, offset int64, held bool) error {
	if err := s.flush(ctx); err != nil {
		return err
	}
	if err := s.heed(ctx); err != nil {
		return err
	}
	s.flight.add(r)
	for shed := 0; ; shed++ {
		s.sinceClock += clockEvery
		err := s.produceAlone(ctx, p, r)
		if errors.Is(err, errUnanswered) {
			return err
		}
		if err == nil && shed > 0 {
			s.reporter.Shed.Add(int64(shed))
			s.log.Debug("headers left out, for the record would be too large with them",
				"topic", r.Topic, "partition", r.Partition, "source_offset", offset, "steps", shed)
		}
		if !tooBig(err) || !s.limits.wide {
			return s.acknowledged(ctx, p, r, offset, held, err)
		}
		if !s.flight.outbox.Shed(r) {
			s.flight.land(r, nil)
			return s.condemn(ctx, p, &handed{r: r, offset: offset, held: held, err: err}, p.put == 1)
		}
	}
}

// produceAlone sends a record and waits for the answer. The client itself waits for as
// long as it takes once brokers may have the record.
func (s *session) produceAlone(ctx context.Context, p *partition, r *kgo.Record) error {
	patience := s.cfg.TransactionTimeout // later it is of no use
	if at := s.suspects[p.Source]; at != nil && at.shut != nil {
		patience = shutPatience
	}
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r.Context = nil // the client has left that of the last try in it
	answer := make(chan error, 1)
	go func() { answer <- s.cl.ProduceSync(wait, r).FirstErr() }()
	late := time.NewTimer(s.cfg.TransactionTimeout + time.Second)
	defer late.Stop()
	select {
	case err := <-answer:
		return err
	case <-late.C:
		return fmt.Errorf("write to %s partition %d: %w within %v: %w", r.Topic, r.Partition, errUnanswered, s.cfg.TransactionTimeout, context.DeadlineExceeded)
	}
}

// shutPatience is how long an output partition may take that took nothing before.
const shutPatience = time.Second

// errUnanswered says that a record was neither taken nor refused.
var errUnanswered = errors.New("not acknowledged")
