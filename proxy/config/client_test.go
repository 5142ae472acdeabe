package config

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// authority issues certificates, each into PEM files.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
	dir  string
}

func newAuthority(t *testing.T) *authority {
	a := &authority{dir: t.TempDir()}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.file, _, a.key = a.issue(t, "ca", a.cert)
	return a
}

// issue signs a certificate: its own if there is none to sign with yet.
func (a *authority) issue(t *testing.T, name string, cert *x509.Certificate) (certFile, keyFile string, key *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	signer := a.key
	if signer == nil {
		signer = key
	}
	der, err2 := x509.CreateCertificate(rand.Reader, cert, a.cert, &key.PublicKey, signer)
	private, err3 := x509.MarshalPKCS8PrivateKey(key)
	certFile, keyFile = filepath.Join(a.dir, name+".crt"), filepath.Join(a.dir, name+".key")
	err4 := os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
	err5 := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600)
	for _, err := range []error{err, err2, err3, err4, err5} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile, key
}

func (a *authority) leaf(t *testing.T, name string) (certFile, keyFile string) {
	certFile, keyFile, _ = a.issue(t, name, &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	})
	return certFile, keyFile
}

// ping asks the brokers for an answer, as a client with the configuration.
func ping(t *testing.T, c Config) error {
	t.Helper()
	opts, err := c.ClientOpts(func(err error) { t.Error(err) })
	if err != nil {
		return err
	}
	cl, err := kgo.NewClient(append(opts, kgo.RetryTimeout(time.Second), kgo.RequestRetries(1))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	return cl.Ping(ctx)
}

func newCluster(t *testing.T, opts ...kfake.Opt) string {
	t.Helper()
	cluster, err := kfake.NewCluster(append(opts, kfake.NumBrokers(1))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return "BROKERS=" + cluster.ListenAddrs()[0]
}

func TestClientSpeaksTLS(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	certFile, keyFile := ours.leaf(t, "broker")
	serverCert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(read(t, ours.file))
	var lastName atomic.Value
	brokers := newCluster(t, kfake.TLS(&tls.Config{
		Certificates: []tls.Certificate{serverCert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots,
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) { lastName.Store(h.ServerName); return nil, nil },
	}))
	clientCert, clientKey := ours.leaf(t, "client")
	full := []string{brokers, "TLS=true", "TLS_CA_FILE=" + ours.file, "TLS_CERT_FILE=" + clientCert, "TLS_KEY_FILE=" + clientKey, "TLS_SERVER_NAME=broker"}

	c := mustLoad(t, full...)
	if err := ping(t, c); err != nil || lastName.Load() != "broker" {
		t.Errorf("asked for %q: %v", lastName.Load(), err)
	}
	if err := ping(t, mustLoad(t, append(full, "TLS_SERVER_NAME=impostor")...)); err == nil {
		t.Error("a broker with another name was believed")
	}
	if err := ping(t, mustLoad(t, append(full, "TLS_CA_FILE="+other.file)...)); err == nil {
		t.Error("a broker of another authority was believed")
	}
	if err := ping(t, mustLoad(t, brokers, "TLS=true", "TLS_CA_FILE="+ours.file)); err == nil {
		t.Error("the broker asked for no certificate: the test proves nothing")
	}
}

// Nothing older than TLS 1.2 is spoken.
func TestOldTLSIsNotSpoken(t *testing.T) {
	a := newAuthority(t)
	certFile, keyFile := a.leaf(t, "broker")
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	for newest, spoken := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		brokers := newCluster(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS10, MaxVersion: newest}))
		err := ping(t, mustLoad(t, brokers, "TLS=true", "TLS_CA_FILE="+a.file))
		if (err == nil) != spoken || err != nil && !strings.Contains(err.Error(), "protocol version") {
			t.Errorf("%s: %v", tls.VersionName(newest), err)
		}
	}
}

func TestFilesThatAreNoCertificates(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.leaf(t, "client")
	_, otherKey := a.leaf(t, "other")
	for vars, want := range map[string]string{
		"TLS_CA_FILE=" + key: "certificate authorities: " + key + " has no certificate in PEM",
		"TLS_CERT_FILE=" + cert + " TLS_KEY_FILE=" + otherKey: "client certificate " + cert + " with key " + otherKey + ": tls: private key does not match public key",
	} {
		if _, err := load(append(splitVars(vars), "TLS=true")...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	c := mustLoad(t, "TLS=true", "TLS_CA_FILE="+a.file)
	if err := os.Remove(a.file); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ClientOpts(nil); err == nil || !strings.Contains(err.Error(), a.file+": no such file") {
		t.Errorf("file gone after Load: %v", err)
	}
}

func TestClientLogsIn(t *testing.T) {
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		brokers := newCluster(t, kfake.EnableSASL(), kfake.Superuser(mechanism, "tidemark", "hunter2"))
		login := []string{brokers, "SASL_MECHANISM=" + mechanism, "SASL_USERNAME=tidemark"}
		if err := ping(t, mustLoad(t, append(login, "SASL_PASSWORD=hunter2")...)); err != nil {
			t.Errorf("%s: %v", mechanism, err)
		}
		err := ping(t, mustLoad(t, append(login, "SASL_PASSWORD="+canary)...))
		if err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%s with a wrong password: %v", mechanism, err)
		}
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
