package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// tlsFiles is how TLS is spoken with one kind of server, and the variables that
// say so.
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

// settings returns the variables with their values.
func (t tlsFiles) settings() [4][2]string {
	return [4][2]string{{t.keyCA, t.ca}, {t.keyCert, t.cert}, {t.keyKey, t.key}, {t.keyServerName, t.serverName}}
}

// config leaves the server's name to the client, which fills in the one that it
// dials, unless one is set.
func (t tlsFiles) config() (*tls.Config, error) {
	roots, err := t.roots()
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.serverName, RootCAs: roots}
	if t.cert != "" {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return t.certificate()
		}
	}
	return config, nil
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

func (t tlsFiles) certificate() (*tls.Certificate, error) {
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
