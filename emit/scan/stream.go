// Package scan reads stretches of partitions with fetches of its own, committed
// records only. A consumer does not tell how far it has come where there is nothing to
// deliver (aborted records, control records and holes at the end), and cannot be read
// from one partition at a time.
package scan

import (
	"context"
	"iter"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Stretch is what there is to read of a partition: the offsets [Start, End). They have to
// lie below its last stable offset.
type Stretch struct {
	Topic      string
	Partition  int32
	Start, End int64
}

// Len returns how many offsets there are.
func (s Stretch) Len() int64 { return s.End - s.Start }

// Stream reads a stretch: one fetch is in hand, and one ahead. It is for one goroutine.
type Stream struct {
	// What is told while records are read, in the goroutine that reads them; each may be
	// nil.
	Passed func(offsets int64) // so many more offsets have been fetched
	Holed  func()              // records are missing in the midst

	next    int64 // the first offset that is not in hand
	end     int64
	recs    []*kgo.Record
	ended   bool
	answers chan answer
	cancel  context.CancelFunc
}

// answer is what one fetch brought: all records in [.., next), and whether some are
// missing.
type answer struct {
	recs  []*kgo.Record
	next  int64
	holed bool
	err   error
}

// Open starts reading a stretch. It asks the leader itself, across changes of the leader;
// the client need not be a consumer. Reading goes on until the end of the stretch, an
// error, Close or the end of the context.
func Open(ctx context.Context, cl *kgo.Client, s Stretch) *Stream {
	ctx, cancel := context.WithCancel(ctx)
	st := &Stream{next: s.Start, end: s.End, ended: s.Start >= s.End, answers: make(chan answer, 1), cancel: cancel}
	go newFetcher(cl, s).run(ctx, st.answers)
	return st
}

// Close ends the reading.
func (s *Stream) Close() { s.cancel() }

// Unread returns how many offsets have not been fetched.
func (s *Stream) Unread() int64 { return max(0, s.end-s.next) }

// Peek returns the next record, or nil at the end of the stretch. After an error there is
// nothing more.
func (s *Stream) Peek() (*kgo.Record, error) {
	for len(s.recs) == 0 && !s.ended {
		a, ok := <-s.answers
		if !ok {
			return nil, context.Canceled
		}
		if a.err != nil {
			return nil, a.err
		}
		if a.holed && s.Holed != nil {
			s.Holed()
		}
		if s.Passed != nil {
			s.Passed(min(a.next, s.end) - s.next)
		}
		s.recs, s.next = a.recs, min(a.next, s.end)
		s.ended = a.next >= s.end
	}
	if len(s.recs) == 0 {
		return nil, nil
	}
	return s.recs[0], nil
}

// Pop passes over the record that Peek has returned.
func (s *Stream) Pop() { s.recs = s.recs[1:] }

// Read yields the records of a stretch, as a Stream reads them. After an error it ends.
// A record is not to be kept: it would keep the batch it came in.
func Read(ctx context.Context, cl *kgo.Client, s Stretch) iter.Seq2[*kgo.Record, error] {
	return func(yield func(*kgo.Record, error) bool) {
		st := Open(ctx, cl, s)
		defer st.Close()
		for {
			r, err := st.Peek()
			if r == nil && err == nil {
				return
			}
			if !yield(r, err) || err != nil {
				return
			}
			st.Pop()
		}
	}
}
