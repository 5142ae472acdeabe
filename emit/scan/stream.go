// Package scan reads stretches of partitions with its own fetch requests, committed records
// only. A consumer does not report its position where there is nothing to deliver (aborted
// records, control records, holes at the end), and cannot be read one partition at a time.
package scan

import (
	"context"
	"iter"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Stretch is the part of a partition to read: the offsets [Start, End). They have to be
// below its last stable offset.
type Stretch struct {
	Topic      string
	Partition  int32
	Start, End int64
}

// Len returns how many offsets there are.
func (s Stretch) Len() int64 { return s.End - s.Start }

// Stream reads a stretch, with one fetch ahead. It is not safe for concurrent use.
type Stream struct {
	// Callbacks in the goroutine that reads the records; each may be nil.
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

// Open starts to read a stretch. It fetches from the leader itself, and follows changes of
// the leader; the client need not be a consumer. Reading continues until the end of the
// stretch, an error, Close or the end of the context.
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

// Pop moves past the record that Peek returned.
func (s *Stream) Pop() { s.recs = s.recs[1:] }

// Read yields the records of a stretch, as a Stream reads them. After an error it ends.
// The caller should not keep a record: that would keep its whole batch in memory.
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
