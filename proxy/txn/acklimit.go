package txn

import (
	"log/slog"
	"math"
	"time"

	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// A commit waits until brokers have acknowledged everything written in the transaction. If
// that takes longer than the transaction timeout, the transaction is aborted, written again
// and aborted again, for ever. So how much is written until the next commit depends on how
// long brokers took to acknowledge what was written before:
//
//	more than half of the transaction timeout   reduced so that it would have taken a quarter
//	less than a quarter, at about the limit     doubled
//
// Some brokers are slow at every request, however small. A reduction that did not help is
// not followed by another.

// AckLimit is how many bytes may be written until the next commit, learnt from how long
// brokers took to acknowledge them. It outlives sessions. Only the loop uses it.
type AckLimit struct {
	Timeout time.Duration // of a transaction
	most    int           // 0: no bound

	// The last wait that was too long.
	lastBytes int
	lastWait  time.Duration
}

// At mostUnbounded the limit is dropped; it is never below leastUnacked.
const (
	mostUnbounded = 1 << 28
	leastUnacked  = 64 << 10
)

// bytes returns how many bytes may be written.
func (l *AckLimit) bytes() int {
	if l.most == 0 {
		return math.MaxInt
	}
	return l.most
}

// took learns from a wait for so many bytes. It reports whether the limit was reduced.
func (l *AckLimit) took(bytes int, wait time.Duration) (less bool) {
	target := l.Timeout / 4
	switch {
	case bytes == 0 || l.Timeout == 0:
	case wait > 2*target:
		inVain := bytes <= l.lastBytes*3/4 && wait >= l.lastWait*3/4 && wait < l.Timeout
		l.lastBytes, l.lastWait = bytes, wait
		most := max(int(float64(bytes)*target.Seconds()/wait.Seconds()), leastUnacked)
		if less = most < l.bytes() && !inVain; less {
			l.most = most
		}
	default:
		l.lastBytes = 0
		if l.most > 0 && wait < target && bytes >= l.most/2 {
			l.most *= 2
		}
		if l.most >= mostUnbounded {
			l.most = 0
		}
	}
	return less
}

// learnAcks adjusts the limit after a wait for acknowledgements in a transaction.
func (w *Writer) learnAcks(wait time.Duration) {
	if w.Acks.took(w.volume.open, wait) {
		w.Reporter.Throttle("", slog.LevelWarn, fault.None, "brokers acknowledge so slowly that a transaction may time out; writing less in each from now on",
			"waited", wait.Round(time.Millisecond).String(), "transaction_timeout", w.Config.TransactionTimeout.String(),
			"hint", "check the brokers' disks and load; until they are faster, raise TIDEMARK_TRANSACTION_TIMEOUT")
	}
}
