package fault

import (
	"cmp"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// connectionHook reports what goes wrong on the connections of a client. The client
// retries for as long as it takes, and hides most of it.
type connectionHook struct{ *Reporter }

// ConnectionHook returns a hook for a client, which reports its connection errors.
func (r *Reporter) ConnectionHook() kgo.Hook { return connectionHook{r} }

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (h connectionHook) OnBrokerConnect(broker kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	h.failed("cannot connect to a broker; trying again", broker, err)
}

// OnBrokerE2E implements kgo.HookBrokerE2E.
func (h connectionHook) OnBrokerE2E(broker kgo.BrokerMetadata, _ int16, e kgo.BrokerE2E) {
	h.failed("no answer from a broker; trying again", broker, e.Err())
}

func (h connectionHook) failed(msg string, broker kgo.BrokerMetadata, err error) {
	c := Classify(err)
	switch {
	case c == None, TimedOut(err):
		return // our own timeout or stop, which the caller reports
	case !connectionFailed(err) && kgo.IsRetryableBrokerErr(err):
		return // queued behind the request that failed, or the client is closing
	}
	h.Count(c, err)
	args := []any{"broker", net.JoinHostPort(broker.Host, strconv.Itoa(int(broker.Port))), "err", err}
	h.Throttle("", slog.LevelWarn, c, msg, append(args, HintArgs(cmp.Or(HandshakeHint(err), ReachHint(err)))...)...)
}
