package watermark

import "time"

// Gap is the longest pause between two answers of the broker across which
// idle time still counts. A longer one means that the process was suspended
// or the broker away, and then silence proves nothing.
const Gap = 2 * time.Second

// Stretch sums up the latest unbroken run of answers about the end of a
// partition's log, in constant memory, however long nobody looks at it:
//
//	asked at   .  .  .        .  .  .  .  .
//	answered   a  a  a  (gap) a  a  t  a  a      t: a transaction is open
//	                                   |--|
//	                              First    Last, with the End in that answer
//
// A run breaks where a question fails or is not answered, after a Gap, where
// an answer shows an open transaction, and where the end goes back: then it
// was a broker that is behind, or the log has lost something.
//
// What makes a run worth something is that a log only grows. All that it held
// when any question of the run was sent lies below the End that the latest
// one shows. So whoever has read up to there, be it long afterwards, knows all
// that there was at every moment of the run; see Idle.
type Stretch struct {
	First, Last Instant // when the first and the latest question were sent
	End         int64   // the high watermark, in the latest answer
	whole       bool    // there is a run; else Last is when it broke
}

// Answer adds the answer to a question sent at the given instant: the high
// watermark, and the last stable offset asked for after it. Where that is the
// lower one, a transaction is open.
func (s *Stretch) Answer(sent Instant, high, stable int64) {
	if stable < high {
		s.Break(sent)
		return
	}
	if !s.whole || sent < s.Last || sent.Sub(s.Last) > Gap || high < s.End {
		s.First = sent
	}
	s.Last, s.End, s.whole = sent, high, true
}

// Break ends the run: a question sent at the given instant was not answered,
// or by somebody who does not know.
func (s *Stretch) Break(sent Instant) { s.Last, s.whole = sent, false }
