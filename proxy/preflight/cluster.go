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

// Cluster is the cluster that a process works on. Names and addresses may come to
// lead to another one, restored, mirrored or for testing, where the group has no commit:
// what is read there from TIDEMARK_START on is another log, and what is held here would
// be forgotten. So a process that has seen one cluster ends at the first sight of
// another. Across restarts nothing is remembered; what a first start finds it says.
type Cluster struct {
	mu   sync.Mutex
	id   string
	told bool

	entered atomic.Bool // the brokers have let us in before
}

// Log logs the cluster once.
func (c *Cluster) Log(log *slog.Logger) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.told {
		c.told = true
		log.Info("connected", "cluster_id", c.id)
	}
}

// ID returns the cluster's id, "" as long as it is not known.
func (c *Cluster) ID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.id
}

// Check takes note of the cluster that brokers say they are of. Brokers that do not say
// are taken for the same.
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
	return fault.Usage(fmt.Errorf("go on at %s: the brokers there are of cluster %s now, and were of cluster %s", strings.Join(cfg.Brokers, ","), id, c.id),
		"find out where TIDEMARK_BROKERS leads; if the other cluster is meant, start again: where group "+cfg.Group+" has no offsets there, it begins as for the first time")
}
