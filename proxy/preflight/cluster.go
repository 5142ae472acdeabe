package preflight

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// Cluster is the cluster that a process works on. The broker addresses may come to lead to
// another one, such as a restored, mirrored or test cluster, where the group has no commit:
// Tidemark would read another log from TIDEMARK_START on, and forget what it holds. So a
// process ends as soon as brokers report another cluster than before. Nothing is remembered
// across restarts; a first start logs the cluster it finds.
type Cluster struct {
	mu     sync.Mutex
	id     string
	logged bool

	entered atomic.Bool // a connection and login have worked before
}

// Log logs the cluster once.
func (c *Cluster) Log(log *slog.Logger) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.logged {
		c.logged = true
		log.Info("connected", "cluster_id", c.id)
	}
}

// ID returns the cluster's id, "" as long as it is not known.
func (c *Cluster) ID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.id
}

// Check records the cluster id that brokers report, and returns a fault if it has changed.
// Brokers that report none count as the same cluster.
func (c *Cluster) Check(cfg config.Config, id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case id == "" || id == c.id:
		return nil
	case c.id == "":
		c.id = id
		return nil
	}
	return fault.Usage(fmt.Errorf("connect to %s: the brokers belong to cluster %s now, and to cluster %s before", strings.Join(cfg.Brokers, ","), id, c.id),
		"check where TIDEMARK_BROKERS leads; if you mean the other cluster, restart: where group "+cfg.Group+" has no offsets there, it begins as on a first start")
}
