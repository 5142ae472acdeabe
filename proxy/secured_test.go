//go:build unix

package proxy

import (
	"context"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit/verify"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/kafkatest"
	"github.com/tidemarkhq/tidemark/proxy/position"
	"github.com/tidemarkhq/tidemark/proxy/repair"
	"github.com/tidemarkhq/tidemark/reorder"
)

// A Kafka that asks who is there and what is allowed: every way in, every way to be
// refused, exactly the rights of docs/security.md, and all of it for as long as
// certificates and tokens are renewed. Real Kafka only, and one of its own.
func TestKafkaSecured(t *testing.T) {
	if os.Getenv(brokersVar) == "" {
		t.Skip(brokersVar + " is not set: kfake has no TLS to renew, no tokens and no broker to restart")
	}
	s := startSecured(t)
	for _, scene := range []struct {
		name string
		play func()
	}{
		{"rights to run", s.rightsToRun},
		{"rights to repair", s.rightsToRepair},
		{"rights to verify", s.rightsToVerify},
		{"rights to change a position", s.rightsToPosition},
		{"rights withdrawn", s.rightsWithdrawn},
		{"ways in", s.waysIn},
		{"refusals", s.refusals},
		{"side by side", s.sideBySide},
		{"secrets", s.nothingTold},
	} {
		t.Run(scene.name, func(t *testing.T) {
			before := s.t
			s.t = t
			defer func() { s.t = before }()
			scene.play()
		})
	}
}

// What stands in docs/security.md before the lines with the rights.
const (
	toRun          = "`tidemark run`:"
	toRunWell      = "before anything is written, and outputs are created like their source."
	toCreate       = "To have it create the outputs"
	toGrow         = "To have it give the outputs more partitions"
	toTakeOver     = "To begin where another group stands"
	toRepair       = "`tidemark repair`, also with"
	toRepairWell   = "It warns without these:"
	toCreateTarget = "To have it create the topic for the corrections:"
	toVerify       = "`tidemark verify`:"
	toPosition     = "`tidemark position`:"
)

// renamed returns rights on things of other names.
func renamed(all []allowance, names ...string) []allowance {
	other := slices.Clone(all)
	for i := range other {
		other[i].name = strings.NewReplacer(names...).Replace(other[i].name)
	}
	return other
}

func without(all []allowance, i int) []allowance { return slices.Delete(slices.Clone(all), i, i+1) }

// ends returns the sum of the ends of a topic, 0 if it does not exist.
func (s *secured) ends(topic string) (n int64) {
	listed, err := s.adm.ListEndOffsets(s.ctx, topic)
	if err != nil {
		s.t.Fatal(err)
	}
	listed.Each(func(o kadm.ListedOffset) {
		if o.Err == nil {
			n += o.Offset
		}
	})
	return n
}

// moves starts a sidecar that has to bring records from payments to its outputs.
func (s *secured) moves(env ...string) *visit {
	s.t.Helper()
	v := s.visit(env, runOver)
	s.goesOn(v)
	return v
}

func (s *secured) goesOn(v *visit) { s.goesOnWith(v, 0, 1) }

func (s *secured) goesOnWith(v *visit, partitions ...int) {
	s.t.Helper()
	const n = 10
	before := s.ends("payments.ordered")
	for i := range n {
		s.produce(s.cl, record("payments", int32(partitions[i%len(partitions)]), time.Now().UnixMilli(), "x"))
	}
	s.awaitFor(20*time.Second, "records in order", func() bool {
		if !v.running() {
			s.t.Fatalf("it ended with: %v", v.err)
		}
		return s.ends("payments.ordered") >= before+n
	})
}

var aclLine = regexp.MustCompile(`kafka-acls [^;\n"]+`)

// cure gives what an error or a log asks for, and sees that it is what is missing,
// for the right principal.
func (s *secured) cure(text, principal string, missing ...allowance) {
	s.t.Helper()
	var asked []allowance
	for _, line := range aclLine.FindAllString(text, -1) {
		who, all := allowances(s.t, line)
		if who != principal {
			s.t.Errorf("asks for rights of %q, it is %q: %s", who, principal, line)
		}
		asked = append(asked, all...)
	}
	for _, m := range missing {
		if !slices.Contains(asked, m) {
			s.t.Errorf("%v is missing, and it asks for %v:\n%s", m, asked, text)
		}
	}
	s.allow(principal, asked...)
}

// denial checks that an error ends with 2 and names what is missing, and returns its
// text and hints.
func (s *secured) denial(err error, missing allowance) string {
	s.t.Helper()
	kafkatest.WantUsage(s.t, err, missing.name)
	if !strings.Contains(strings.ToUpper(err.Error()), missing.op.String()) {
		s.t.Errorf("%v is missing, and it says: %v", missing, err)
	}
	text := err.Error()
	if f, ok := err.(*fault.Fault); ok {
		text += "\n" + f.Advice
	}
	return text
}

func (s *secured) rightsToRun() {
	s.create("payments", 2)
	run, well, create := documented(s.t, toRun), documented(s.t, toRunWell), documented(s.t, toCreate)
	full := slices.Concat(run, well)
	for i, missing := range create {
		name, env := s.next(slices.Concat(full, without(create, i))...)
		text := s.denial(s.visit(env, runOver).refused(), missing)
		s.cure(text, name, missing)
	}

	_, env := s.next(slices.Concat(full, create)...)
	v := s.moves(env...)
	v.stop()
	if told := v.warnings(); len(told) > 0 {
		s.t.Errorf("with all rights: %s", told)
	}
	_, env = s.next(run...)
	s.moves(env...).stop()
	for i, missing := range run {
		name, env := s.next(without(run, i)...)
		s.cure(s.denial(s.visit(env, runOver).refused(), missing), name, missing)
		s.moves(env...).stop()
		if missing.kind == run[len(run)-1].kind {
			_, env := s.next(without(run, i)...)
			s.moves(append(env, "TIDEMARK_DELIVERY=at-least-once")...).stop()
		}
	}
	for i, missing := range well {
		name, env := s.next(slices.Concat(run, without(well, i))...)
		v := s.visit(env, runOver)
		s.await("a warning", func() bool { return strings.Contains(strings.Join(v.warnings(), ""), missing.name) })
		v.stop()
		s.cure(strings.Join(v.warnings(), ""), name, missing)
	}

	_, env = s.next(slices.Concat(full, documented(s.t, toGrow))...)
	if _, err := s.adm.UpdatePartitions(s.ctx, 3, "payments"); err != nil {
		s.t.Fatal(err)
	}
	s.moves(env...).stop()
	if n := len(s.contents("payments.late")); n != 3 {
		s.t.Errorf("%d partitions", n)
	}

	takeOver := documented(s.t, toTakeOver)
	var at kadm.Offsets
	for n := range int32(3) {
		at.AddOffset("payments", n, 0, -1)
	}
	if err := s.adm.CommitAllOffsets(s.ctx, "billing", at); err != nil {
		s.t.Fatal(err)
	}
	name, env := s.next(renamed(full, "tidemark", "fresh")...)
	env = append(env, "TIDEMARK_GROUP=fresh", "TIDEMARK_START=group:billing", "TIDEMARK_ON_RESET=new-epoch")
	s.cure(s.denial(s.visit(env, runOver).refused(), takeOver[0]), name, takeOver[0])
	s.moves(env...).stop()

	// A new epoch is above those that the outputs hold, which have to be read.
	name, env = s.next(renamed(run, "tidemark", "another")...)
	env = append(env, "TIDEMARK_GROUP=another", "TIDEMARK_ON_RESET=new-epoch")
	s.cure(s.denial(s.visit(env, runOver).refused(), well[0]), name, well[0])
}

// mends is one run of a repair.
func mends(report *repair.Report) func(context.Context, config.Config, []kgo.Opt, *process) error {
	return func(ctx context.Context, cfg config.Config, connection []kgo.Opt, proc *process) error {
		o := repair.Options{Reasons: repair.Behind, TTL: time.Hour, Report: func(r repair.Report) error { *report = r; return nil }}
		return repair.RunOver(ctx, ctx, cfg, o, connection, repair.NewProcess(proc.reporter.Logger))
	}
}

func (s *secured) rightsToRepair() {
	rights, well, create := documented(s.t, toRepair), documented(s.t, toRepairWell), documented(s.t, toCreateTarget)
	mended := func(env []string) *visit {
		s.t.Helper()
		s.produce(s.cl, lateRecord("payments", 0, time.Now().UnixMilli(), 1, reorder.BehindWatermark, time.Now()))
		var r repair.Report
		v := s.visit(env, mends(&r))
		<-v.done
		if v.err != nil || r.Corrections < 1 {
			s.t.Errorf("%d corrections, %v", r.Corrections, v.err)
		}
		return v
	}
	name, env := s.next(slices.Concat(rights, well)...)
	var r repair.Report
	s.cure(s.denial(s.visit(env, mends(&r)).refused(), create[0]), name, create[0])
	if told := mended(env).warnings(); len(told) > 0 {
		s.t.Errorf("with all rights: %s", told)
	}
	_, env = s.next(rights...)
	mended(env)
	for i, missing := range rights {
		name, env := s.next(without(rights, i)...)
		s.cure(s.denial(s.visit(env, mends(&r)).refused(), missing), name, missing)
		mended(env)
	}
	for i, missing := range well {
		name, env := s.next(slices.Concat(rights, without(well, i))...)
		s.cure(strings.Join(mended(env).warnings(), ""), name, missing)
	}
}

func (s *secured) rightsToVerify() {
	rights := documented(s.t, toVerify)
	verify := func(env []string) error {
		cfg, err := config.Load(base(env...))
		if err != nil {
			s.t.Fatal(err)
		}
		opts, err := cfg.ClientOpts(func(err error) { s.t.Error(err) })
		if err != nil {
			s.t.Fatal(err)
		}
		cl, err := kgo.NewClient(opts...)
		if err != nil {
			s.t.Fatal(err)
		}
		defer cl.Close()
		_, err = verify.Run(s.ctx, cl, verify.Options{
			Group: "tidemark", Prefix: "tidemark-",
			Topics: []verify.Topic{{
				Source: "payments", Ordered: "payments.ordered", Late: "payments.late",
				EventTime: cfg.EventTime.Extract, Fingerprint: cfg.EventTime.Fingerprint(),
			}},
		})
		if err != nil {
			fmt.Fprintln(&s.heard, err, fault.ReadHint(cfg, err))
		}
		return err
	}
	_, env := s.next(rights...)
	if err := verify(env); err != nil {
		s.t.Error(err)
	}
	for i, missing := range rights {
		name, env := s.next(without(rights, i)...)
		err := verify(env)
		if err == nil {
			s.t.Errorf("without %v nothing is missing", missing)
			continue
		}
		cfg, _ := config.Load(base(env...))
		s.cure(fault.ReadHint(cfg, err), name, missing)
		if err := verify(env); err != nil {
			s.t.Error(err)
		}
	}
}

func (s *secured) rightsToPosition() {
	rights := documented(s.t, toPosition)
	// In the others, records may have come out twice before: at least once, and by another group.
	const untouched = 2
	_, env := s.next(documented(s.t, toRun)...)
	v := s.visit(env, runOver)
	s.goesOnWith(v, untouched)
	v.stop()
	which := position.Which{Only: position.Partitions{"payments": {untouched}}}
	remade := func(env []string) error {
		cfg, err := config.Load(base(env...))
		if err != nil {
			s.t.Fatal(err)
		}
		opts, err := cfg.ClientOpts(func(err error) { s.t.Error(err) })
		if err != nil {
			s.t.Fatal(err)
		}
		cl, err := kgo.NewClient(opts...)
		if err != nil {
			s.t.Fatal(err)
		}
		defer cl.Close()
		tool := &position.Tool{Config: cfg, Client: cl, Reporter: fault.NewReporter(slog.New(slog.DiscardHandler)), WallClock: time.Now}
		err = tool.Open(s.ctx)
		if err == nil {
			_, err = tool.Show(s.ctx)
		}
		var plan *position.Plan
		for _, make := range []func() error{
			func() (err error) { plan, err = tool.PlanRebuild(s.ctx, which, -1); return err },
			func() (err error) {
				_, err = tool.PlanNewEpoch(s.ctx, which, fromCommitted)
				return err
			},
			func() error { return tool.Apply(s.ctx, plan) },
		} {
			if err == nil {
				err = make()
			}
		}
		if err = tool.Explain(err); err != nil {
			fmt.Fprintln(&s.heard, err)
		}
		return err
	}
	_, env = s.next(rights...)
	if err := remade(env); err != nil {
		s.t.Error(err)
	}
	for i, missing := range rights {
		name, env := s.next(without(rights, i)...)
		var f *fault.Fault
		if err := remade(env); !errors.As(err, &f) || f.Code != 2 {
			s.t.Errorf("without %v: %v", missing, err)
			continue
		}
		s.cure(f.Advice, name, missing)
		if err := remade(env); err != nil {
			s.t.Error(err)
		}
	}
}

// A right is taken away under a sidecar that runs.
func (s *secured) rightsWithdrawn() {
	for _, a := range documented(s.t, toRun)[:4] {
		if a.name == "payments.late" {
			continue // nothing comes too late here
		}
		name, env := s.next(documented(s.t, toRun)...)
		v := s.moves(env...)
		s.withdraw(name, a)
		s.await("the end", func() bool {
			s.produce(s.cl, record("payments", 0, time.Now().UnixMilli(), "x"))
			return !v.running()
		})
		s.cure(s.denial(v.refused(), a), name, a)
		s.moves(env...).stop()
	}
}

// waysIn has records moved over each kind of connection.
func (s *secured) waysIn() {
	rights := slices.Concat(documented(s.t, toRun), documented(s.t, toRunWell))
	s.moves(s.overTLS()...).stop()
	for _, mechanism := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
		s.scram(mechanism)
		s.allow(mechanism, rights...)
		s.moves(s.byPassword(mechanism, mechanism, password)...).stop()
	}
	_, env := s.next(rights...)
	s.moves(env...).stop()

	// Who we are is told as the brokers see it, with a certificate and with a token.
	const subject = "CN=tidemark,OU=Billing,O=Example"
	cert := s.withCert(s.ours.issue(s.t, "client", pkix.Name{CommonName: "tidemark", OrganizationalUnit: []string{"Billing"}, Organization: []string{"Example"}}, time.Now().Add(time.Hour)))
	bearer := s.byToken(filepath.Join(s.certs, "token"), jwt("bearer", time.Hour))
	for principal, env := range map[string][]string{subject: cert, "bearer": bearer} {
		err := s.visit(env, runOver).refused()
		kafkatest.WantUsage(s.t, err)
		s.cure(err.Error(), principal, documented(s.t, toRun)...)
		s.moves(env...).stop()
	}

	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer","expires_in":60}`, jwt("bearer", time.Minute))
	}))
	defer server.Close()
	s.moves(s.byServer(server)...).stop()
}

const clientSecret = "canary-of-a-client-secret"

func (s *secured) byServer(server *httptest.Server) []string {
	ca := filepath.Join(s.certs, "authorization.pem")
	replace(s.t, ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	s.secrets = append(s.secrets, clientSecret)
	return append(s.overTLS(), "TIDEMARK_BROKERS="+s.at(loginPort), "TIDEMARK_SASL_MECHANISM=OAUTHBEARER", "TIDEMARK_SASL_TOKEN_URL="+server.URL,
		"TIDEMARK_SASL_TOKEN_CA_FILE="+ca, "TIDEMARK_SASL_CLIENT_ID=tidemark", "TIDEMARK_SASL_CLIENT_SECRET="+clientSecret)
}

// refusals are all the ways not to be let in, and what is told of them.
func (s *secured) refusals() {
	s.t.Setenv("AWS_REGION", "eu-west-1")
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"error":"invalid_client","error_description":"not %s"}`, r.FormValue("client_secret"))
	}))
	defer server.Close()
	hour := time.Now().Add(time.Hour)
	at := func(port int) string { return "TIDEMARK_BROKERS=" + s.at(port) }
	aws := append(s.overTLS(), at(loginPort), "TIDEMARK_SASL_MECHANISM=AWS_MSK_IAM", "AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY="+password)
	_, env := s.next()
	for _, r := range []struct {
		name string
		env  []string
		text string
		hint string
	}{
		{"expired", append(s.overTLS(), at(expiredPort)), "certificate has expired", "the broker's certificate expired at 20"},
		{"wrong host", append(s.overTLS(), fmt.Sprintf("TIDEMARK_BROKERS=localhost:%d", s.port+tlsPort)), "certificate is valid for kafka.example, not localhost", "is for kafka.example, 127.0.0.1: use such a name"},
		{"wrong name", append(s.overTLS(), "TIDEMARK_TLS_SERVER_NAME=impostor"), "not impostor", "TIDEMARK_TLS_SERVER_NAME"},
		{"unknown authority", append(s.overTLS(), "TIDEMARK_TLS_CA_FILE="+s.other.file), "signed by unknown authority", "TIDEMARK_TLS_CA_FILE must contain"},
		{"no certificate", append(s.overTLS(), at(mtlsPort)), "remote error: tls: ", "TIDEMARK_TLS_CERT_FILE"},
		{"certificate of another authority", s.withCert(s.other.issue(s.t, "stranger", pkix.Name{CommonName: "stranger"}, hour)), "remote error: tls: ", "TIDEMARK_TLS_CERT_FILE"},
		{"certificate expired", s.withCert(s.ours.issue(s.t, "stale", pkix.Name{CommonName: "stale"}, time.Now().Add(-time.Minute))), "remote error: tls: ", "TIDEMARK_TLS_CERT_FILE"},
		{"mechanism", aws, "UNSUPPORTED_SASL_MECHANISM", "do not offer this mechanism"},
		{"PLAIN", s.byPassword("PLAIN", user(0), "canary-of-a-wrong-one"), "SASL_AUTHENTICATION_FAILED", "TIDEMARK_SASL_PASSWORD"},
		{"SCRAM-SHA-256", s.byPassword("SCRAM-SHA-256", "SCRAM-SHA-256", "canary-of-a-wrong-one"), "SASL_AUTHENTICATION_FAILED", "TIDEMARK_SASL_PASSWORD"},
		{"SCRAM-SHA-512", s.byPassword("SCRAM-SHA-512", "SCRAM-SHA-512", "canary-of-a-wrong-one"), "SASL_AUTHENTICATION_FAILED", "TIDEMARK_SASL_PASSWORD"},
		{"token expired", s.byToken(filepath.Join(s.certs, "old"), jwt("bearer", -time.Minute)), "SASL_AUTHENTICATION_FAILED", "or the token"},
		{"token", s.byToken(filepath.Join(s.certs, "bad"), "canary-of-a-token"), "SASL_AUTHENTICATION_FAILED", "or the token"},
		{"authorization server", s.byServer(server), "status 401: invalid_client not ***", "TIDEMARK_SASL_CLIENT_SECRET"},
		{"login not expected", append(env, at(tlsPort)), "ILLEGAL_SASL_STATE", "expect no login"},
	} {
		s.t.Run(r.name, func(t *testing.T) {
			err := s.visit(r.env, runOver).refused()
			kafkatest.WantUsage(t, err, "reach the brokers", r.text, r.hint)
		})
	}
	for _, r := range []struct {
		name string
		env  []string
		text string
	}{
		{"no TLS where it is expected", []string{at(tlsPort)}, "TIDEMARK_TLS"},
		{"TLS where it is not expected", append(s.overTLS(), at(openPort)), "TIDEMARK_TLS"},
		{"no login where it is expected", append(s.overTLS(), at(loginPort)), "TIDEMARK_SASL_MECHANISM"},
	} {
		s.t.Run(r.name, func(t *testing.T) {
			v := s.visit(r.env, runOver)
			s.await("a warning", func() bool {
				told := strings.Join(v.warnings(), "")
				return strings.Contains(told, "not ready") && strings.Contains(told, r.text)
			})
			v.stop()
		})
	}

	s.secrets = append(s.secrets, "canary-of-a-registry")
	s.produce(s.cl, &kgo.Record{Topic: "payments", Value: []byte{0, 0, 0, 0, 1, 2}})
	v := s.visit([]string{
		at(openPort), "TIDEMARK_GROUP=avro", "TIDEMARK_ON_RESET=new-epoch", "TIDEMARK_EVENT_TIME=avro:ts,timestamp", "TIDEMARK_SCHEMA_REGISTRY=" + server.URL, "TIDEMARK_SCHEMA_REGISTRY_TLS_CA_FILE=" + filepath.Join(s.certs, "authorization.pem"),
		"TIDEMARK_SCHEMA_REGISTRY_USERNAME=u", "TIDEMARK_SCHEMA_REGISTRY_PASSWORD=canary-of-a-registry",
	}, runOver)
	s.awaitFor(20*time.Second, "a warning about the registry", func() bool {
		return !v.running() || strings.Contains(strings.Join(v.warnings(), ""), "schema registry")
	})
	v.stop()
}

// spawned is Tidemark as a process.
type spawned struct {
	cmd  *exec.Cmd
	log  kafkatest.Journal
	done chan error
}

func (s *secured) spawn(binary string, args, env []string) *spawned {
	s.t.Helper()
	p := &spawned{cmd: exec.Command(binary, args...), done: make(chan error, 1)}
	p.cmd.Env = base(append(env, "TIDEMARK_LOG_LEVEL=debug")...)
	p.cmd.Stdout, p.cmd.Stderr = &s.heard, both{s, &p.log}
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	return p
}

func (p *spawned) stop(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if err := <-p.done; err != nil {
		t.Errorf("%q, told to stop, ended with %v", p.cmd.Args, err)
	}
}

// Consumer, sidecar and repair work side by side as processes with no more rights than
// are documented: the sidecar with a certificate that expires meanwhile, the repair
// with tokens that last for seconds. The broker is restarted, so that nobody lives on
// an old connection.
func (s *secured) sideBySide() {
	t, binary := s.t, build(s.t)
	mine := func(what string) []allowance {
		return renamed(documented(t, what), "payments", "orders", "tidemark", "sidecar")
	}
	s.create("orders", 2)
	for _, topic := range []string{"orders.ordered", "orders.late", "orders.corrections"} {
		s.create(topic, 2)
	}
	s.allow("CN=sidecar", mine(toRun)...)
	s.allow("mender", mine(toRepair)...)
	s.scram("billing")
	s.allow("billing", allowanceOf(t, "--operation Read --topic orders.ordered"), allowanceOf(t, "--operation Read --group billing"))
	names := []string{"TIDEMARK_TOPICS=orders", "TIDEMARK_GROUP=sidecar"}

	const short = 6 * time.Second
	expires := time.Now().Add(short)
	sidecar := s.spawn(binary, []string{"run"}, append(s.withCert(s.ours.issue(t, "sidecar", pkix.Name{CommonName: "sidecar"}, expires)), names...))
	file := filepath.Join(s.certs, "tokens")
	mender := s.spawn(binary, []string{"repair", "--every", "500ms", "--json"}, append(s.byToken(file, jwt("mender", 4*time.Second)), names...))
	consumer := s.consumer(s.byPassword("SCRAM-SHA-512", "billing", password), "orders.ordered", "billing")
	renewing, enough := context.WithCancel(s.ctx)
	var renewals sync.WaitGroup
	renewals.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.renewToken(file, jwt("mender", 4*time.Second))
			case <-renewing.Done():
				return
			}
		}
	})

	const each = 500
	write := func(from time.Time) {
		for i := range each {
			at := from.Add(time.Duration(i) * 10 * time.Millisecond)
			if i%10 == 9 {
				at = at.Add(-time.Minute) // too late
			}
			s.produce(s.cl, record("orders", int32(i%2), at.UnixMilli(), fmt.Sprint(i)))
		}
	}
	begin := time.Now().Add(-time.Hour)
	write(begin)
	s.await("the first records", func() bool { return consumer.count() > each/2 })
	s.ours.issue(t, "sidecar", pkix.Name{CommonName: "sidecar"}, time.Now().Add(time.Hour))
	time.Sleep(time.Until(expires.Add(time.Second)))
	run(t, "../bench/kafka", "restart", "--dir", s.dir, "--broker", "1")
	write(begin.Add(time.Minute))

	cfg, err := config.Load(base(names...))
	if err != nil {
		t.Fatal(err)
	}
	s.await("all put out", func() bool { return s.drained(cfg) })
	r := s.verify(cfg)
	late := r.Late[reorder.BehindWatermark.String()]
	if r.Read != 2*each || r.Ordered+late != 2*each || late < each/10 {
		t.Errorf("%d read, %d in order, late %v", r.Read, r.Ordered, r.Late)
	}
	s.await("all in order read", func() bool { return consumer.count() == r.Ordered })
	s.await("all corrected", func() bool {
		n := int64(0)
		for _, p := range s.contents("orders.corrections") {
			n += int64(len(p))
		}
		return n == late
	})
	consumer.close()
	enough()
	renewals.Wait()
	sidecar.stop(t)
	mender.stop(t)
	for _, p := range []*spawned{sidecar, mender} {
		p.logsJSON(t)
	}

	// And one that is refused.
	refused := s.spawn(binary, []string{"run"}, s.byPassword("SCRAM-SHA-512", "billing", "canary-of-a-wrong-one"))
	var exit *exec.ExitError
	if err := <-refused.done; !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("refused, it ended with %v", err)
	}
}

// logsJSON sees that every line of a log is JSON, with keys that are documented.
func (p *spawned) logsJSON(t *testing.T) {
	t.Helper()
	for line := range strings.Lines(p.log.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Errorf("%v: %s", err, line)
			continue
		}
		if msg, _ := fields["msg"].(string); strings.HasPrefix(msg, "kafka client: ") {
			continue
		}
		for key := range fields {
			if !isLogKey(key) {
				t.Errorf("the key %q is not in logKeys: %s", key, line)
			}
		}
	}
}

func allowanceOf(t *testing.T, line string) allowance {
	_, all := allowances(t, line)
	return all[0]
}

// orderly is a consumer that sees to the order of event times.
type orderly struct {
	cl   *kgo.Client
	end  context.CancelFunc
	done sync.WaitGroup
	mu   sync.Mutex
	n    int64
}

func (s *secured) consumer(env []string, topic, group string) *orderly {
	s.t.Helper()
	t := s.t
	cfg, err := config.Load(base(env...))
	if err != nil {
		t.Fatal(err)
	}
	opts, err := cfg.ClientOpts(func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(append(opts, kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(s.ctx)
	o := &orderly{cl: cl, end: end}
	last := map[int32]string{}
	o.done.Go(func() {
		for ctx.Err() == nil {
			cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
				at := header(r, "event-time")
				if at < last[r.Partition] {
					t.Errorf("partition %d: %s after %s", r.Partition, at, last[r.Partition])
				}
				last[r.Partition] = at
				o.mu.Lock()
				o.n++
				o.mu.Unlock()
			})
		}
	})
	return o
}

func (o *orderly) count() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.n
}

func (o *orderly) close() {
	o.end()
	o.done.Wait()
	o.cl.Close()
}

// nothingTold searches all that was said for what must not be in it.
func (s *secured) nothingTold() {
	heard := s.heard.String()
	slices.Sort(s.secrets)
	for _, secret := range slices.Compact(s.secrets) {
		if i := strings.Index(heard, secret); i >= 0 {
			s.t.Errorf("told: %.400s", heard[max(0, i-200):])
		}
	}
	for _, must := range []string{"SASL_AUTHENTICATION_FAILED", "kafka client: ", `"level":"DEBUG"`, "partitions assigned"} {
		if !strings.Contains(heard, must) {
			s.t.Errorf("%q was never said, which makes the search worth little", must)
		}
	}
}
