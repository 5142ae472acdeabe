package config

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// pinging returns a client whose every ping is over a connection of its own, and
// what it was warned of.
func pinging(t *testing.T, c Config) (ping func() error, warnings *[]string) {
	t.Helper()
	warnings = new([]string)
	opts, err := c.ClientOpts(func(err error) { *warnings = append(*warnings, err.Error()) })
	if err != nil {
		t.Fatal(err)
	}
	return func() error {
		cl, err := kgo.NewClient(append(opts, kgo.RequestRetries(0))...)
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return cl.Ping(ctx)
	}, warnings
}

// write replaces a file as careful people do, so that nobody reads half of it.
func write(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// A certificate, its key and the authorities are renewed under a client that goes
// on, one after the other, with a slip in between.
func TestRenewedCertificates(t *testing.T) {
	before, after := newAuthority(t), newAuthority(t)
	broker := func(a *authority) *tls.Config {
		certFile, keyFile := a.leaf(t, "broker")
		cert, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(read(t, a.file))
		return &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots}
	}
	var serving atomic.Pointer[tls.Config]
	serving.Store(broker(before))
	address := newCluster(t, kfake.TLS(&tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return serving.Load(), nil }}))

	dir := t.TempDir()
	ca, cert, key := filepath.Join(dir, "ca"), filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	oldCert, oldKey := before.leaf(t, "client")
	newCert, newKey := after.leaf(t, "client")
	write(t, ca, read(t, before.file))
	write(t, cert, read(t, oldCert))
	write(t, key, read(t, oldKey))
	ping, warnings := pinging(t, mustLoad(t, address, "TLS=true", "TLS_CA_FILE="+ca, "TLS_CERT_FILE="+cert, "TLS_KEY_FILE="+key))
	well := func(when string) {
		t.Helper()
		if err := ping(); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	well("at first")
	if len(*warnings) > 0 {
		t.Errorf("warned of %q", *warnings)
	}
	write(t, cert, read(t, newCert))
	well("with half of a pair")
	write(t, ca, []byte("nothing"))
	well("with authorities that are none")
	for _, want := range []string{"client certificate " + cert + " with key " + key + ": tls: private key does not match", ca + " has no certificate in PEM"} {
		if !strings.Contains(strings.Join(*warnings, "\n"), want) {
			t.Errorf("warned of %q, want %s", *warnings, want)
		}
	}

	serving.Store(broker(after))
	if err := ping(); err == nil {
		t.Error("the broker is that of another authority, and was believed")
	}
	write(t, ca, read(t, after.file))
	if err := ping(); err == nil {
		t.Error("the client's certificate is that of another authority, and was believed")
	}
	write(t, key, read(t, newKey))
	*warnings = nil
	well("renewed")
	if len(*warnings) > 0 {
		t.Errorf("warned of %q", *warnings)
	}
	for _, file := range []string{ca, cert, key} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	well("without files")
	if len(*warnings) == 0 {
		t.Error("files are gone, without a word")
	}
}

// A certificate that has expired is told of: brokers do not say what they have
// against it.
func TestExpiredClientCertificate(t *testing.T) {
	a := newAuthority(t)
	certFile, keyFile, _ := a.issue(t, "client", &x509.Certificate{SerialNumber: a.cert.SerialNumber, NotAfter: time.Now().Add(-time.Minute)})
	_, warnings := pinging(t, mustLoad(t, "TLS=true", "TLS_CA_FILE="+a.file, "TLS_CERT_FILE="+certFile, "TLS_KEY_FILE="+keyFile))
	if len(*warnings) != 1 || !strings.Contains((*warnings)[0], certFile+": it expired at 20") {
		t.Errorf("%q", *warnings)
	}
}

// A password is renewed at the brokers and in the file.
func TestRenewedPassword(t *testing.T) {
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		old := newCluster(t, kfake.EnableSASL(), kfake.Superuser(mechanism, "u", "before"))
		renewed := newCluster(t, kfake.EnableSASL(), kfake.Superuser(mechanism, "u", "after"))
		file := filepath.Join(t.TempDir(), "password")
		write(t, file, []byte("before\n"))
		var warned []error
		c := mustLoad(t, old, "SASL_MECHANISM="+mechanism, "SASL_USERNAME=u", "SASL_PASSWORD_FILE="+file)
		opts, err := c.ClientOpts(func(err error) { warned = append(warned, err) })
		if err != nil {
			t.Fatal(err)
		}
		pings := func(when, brokers string) {
			t.Helper()
			cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(strings.TrimPrefix(brokers, "BROKERS=")))...)
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			if err := cl.Ping(t.Context()); err != nil {
				t.Errorf("%s, %s: %v", mechanism, when, err)
			}
		}
		pings("at first", old)
		write(t, file, []byte("\n"))
		pings("with an empty file", old)
		if len(warned) == 0 || !strings.Contains(warned[0].Error(), "is empty") {
			t.Errorf("%s: warned of %v", mechanism, warned)
		}
		write(t, file, []byte("after"))
		pings("renewed", renewed)
	}
}

// What is read once is not read again until it changes.
func TestReadOnceUntilItChanges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	write(t, file, []byte("1"))
	times := 0
	r := reread[string]{files: []string{file}, from: func() (string, error) {
		times++
		b, err := os.ReadFile(file)
		if string(b) == "bad" {
			err = errors.New("bad")
		}
		return string(b), err
	}, warn: func(error) {}}
	for _, step := range []struct {
		write, want string
		times       int
	}{{"", "1", 1}, {"", "1", 1}, {"2", "2", 2}, {"", "2", 2}, {"bad", "2", 3}, {"", "2", 4}, {"3", "3", 5}, {"", "3", 5}} {
		if step.write != "" {
			write(t, file, []byte(step.write))
		}
		if got, err := r.get(); got != step.want || err != nil || times != step.times {
			t.Errorf("%+v: %s, %v, read %d times", step, got, err, times)
		}
	}
}

// The certificate of the admin port is renewed without a restart, and half of a renewal
// leaves the one before in use.
func TestRenewedAdminCertificate(t *testing.T) {
	authority := newAuthority(t)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	renew := func() (pair [2][]byte) {
		certFile, keyFile := authority.leaf(t, "localhost")
		return [2][]byte{read(t, certFile), read(t, keyFile)}
	}
	first, second := renew(), renew()
	write(t, cert, first[0])
	write(t, key, first[1])
	var warnings []string
	config := mustLoad(t, "TOPICS=orders", "ADMIN_TLS_CERT_FILE="+cert, "ADMIN_TLS_KEY_FILE="+key).
		AdminTLS(func(err error) { warnings = append(warnings, err.Error()) })
	served := func(when string, want [2][]byte) {
		t.Helper()
		got, err := config.GetCertificate(nil)
		if err != nil {
			t.Errorf("%s: %v", when, err)
			return
		}
		if pair, err := tls.X509KeyPair(want[0], want[1]); err != nil || !pair.Leaf.Equal(got.Leaf) {
			t.Errorf("%s: another certificate (%v)", when, err)
		}
	}
	served("at first", first)
	write(t, cert, second[0])
	served("with half of a pair", first)
	if len(warnings) != 1 || !strings.Contains(warnings[0], "private key does not match") {
		t.Errorf("warned of %q", warnings)
	}
	write(t, key, second[1])
	served("renewed", second)
	for _, file := range []string{cert, key} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	served("without files", second)
	if len(warnings) != 2 {
		t.Errorf("warned of %q", warnings)
	}
}
