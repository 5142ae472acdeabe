//go:build unix

package proxy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	weak "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/kafkatest"
)

// secured is an Apache Kafka that asks who is there and what is allowed (see
// bench/kafka), with certificates of our own making. Everything that Tidemark says in
// front of it is kept, to be searched for secrets.
type secured struct {
	*cluster
	dir, certs string
	port       int
	ours       *authority
	other      *authority        // whom nobody trusts
	heard      kafkatest.Journal // all that was ever said
	secrets    []string          // that must not be in it
	users      int               // that have been given rights
}

// The listeners, by the distance of their ports from the first.
const (
	openPort    = 0
	tlsPort     = 400
	mtlsPort    = 500
	loginPort   = 600
	expiredPort = 700
)

const (
	password = "canary-of-a-password"
	users    = 60
)

func (s *secured) at(listener int) string { return address(s.port + listener) }

func startSecured(t *testing.T) *secured {
	t.Helper()
	s := &secured{dir: filepath.Join(t.TempDir(), "kafka"), certs: t.TempDir(), port: freePorts(t), secrets: []string{password}}
	s.ours, s.other = newAuthority(t, s.certs, "ca"), newAuthority(t, s.certs, "other")
	day := time.Now().Add(24 * time.Hour)
	s.ours.issue(t, "server", pkix.Name{CommonName: "broker"}, day)
	s.ours.issue(t, "expired", pkix.Name{CommonName: "broker"}, time.Now().Add(-time.Minute))
	var list strings.Builder
	for i := range users {
		fmt.Fprintf(&list, "%s %s\n", user(i), password)
	}
	if err := os.WriteFile(filepath.Join(s.certs, "users"), []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("../bench/kafka", "start", "--port", strconv.Itoa(s.port), "--dir", s.dir, "--heap", "384", "--secured", s.certs).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() { run(t, "../bench/kafka", "stop", "--dir", s.dir) })
	s.cluster = &cluster{
		t: t, connection: []kgo.Opt{kgo.SeedBrokers(s.at(openPort))},
		dial: (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
	}
	s.open()
	t.Cleanup(s.close)
	return s
}

func user(i int) string { return fmt.Sprint("user-", i) }

// freePorts finds a port that is free together with those that belong to it.
func freePorts(t *testing.T) int {
	free := func(port int) bool {
		l, err := net.Listen("tcp", address(port))
		if err == nil {
			l.Close()
		}
		return err == nil
	}
	for range 100 {
		port := 21000 + weak.IntN(8000)
		if !slices.ContainsFunc([]int{0, 100, tlsPort, mtlsPort, loginPort, expiredPort}, func(n int) bool { return !free(port + n) }) {
			return port
		}
	}
	t.Fatal("no free ports")
	return 0
}

// authority issues certificates, in PEM, as Kafka and Tidemark read them.
type authority struct {
	dir, file string
	cert      *x509.Certificate
	key       *ecdsa.PrivateKey
	issued    int64
}

func newAuthority(t *testing.T, dir, name string) *authority {
	a := &authority{dir: dir, file: filepath.Join(dir, name+".pem")}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	cert, _ := a.sign(t, a.cert)
	replace(t, a.file, cert)
	return a
}

func (a *authority) sign(t *testing.T, cert *x509.Certificate) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if a.key == nil {
		a.key = key
	}
	der, err2 := x509.CreateCertificate(rand.Reader, cert, a.cert, &key.PublicKey, a.key)
	private, err3 := x509.MarshalPKCS8PrivateKey(key)
	for _, err := range []error{err, err2, err3} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
}

// issue writes a certificate for 127.0.0.1 and its key, together and one by one.
func (a *authority) issue(t *testing.T, name string, subject pkix.Name, until time.Time) (certFile, keyFile string) {
	t.Helper()
	a.issued++
	cert, key := a.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(1 + a.issued), Subject: subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		DNSNames: []string{"kafka.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	base := filepath.Join(a.dir, name)
	replace(t, base+".key", key)
	replace(t, base+".crt", cert)
	replace(t, base+".pem", append(key, cert...))
	return base + ".crt", base + ".key"
}

// replace replaces a file, so that nobody reads half of it.
func replace(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// jwt makes a token that nobody has signed.
func jwt(subject string, lasts time.Duration) string {
	part := base64.RawURLEncoding.EncodeToString
	now := time.Now().Unix()
	return part([]byte(`{"alg":"none"}`)) + "." + part(fmt.Appendf(nil, `{"sub":%q,"iat":%d,"exp":%d}`, subject, now-1, now+int64(lasts/time.Second))) + "."
}

// The ways to connect, as what Tidemark is configured with.

func (s *secured) overTLS() []string {
	return []string{"TIDEMARK_BROKERS=" + s.at(tlsPort), "TIDEMARK_TLS=true", "TIDEMARK_TLS_CA_FILE=" + s.ours.file}
}

func (s *secured) withCert(certFile, keyFile string) []string {
	key, err := os.ReadFile(keyFile)
	if err != nil {
		s.t.Fatal(err)
	}
	block, _ := pem.Decode(key)
	s.secrets = append(s.secrets, base64.StdEncoding.EncodeToString(block.Bytes)[:40])
	return append(s.overTLS(), "TIDEMARK_BROKERS="+s.at(mtlsPort), "TIDEMARK_TLS_CERT_FILE="+certFile, "TIDEMARK_TLS_KEY_FILE="+keyFile)
}

func (s *secured) byPassword(mechanism, user, password string) []string {
	s.secrets = append(s.secrets, password)
	return append(s.overTLS(), "TIDEMARK_BROKERS="+s.at(loginPort),
		"TIDEMARK_SASL_MECHANISM="+mechanism, "TIDEMARK_SASL_USERNAME="+user, "TIDEMARK_SASL_PASSWORD="+password)
}

func (s *secured) byToken(file, token string) []string {
	s.renewToken(file, token)
	return append(s.overTLS(), "TIDEMARK_BROKERS="+s.at(loginPort), "TIDEMARK_SASL_MECHANISM=OAUTHBEARER", "TIDEMARK_SASL_TOKEN_FILE="+file)
}

func (s *secured) renewToken(file, token string) {
	s.t.Helper()
	s.secrets = append(s.secrets, token)
	replace(s.t, file, []byte(token))
}

// scram makes a user known, with both hashes.
func (s *secured) scram(user string) {
	s.t.Helper()
	for _, m := range []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512} {
		answers, err := s.adm.AlterUserSCRAMs(s.ctx, nil, []kadm.UpsertSCRAM{{User: user, Mechanism: m, Iterations: 4096, Password: password}})
		if err == nil {
			err = answers.Error()
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

// allowance is what one kafka-acls line allows, for one operation.
type allowance struct {
	kind    kmsg.ACLResourceType
	name    string
	pattern kadm.ACLPattern
	op      kadm.ACLOperation
}

func (a allowance) String() string {
	return fmt.Sprint(a.op, " on ", a.kind, " ", a.name)
}

// allowances reads the options of a kafka-acls line.
func allowances(t *testing.T, line string) (principal string, all []allowance) {
	t.Helper()
	a := allowance{pattern: kadm.ACLPatternLiteral}
	var ops []kadm.ACLOperation
	words := strings.Fields(line)
	for i, word := range words {
		if i+1 == len(words) {
			break
		}
		value := strings.Trim(words[i+1], "';")
		switch word {
		case "--allow-principal":
			principal = strings.TrimPrefix(value, "User:")
		case "--operation":
			op, err := kmsg.ParseACLOperation(value)
			if err != nil {
				t.Fatal(err)
			}
			ops = append(ops, op)
		case "--topic":
			a.kind, a.name = kmsg.ACLResourceTypeTopic, value
		case "--group":
			a.kind, a.name = kmsg.ACLResourceTypeGroup, value
		case "--transactional-id":
			a.kind, a.name = kmsg.ACLResourceTypeTransactionalId, value
		case "--resource-pattern-type":
			a.pattern = kadm.ACLPatternPrefixed
		}
	}
	for _, op := range ops {
		a.op = op
		all = append(all, a)
	}
	if len(all) == 0 || a.name == "" {
		t.Fatalf("not a line of kafka-acls: %s", line)
	}
	return principal, all
}

// documented returns what docs/security.md says has to be allowed, by the words that
// stand before the lines.
func documented(t *testing.T, before string) (all []allowance) {
	t.Helper()
	text, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), before)
	_, after, fenced := strings.Cut(after, "```\n")
	block, _, ended := strings.Cut(after, "```")
	if !found || !fenced || !ended {
		t.Fatalf("docs/security.md has no lines after %q", before)
	}
	for line := range strings.Lines(block) {
		_, more := allowances(t, line)
		all = append(all, more...)
	}
	return all
}

// allow gives rights, and waits until the brokers know.
func (s *secured) allow(principal string, all ...allowance) {
	s.t.Helper()
	for _, a := range all {
		if _, err := s.adm.CreateACLs(s.ctx, s.builder(principal, a)); err != nil {
			s.t.Fatal(err)
		}
	}
	s.await("rights", func() bool { return len(s.rights(principal)) >= len(all) })
}

// withdraw takes a right away.
func (s *secured) withdraw(principal string, a allowance) {
	s.t.Helper()
	before := len(s.rights(principal))
	if _, err := s.adm.DeleteACLs(s.ctx, s.builder(principal, a)); err != nil {
		s.t.Fatal(err)
	}
	s.await("a right withdrawn", func() bool { return len(s.rights(principal)) < before })
}

func (s *secured) builder(principal string, a allowance) *kadm.ACLBuilder {
	b := kadm.NewACLs().ResourcePatternType(a.pattern).Operations(a.op).Allow("User:" + principal).AllowHosts("*")
	switch a.kind {
	case kmsg.ACLResourceTypeTopic:
		b.Topics(a.name)
	case kmsg.ACLResourceTypeGroup:
		b.Groups(a.name)
	case kmsg.ACLResourceTypeTransactionalId:
		b.TransactionalIDs(a.name)
	}
	return b
}

func (s *secured) rights(principal string) kadm.DescribedACLs {
	s.t.Helper()
	found, err := s.adm.DescribeACLs(s.ctx, kadm.NewACLs().AnyResource().ResourcePatternType(kadm.ACLPatternAny).Operations().Allow("User:"+principal).AllowHosts())
	if err != nil {
		s.t.Fatal(err)
	}
	return found[0].Described
}

// next returns a user who may do this and nothing else, and how it connects.
func (s *secured) next(all ...allowance) (name string, env []string) {
	s.t.Helper()
	if s.users == users {
		s.t.Fatal("there are no more users")
	}
	name = user(s.users)
	s.users++
	s.allow(name, all...)
	return name, s.byPassword("PLAIN", name, password)
}

// both writes to a visit's own log and to that of all.
type both struct {
	s *secured
	g *kafkatest.Journal
}

func (b both) Write(line []byte) (int, error) {
	_, _ = b.g.Write(line)
	return b.s.heard.Write(line)
}

// visit is one run of Tidemark in this process.
type visit struct {
	s    *secured
	log  kafkatest.Journal
	proc *process
	end  context.CancelFunc
	done chan struct{}
	err  error
}

// base is a configuration but for the connection.
func base(env ...string) []string {
	return append([]string{
		"TIDEMARK_TOPICS=payments", "TIDEMARK_GROUP=tidemark", "TIDEMARK_INSTANCE=a", "TIDEMARK_MEMORY=64MiB",
		"TIDEMARK_MAX_OUT_OF_ORDERNESS=50ms", "TIDEMARK_IDLE_TIMEOUT=200ms", "TIDEMARK_SESSION_TIMEOUT=6s", "TIDEMARK_ADMIN=off",
	}, env...)
}

// visit starts what does, with a log at the lowest level.
func (s *secured) visit(env []string, does func(context.Context, config.Config, []kgo.Opt, *process) error) *visit {
	s.t.Helper()
	cfg, err := config.Load(base(env...))
	if err != nil {
		s.t.Fatal(err)
	}
	v := &visit{s: s, done: make(chan struct{})}
	v.proc = newProcess(slog.New(keyed{slog.NewJSONHandler(both{s, &v.log}, &slog.HandlerOptions{Level: slog.LevelDebug}), s.t}))
	ctx, end := context.WithCancel(s.ctx)
	v.end = end
	connection, err := cfg.ClientOpts(v.proc.reporter.StaleFile)
	if err != nil {
		s.t.Fatal(err)
	}
	t := s.t
	t.Cleanup(func() {
		end()
		if t.Failed() {
			t.Log(v.warnings())
		}
	})
	go func() {
		defer close(v.done)
		v.err = does(ctx, cfg, connection, v.proc)
		fmt.Fprintf(&s.heard, "%v %+v\n", v.err, v.err)
		if f, ok := v.err.(*fault.Fault); ok {
			fmt.Fprintln(&s.heard, f.Advice)
		}
	}()
	return v
}

// stop ends a visit, which has to be one that goes well.
func (v *visit) stop() {
	v.s.t.Helper()
	v.end()
	<-v.done
	if v.err != nil {
		v.s.t.Errorf("stopped, it ended with: %v", v.err)
	}
}

// running reports whether a visit has not ended by itself.
func (v *visit) running() bool {
	select {
	case <-v.done:
		return false
	default:
		return true
	}
}

// refused waits for a visit to end by itself, which it has to.
func (v *visit) refused() error {
	v.s.t.Helper()
	defer v.end()
	select {
	case <-v.done:
	case <-time.After(20 * time.Second):
		v.s.t.Fatalf("it goes on where it should have ended:\n%s", v.log.String())
	}
	return v.err
}

// warnings returns the lines that are warnings or errors.
func (v *visit) warnings() (lines []string) {
	for line := range strings.Lines(v.log.String()) {
		if strings.Contains(line, `"level":"WARN"`) || strings.Contains(line, `"level":"ERROR"`) {
			lines = append(lines, line)
		}
	}
	return lines
}
