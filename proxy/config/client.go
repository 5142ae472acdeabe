package config

import (
	"github.com/twmb/franz-go/pkg/kgo"
)

// ClientOpts returns what every Kafka client of the process needs: where the
// brokers are, who is asking, and how to log in. Files with certificates, passwords
// and tokens are read again when they have changed; one that cannot be used any
// more, warn is told at every connection, and what it said before stays in use. The
// error names the file that cannot be used now, and why.
func (c Config) ClientOpts(warn func(error)) ([]kgo.Opt, error) {
	opts := []kgo.Opt{kgo.SeedBrokers(c.Brokers...), kgo.ClientID("tidemark"), kgo.DisableClientMetrics()}
	if c.TLS {
		dial, _, err := c.brokerTLS().dialer(warn)
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.Dialer(dial))
	}
	m, err := c.login(warn)
	if err != nil {
		return nil, err
	}
	if m != nil {
		opts = append(opts, kgo.SASL(m))
	}
	return opts, nil
}
