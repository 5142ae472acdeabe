package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

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
		config, err := c.tlsConfig()
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

// tlsConfig leaves the server's name to the client, which fills in the broker
// that it dials, unless one is set.
func (c Config) tlsConfig() (*tls.Config, error) {
	roots, err := c.tlsRoots()
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLSServerName, RootCAs: roots}
	if c.TLSCertFile != "" {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return c.tlsCertificate()
		}
	}
	return config, nil
}

// tlsRoots returns nil, which means the system's, when no file is set.
func (c Config) tlsRoots() (*x509.CertPool, error) {
	if c.TLSCAFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(c.TLSCAFile)
	if err != nil {
		return nil, fmt.Errorf("certificate authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("certificate authorities: %s has no certificate in PEM", c.TLSCAFile)
	}
	return pool, nil
}

func (c Config) tlsCertificate() (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(c.TLSCertFile, c.TLSKeyFile)
	if err != nil {
		return nil, fmt.Errorf("client certificate %s with key %s: %w", c.TLSCertFile, c.TLSKeyFile, err)
	}
	return &cert, nil
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
