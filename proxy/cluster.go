package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// oneCluster is the cluster that a process works on. Names and addresses may come to
// lead to another one, restored, mirrored or for testing, where the group has no commit:
// what is read there from TIDEMARK_START on is another log, and what is held here would
// be forgotten. So a process that has seen one cluster ends at the first sight of
// another. Across restarts nothing is remembered; what a first start finds it says.
type oneCluster struct {
	mu   sync.Mutex
	id   string
	told bool

	entered atomic.Bool // the brokers have let us in before
}

// tell logs the cluster once.
func (c *oneCluster) tell(log *slog.Logger) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.told {
		c.told = true
		log.Info("connected", "cluster_id", c.id)
	}
}

// name returns the cluster's id, "" as long as it is not known.
func (c *oneCluster) name() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.id
}

// check takes note of the cluster that brokers say they are of. Brokers that do not say
// are taken for the same.
func (c *oneCluster) check(cfg config.Config, id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case id == "" || id == c.id:
		return nil
	case c.id == "":
		c.id = id
		return nil
	}
	return fault.Usage(fmt.Errorf("go on at %s: the brokers there are of cluster %s now, and were of cluster %s", strings.Join(cfg.Brokers, ","), id, c.id),
		"find out where TIDEMARK_BROKERS leads; if the other cluster is meant, start again: where group "+cfg.Group+" has no offsets there, it begins as for the first time")
}

// sameCluster asks the brokers that the session's own client has come to which cluster
// they are of. No answer is no other cluster.
func (s *session) sameCluster(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(kadm.WithAuthorizedOps(ctx), rivalPatience) // not out of the cache
	defer cancel()
	told, err := kadm.NewClient(s.cl).BrokerMetadata(ctx)
	if auth := new(kadm.AuthError); err != nil && !errors.As(err, &auth) {
		return nil
	}
	return s.cluster.check(s.cfg, told.Cluster)
}
