package txn

import (
	"log/slog"
	"math"
	"time"

	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// A commit waits until brokers have acknowledged all that was put out in the transaction.
// Where that takes longer than the transaction may last, it is undone, put out again as it
// was, and undone again, for ever. So how much is put out until the next commit follows
// how long brokers took to acknowledge what was put out before:
//
//	more than half of the transaction timeout   so much less that it would have been a quarter
//	less than a quarter, with about as much     twice as much
//
// Some brokers take their time for each request, however small it is. Where less did not
// help, it does not become still less.

// AckLimit is how many bytes may be put out until the next commit, as learnt from how long
// brokers took to acknowledge them. It outlives sessions. Only the loop uses it.
type AckLimit struct {
	Timeout time.Duration // of a transaction
	most    int           // 0: no bound

	// The last wait that was too long.
	lastBytes int
	lastWait  time.Duration
}

// From mostUnbounded on nothing is bounded any more, and nothing is bounded to less than
// leastUnacked.
const (
	mostUnbounded = 1 << 28
	leastUnacked  = 64 << 10
)

// bytes returns how many may be put out.
func (l *AckLimit) bytes() int {
	if l.most == 0 {
		return math.MaxInt
	}
	return l.most
}

// took learns from a wait for so many bytes. It reports whether less is put out from now on.
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

// learnAcks takes account of a wait for acknowledgements in a transaction.
func (w *Writer) learnAcks(wait time.Duration) {
	if w.Acks.took(w.volume.open, wait) {
		w.Reporter.Throttle("", slog.LevelWarn, fault.None, "brokers take so long to acknowledge records that a transaction may time out; less is put out in each from now on",
			"waited", wait.Round(time.Millisecond).String(), "transaction_timeout", w.Config.TransactionTimeout.String(),
			"hint", "look at the brokers' disks and load; until they are faster, raise TIDEMARK_TRANSACTION_TIMEOUT")
	}
}
