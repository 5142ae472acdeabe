package proxy

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
	"github.com/tidemarkhq/tidemark/proxy/registry"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/proxy/txn"
)

// process is what outlives the sessions.
type process struct {
	reporter  *fault.Reporter
	cluster   *preflight.Cluster
	limits    *txn.Limits
	wallClock func() time.Time
	producers *clocks.Producers
	publisher *status.Publisher
	ledgers   status.Ledgers
	latency   status.Histogram
	schemas   *registry.Registry // nil where nothing needs it
	transport http.RoundTripper  // to it; nil: the network
	looked    map[string]bool    // topics; see session.arrives
	begun     map[emit.Source]time.Time
	quotas    *group.Quotas
	acks      txn.AckLimit
}

func newProcess(log *slog.Logger) *process {
	a := fault.NewReporter(log)
	return &process{
		reporter: a, quotas: group.NewQuotas(a), limits: txn.NewLimits(), wallClock: time.Now,
		producers: clocks.NewProducers(), looked: map[string]bool{}, begun: map[emit.Source]time.Time{},
		publisher: status.NewPublisher(""), ledgers: status.Ledgers{}, cluster: new(preflight.Cluster),
	}
}
