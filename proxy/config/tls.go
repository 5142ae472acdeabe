package config

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"time"
)

// tlsFiles are the TLS settings for one kind of server, and their variables.
type tlsFiles struct {
	ca, cert, key, serverName             string
	keyCA, keyCert, keyKey, keyServerName string
}

func (c Config) brokerTLS() tlsFiles {
	return tlsFiles{
		c.TLSCAFile, c.TLSCertFile, c.TLSKeyFile, c.TLSServerName,
		keyTLSCAFile, keyTLSCertFile, keyTLSKeyFile, keyTLSServerName,
	}
}

func (c Config) registryTLS() tlsFiles {
	return tlsFiles{
		c.SchemaRegistryTLSCAFile, c.SchemaRegistryTLSCertFile, c.SchemaRegistryTLSKeyFile, c.SchemaRegistryTLSServerName,
		keyRegistryTLSCAFile, keyRegistryTLSCertFile, keyRegistryTLSKeyFile, keyRegistryTLSServerName,
	}
}

// tokenTLS is that for the authorization server.
func (c Config) tokenTLS() tlsFiles { return tlsFiles{ca: c.SASLTokenCAFile, keyCA: keyTokenCAFile} }

// settings returns the variables with their values.
func (t tlsFiles) settings() [4][2]string {
	return [4][2]string{{t.keyCA, t.ca}, {t.keyCert, t.cert}, {t.keyKey, t.key}, {t.keyServerName, t.serverName}}
}

// dialer returns a function that opens TLS connections. It loads authorities and certificate
// again when their files change, so that they can be renewed without a restart, and calls
// warn if they cannot be used. The error is about the files as they are now.
//
// The expected server name is the one that is dialled, unless another is set.
//
// net/http dials by itself through a proxy, and uses proxied then: the same settings, with
// the files as they are now.
func (t tlsFiles) dialer(warn func(error)) (dial func(ctx context.Context, network, address string) (net.Conn, error), proxied *tls.Config, err error) {
	roots := &reread[*x509.CertPool]{files: named(t.ca), from: t.roots, warn: warn}
	cert := &reread[*tls.Certificate]{files: named(t.cert, t.key), from: t.certificate, warn: warn}
	config := func() (*tls.Config, error) {
		pool, err := roots.get()
		if err != nil {
			return nil, err
		}
		config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.serverName, RootCAs: pool}
		ours, err := cert.get()
		if err != nil || ours == nil {
			return config, err
		}
		if expired := ours.Leaf.NotAfter; time.Now().After(expired) {
			warn(fmt.Errorf("client certificate %s: it expired at %s", t.cert, expired.UTC().Format(time.RFC3339)))
		}
		// Not in Certificates: from those only one is sent that the server seems
		// to trust, and for another it would say that there was none.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return ours, nil }
		return config, nil
	}
	if proxied, err = config(); err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		config, err := config()
		if err != nil {
			return nil, err
		}
		d := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: config}
		return d.DialContext(ctx, network, address)
	}, proxied, nil
}

// dialTimeout is how long a connection and its handshake may take.
const dialTimeout = 10 * time.Second

func named(files ...string) []string {
	if files[0] == "" {
		return nil
	}
	return files
}

// roots returns nil, which means the system's, when no file is set.
func (t tlsFiles) roots() (*x509.CertPool, error) {
	if t.ca == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(t.ca)
	if err != nil {
		return nil, fmt.Errorf("certificate authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("certificate authorities: %s has no certificate in PEM", t.ca)
	}
	return pool, nil
}

// certificate returns nil when no file is set.
func (t tlsFiles) certificate() (*tls.Certificate, error) {
	if t.cert == "" {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(t.cert, t.key)
	if err != nil {
		return nil, fmt.Errorf("client certificate %s with key %s: %w", t.cert, t.key, err)
	}
	return &cert, nil
}

func (t tlsFiles) validate(f *faults) {
	if _, err := t.roots(); err != nil {
		f.add(t.keyCA, err.Error(), "")
	}
	switch {
	case t.cert == "" && t.key == "":
	case t.key == "":
		f.add(t.keyKey, "not set, but "+t.keyCert+" is", "a certificate needs its key")
	case t.cert == "":
		f.add(t.keyCert, "not set, but "+t.keyKey+" is", "a key needs its certificate")
	default:
		if _, err := t.certificate(); err != nil {
			f.add(t.keyCert, err.Error(), "")
		}
	}
}
