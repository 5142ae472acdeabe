package group

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
)

// Admin asks brokers about the group: its members, its offsets, its transactions, and
// who else writes to our outputs.
type Admin struct {
	Config   config.Config
	Client   *kgo.Client // of the member, as soon as there is one
	Kadm     *kadm.Client
	Reporter *fault.Reporter
	Topics   map[string]preflight.Topic
	Atomic   bool // it writes in transactions
	Silent   bool // it writes nothing
}

// SameCluster asks the brokers that the session's own client has come to which cluster
// they are of. No answer is no other cluster.
func (a *Admin) SameCluster(ctx context.Context, cluster *preflight.Cluster) error {
	ctx, cancel := context.WithTimeout(kadm.WithAuthorizedOps(ctx), rivalPatience) // not out of the cache
	defer cancel()
	told, err := kadm.NewClient(a.Client).BrokerMetadata(ctx)
	if auth := new(kadm.AuthError); err != nil && !errors.As(err, &auth) {
		return nil
	}
	return cluster.Check(a.Config, told.Cluster)
}
