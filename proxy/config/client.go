package config

import (
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// ClientOpts returns what every Kafka client of the process needs: where the
// brokers are, who is asking, and how to log in. The error names the file that
// cannot be used, and why.
func (c Config) ClientOpts() ([]kgo.Opt, error) {
	opts := []kgo.Opt{kgo.SeedBrokers(c.Brokers...), kgo.ClientID("tidemark"), kgo.DisableClientMetrics()}
	if c.TLS {
		config, err := c.brokerTLS().config()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.DialTLSConfig(config))
	}
	if m := c.saslMechanism(); m != nil {
		opts = append(opts, kgo.SASL(m))
	}
	return opts, nil
}

func (c Config) saslMechanism() sasl.Mechanism {
	scramAuth := scram.Auth{User: c.SASLUsername, Pass: c.SASLPassword.Reveal()}
	switch c.SASLMechanism {
	case Plain:
		return plain.Auth{User: c.SASLUsername, Pass: c.SASLPassword.Reveal()}.AsMechanism()
	case ScramSHA256:
		return scramAuth.AsSha256Mechanism()
	case ScramSHA512:
		return scramAuth.AsSha512Mechanism()
	}
	return nil
}
