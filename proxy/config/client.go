package config

import (
	"github.com/twmb/franz-go/pkg/kgo"
)

// ClientOpts returns the options that every Kafka client of the process needs: brokers,
// client id, TLS and login. Files with certificates, passwords and tokens are read again
// when they change; if a changed file cannot be used, warn is called at every connection,
// and what was loaded before stays in use. The error names the file that cannot be used
// now, and why.
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
