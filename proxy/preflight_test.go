package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// departure is a cluster before a preflight, and what came of it.
type departure struct {
	t       testing.TB
	cluster *kfake.Cluster // nil: a real one
	env     []string
	adm     *kadm.Client // may do everything
	log     journal      // of the last run
}

// journal is a log that may be read while it is written.
type journal struct {
	mu    sync.Mutex
	lines bytes.Buffer
}

func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lines.Write(line)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lines.String()
}

// fakeDeparture is over a fake cluster. The user root may do everything.
func fakeDeparture(t testing.TB, opts ...kfake.Opt) *departure {
	opts = append([]kfake.Opt{kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("PLAIN", "root", "root")}, opts...)
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	f := &departure{t: t, cluster: cluster, env: []string{"TIDEMARK_BROKERS=" + strings.Join(cluster.ListenAddrs(), ",")}}
	f.login("root")
	f.adm = f.client(f.config())
	return f
}

// anyDeparture is over the cluster that TIDEMARK_TEST_BROKERS names, or over a fake one.
func anyDeparture(t testing.TB) *departure {
	brokers := os.Getenv("TIDEMARK_TEST_BROKERS")
	if brokers == "" {
		return fakeDeparture(t)
	}
	f := &departure{t: t, env: []string{"TIDEMARK_BROKERS=" + brokers}}
	f.adm = f.client(f.config())
	return f
}

func (f *departure) login(user string) {
	f.env = append(f.env, "TIDEMARK_SASL_MECHANISM=PLAIN", "TIDEMARK_SASL_USERNAME="+user, "TIDEMARK_SASL_PASSWORD="+user)
}

func (f *departure) config(env ...string) config.Config {
	f.t.Helper()
	cfg, err := config.Load(append(append([]string{"TIDEMARK_TOPICS=raw", "TIDEMARK_GROUP=g", "TIDEMARK_INSTANCE=i"}, f.env...), env...))
	if err != nil {
		f.t.Fatal(err)
	}
	return cfg
}

func (f *departure) client(cfg config.Config, opts ...kgo.Opt) *kadm.Client {
	f.t.Helper()
	connection, err := cfg.ClientOpts(func(err error) { f.t.Error(err) })
	if err != nil {
		f.t.Fatal(err)
	}
	cl, err := kgo.NewClient(append(connection, opts...)...)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

// topics returns names that no other run uses, and sees to their removal with
// everything that is made of them.
func (f *departure) topics(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("preflight-%d-%d", time.Now().UnixNano(), i)
	}
	f.t.Cleanup(func() {
		for _, name := range names {
			_, _ = f.adm.DeleteTopics(context.Background(), name, name+".ordered", name+".late")
		}
	})
	return names
}

// create makes a topic and waits until the brokers show it.
func (f *departure) create(topic string, partitions int32, settings map[string]string) {
	f.t.Helper()
	values := map[string]*string{}
	for key, value := range settings {
		values[key] = &value
	}
	if _, err := f.adm.CreateTopic(f.t.Context(), partitions, 1, values, topic); err != nil {
		f.t.Fatal(err)
	}
	for {
		details, err := f.adm.ListTopics(kadm.WithAuthorizedOps(f.t.Context()), topic)
		if err == nil && len(details[topic].Partitions) == int(partitions) {
			return
		}
		if f.t.Context().Err() != nil {
			f.t.Fatal(err)
		}
	}
}

// run makes a preflight of topics, with more environment.
func (f *departure) run(topics []string, env ...string) (map[string]Topic, error) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 20*time.Second)
	defer cancel()
	cfg := f.config(append(env, "TIDEMARK_TOPICS="+strings.Join(topics, ","))...)
	f.log = journal{}
	return preflight(ctx, f.client(cfg), cfg, cfg.EventTime, fault.NewReporter(f.logger()), new(oneCluster))
}

func (f *departure) logger() *slog.Logger { return slog.New(slog.NewTextHandler(&f.log, nil)) }

// warnings returns what was warned of. Nothing may be told twice.
func (f *departure) warnings() string {
	f.t.Helper()
	var lines []string
	for line := range strings.Lines(f.log.String()) {
		if !strings.Contains(line, "level=WARN") || strings.Contains(line, "unencrypted") { // as it is here
			continue
		}
		if _, text, _ := strings.Cut(line, " "); strings.Contains(text, "topic=") && strings.Contains(strings.Join(lines, ""), text) {
			f.t.Errorf("told twice: %s", line)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "")
}

func (f *departure) partitions(topic string) int {
	f.t.Helper()
	details, err := f.adm.ListTopics(kadm.WithAuthorizedOps(f.t.Context()), topic)
	if err != nil {
		f.t.Fatal(err)
	}
	return len(details[topic].Partitions)
}

func (f *departure) settings(topic string) settings {
	f.t.Helper()
	found, err := f.adm.DescribeTopicConfigs(f.t.Context(), topic)
	if err != nil {
		f.t.Fatal(err)
	}
	all := settings{}
	for _, c := range found[0].Configs {
		all[c.Key] = c
	}
	return all
}

// contains checks that text has each of the parts.
func contains(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("got\n%s\nwant in it\n%s", text, part)
		}
	}
}

// wrong checks that err is a Fault of setting up with each of the parts in its
// text or its hint.
func wrong(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	exit, ok := errors.AsType[interface {
		error
		ExitCode() int
	}](err)
	if !ok || exit.ExitCode() != 2 {
		t.Fatalf("%v does not end with 2", err)
	}
	text := err.Error()
	if f, ok := err.(*fault.Fault); ok {
		text += "\nhint: " + f.Advice
	}
	contains(t, text, parts...)
}

// Several instances start at the same time: each finds what it needs, whoever
// made it.
func TestKafkaPreflightTogether(t *testing.T) {
	f := anyDeparture(t)
	names := f.topics(2)
	for _, name := range names {
		f.create(name, 3, nil)
	}
	var all sync.WaitGroup
	for range 4 {
		one := &departure{t: t, env: f.env}
		all.Go(func() {
			topics, err := one.run(names)
			if err != nil || len(topics) != 2 || topics[names[1]].Partitions != 3 {
				t.Errorf("%v, %v", topics, err)
			}
			if w := one.warnings(); w != "" {
				t.Error(w)
			}
		})
	}
	all.Wait()
	for _, name := range names {
		if n, m := f.partitions(name+".ordered"), f.partitions(name+".late"); n != 3 || m != 3 {
			t.Errorf("outputs of %s have %d and %d partitions", name, n, m)
		}
	}
}

// virtual is a client of a cluster that does not run yet, in fake time.
func virtual(t *testing.T, network *kfake.VirtualNetwork) (*departure, *kadm.Client) {
	f := &departure{t: t, env: []string{"TIDEMARK_BROKERS=127.0.0.1:9092"}}
	return f, f.client(f.config(), kgo.Dialer(network.DialContext))
}

func start(t *testing.T, network *kfake.VirtualNetwork, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	cluster, err := kfake.NewCluster(append(opts, kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(network.Listen), kfake.SeedTopics(2, "raw"))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster
}

// Brokers that are away are asked again; that is told at once and then every
// half minute, not with every attempt. They are asked about once a second: that is
// how soon work goes on when they are back.
func TestPreflightWaitsForBrokers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(kfake.VirtualNetwork)
		f, _ := virtual(t, network)
		var dials atomic.Int64
		adm := f.client(f.config(), kgo.Dialer(counted(network, &dials)))
		done := make(chan error, 1)
		var topics map[string]Topic
		go func() {
			var err error
			cfg := f.config()
			topics, err = preflight(t.Context(), adm, cfg, cfg.EventTime, fault.NewReporter(f.logger()), new(oneCluster))
			done <- err
		}()
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		contains(t, f.warnings(), "127.0.0.1:9092", "no listener")
		time.Sleep(70 * time.Second)
		synctest.Wait()
		if n, d := strings.Count(f.warnings(), "\n"), dials.Load(); n != 3 || d < 60 || d > 150 {
			t.Errorf("in 70 s %d warnings, %d attempts, want 3 and about one a second:\n%s", n, d, f.warnings())
		}
		start(t, network)
		if err := <-done; err != nil || topics["raw"].Partitions != 2 {
			t.Errorf("%v, %v", topics, err)
		}
	})
}

func counted(network *kfake.VirtualNetwork, dials *atomic.Int64) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, kind, address string) (net.Conn, error) {
		dials.Add(1)
		return network.DialContext(ctx, kind, address)
	}
}

// It ends with the context's own error, whatever it was waiting for.
func TestPreflightEndsWithContext(t *testing.T) {
	hang := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	refuse := func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("refused") }
	for _, dial := range []func(context.Context, string, string) (net.Conn, error){hang, refuse} {
		synctest.Test(t, func(t *testing.T) {
			f := &departure{t: t}
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(4*time.Second, func() { cancel(errors.New("a signal")) })
			began, cfg := time.Now(), f.config()
			_, err := preflight(ctx, f.client(cfg, kgo.Dialer(dial)), cfg, cfg.EventTime, fault.NewReporter(slog.New(slog.DiscardHandler)), new(oneCluster))
			if err != context.Canceled || time.Since(began) != 4*time.Second {
				t.Errorf("%v after %v", err, time.Since(began))
			}
		})
	}
}

// A broker that does not answer is given up in time for another try, and the
// warning says what is going on.
func TestPreflightNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &departure{t: t}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var dials atomic.Int64
		cfg := f.config()
		_, err := preflight(ctx, f.client(cfg, kgo.Dialer(func(ctx context.Context, _, _ string) (net.Conn, error) {
			dials.Add(1)
			<-ctx.Done()
			return nil, ctx.Err()
		})), cfg, cfg.EventTime, fault.NewReporter(f.logger()), new(oneCluster))
		if err != context.DeadlineExceeded || dials.Load() < 3 {
			t.Errorf("%v after %d attempts", err, dials.Load())
		}
		contains(t, f.warnings(), "reach the brokers localhost:9092: no answer within 5s")
	})
}

// A partition of an output that has no leader, and does not get one as a new one does,
// holds up none of the others.
func TestPreflightGoesOnWithoutLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(kfake.VirtualNetwork)
		cluster := start(t, network)
		cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "raw.late", Partitions: []int32{1}, Err: kerr.LeaderNotAvailable, Count: -1})
		f, adm := virtual(t, network)
		began, cfg := time.Now(), f.config()
		topics, err := preflight(t.Context(), adm, cfg, cfg.EventTime, fault.NewReporter(f.logger()), new(oneCluster))
		if took := time.Since(began); err != nil || len(topics) != 1 || took < settled || took > settled+time.Second {
			t.Errorf("%v, %v after %v", topics, err, took)
		}
		contains(t, f.warnings(), "partitions of an output have no leader", "topic=raw.late")
	})
}

// What the brokers say will pass is waited for; anything else is decided.
func TestPreflightAnswers(t *testing.T) {
	for _, test := range []struct {
		fault  kfake.Fault
		wait   bool
		reason string
	}{
		{kfake.Fault{Keys: []kmsg.Key{kmsg.FindCoordinator}, Group: "g", Err: kerr.CoordinatorNotAvailable}, true, "COORDINATOR_NOT_AVAILABLE"},
		{kfake.Fault{Keys: []kmsg.Key{kmsg.FindCoordinator}, TxnID: "g/i", Err: kerr.CoordinatorLoadInProgress}, true, "COORDINATOR_LOAD_IN_PROGRESS"},
		{kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "raw", Err: kerr.LeaderNotAvailable}, true, "LEADER_NOT_AVAILABLE"},
		{kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "raw.late", Partitions: []int32{1}, Err: kerr.UnknownServerError}, true, "late output raw.late, partition 1"},
		{kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Resource: "raw", Err: kerr.UnknownTopicOrPartition}, true, "read the settings of the source topic raw"},
		{kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Topic: "raw.ordered", Err: kerr.ThrottlingQuotaExceeded}, true, "create raw.ordered"},
		{kfake.Fault{Keys: []kmsg.Key{kmsg.FindCoordinator}, Group: "g", Err: kerr.UnknownServerError}, true, "UNKNOWN_SERVER_ERROR"},
		{kfake.Fault{Keys: []kmsg.Key{kmsg.FindCoordinator}, Group: "g", Err: kerr.InvalidRequest}, false, "INVALID_REQUEST"},
		{kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "raw", Err: kerr.InvalidTopicException}, false, "INVALID_TOPIC_EXCEPTION"},
	} {
		t.Run(test.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := new(kfake.VirtualNetwork)
				cluster := start(t, network)
				test.fault.Count = -1
				broken := cluster.Fault(test.fault)
				f, adm := virtual(t, network)
				mended := 200 * time.Second
				time.AfterFunc(mended, broken.Remove)
				began, cfg := time.Now(), f.config()
				_, err := preflight(t.Context(), adm, cfg, cfg.EventTime, fault.NewReporter(f.logger()), new(oneCluster))
				switch took := time.Since(began); {
				case test.wait:
					if err != nil || took < mended {
						t.Errorf("%v after %v", err, took)
					}
					contains(t, f.warnings(), "not ready", test.reason)
				case err == nil || took > time.Second:
					t.Errorf("%v after %v", err, took)
				default:
					contains(t, err.Error(), test.reason)
					if f, ok := err.(*fault.Fault); !ok || f.Code != 1 {
						t.Errorf("%v is no failure", err)
					}
				}
			})
		})
	}
}
