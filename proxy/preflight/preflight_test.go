package preflight

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
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
	"github.com/tidemarkhq/tidemark/proxy/kafkatest"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
)

// checkWith is Check with one client for everything.
func checkWith(ctx context.Context, adm *kadm.Client, cfg config.Config, ex *timestamp.Extractor, reporter *fault.Reporter, cluster *Cluster) (map[string]Topic, error) {
	return Check(ctx, adm, adm, nil, cfg, ex, reporter, cluster)
}

// preflightOf makes a preflight of topics, with more environment.
func preflightOf(f *kafkatest.Fixture, topics []string, env ...string) (map[string]Topic, error) {
	f.T.Helper()
	ctx, cancel := context.WithTimeout(f.T.Context(), 20*time.Second)
	defer cancel()
	cfg := f.Config(append(env, "TIDEMARK_TOPICS="+strings.Join(topics, ","))...)
	f.Log.Clear()
	return checkWith(ctx, f.Client(cfg), cfg, cfg.EventTime, fault.NewReporter(f.Logger()), new(Cluster))
}

// Several instances start at the same time: each finds what it needs, whoever
// made it.
func TestKafkaPreflightTogether(t *testing.T) {
	f := kafkatest.NewAny(t)
	names := f.Topics(2)
	for _, name := range names {
		f.Create(name, 3, nil)
	}
	var all sync.WaitGroup
	for range 4 {
		one := &kafkatest.Fixture{T: t, Env: f.Env}
		all.Go(func() {
			topics, err := preflightOf(one, names)
			if err != nil || len(topics) != 2 || topics[names[1]].Partitions != 3 {
				t.Errorf("%v, %v", topics, err)
			}
			if w := one.Warnings(); w != "" {
				t.Error(w)
			}
		})
	}
	all.Wait()
	for _, name := range names {
		if n, m := f.Partitions(name+".ordered"), f.Partitions(name+".late"); n != 3 || m != 3 {
			t.Errorf("outputs of %s have %d and %d partitions", name, n, m)
		}
	}
}

// virtual is a client of a cluster that does not run yet, in fake time.
func virtual(t *testing.T, network *kfake.VirtualNetwork) (*kafkatest.Fixture, *kadm.Client) {
	f := &kafkatest.Fixture{T: t, Env: []string{"TIDEMARK_BROKERS=127.0.0.1:9092"}}
	return f, f.Client(f.Config(), kgo.Dialer(network.DialContext))
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
		adm := f.Client(f.Config(), kgo.Dialer(counted(network, &dials)))
		done := make(chan error, 1)
		var topics map[string]Topic
		go func() {
			var err error
			cfg := f.Config()
			topics, err = checkWith(t.Context(), adm, cfg, cfg.EventTime, fault.NewReporter(f.Logger()), new(Cluster))
			done <- err
		}()
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		kafkatest.Contains(t, f.Warnings(), "127.0.0.1:9092", "no listener")
		time.Sleep(70 * time.Second)
		synctest.Wait()
		if n, d := strings.Count(f.Warnings(), "\n"), dials.Load(); n != 3 || d < 60 || d > 150 {
			t.Errorf("in 70 s %d warnings, %d attempts, want 3 and about one a second:\n%s", n, d, f.Warnings())
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
			f := &kafkatest.Fixture{T: t}
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(4*time.Second, func() { cancel(errors.New("a signal")) })
			began, cfg := time.Now(), f.Config()
			_, err := checkWith(ctx, f.Client(cfg, kgo.Dialer(dial)), cfg, cfg.EventTime, fault.NewReporter(slog.New(slog.DiscardHandler)), new(Cluster))
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
		f := &kafkatest.Fixture{T: t}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var dials atomic.Int64
		cfg := f.Config()
		_, err := checkWith(ctx, f.Client(cfg, kgo.Dialer(func(ctx context.Context, _, _ string) (net.Conn, error) {
			dials.Add(1)
			<-ctx.Done()
			return nil, ctx.Err()
		})), cfg, cfg.EventTime, fault.NewReporter(f.Logger()), new(Cluster))
		if err != context.DeadlineExceeded || dials.Load() < 3 {
			t.Errorf("%v after %d attempts", err, dials.Load())
		}
		kafkatest.Contains(t, f.Warnings(), "reach the brokers localhost:9092: no answer within 5s")
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
		began, cfg := time.Now(), f.Config()
		topics, err := checkWith(t.Context(), adm, cfg, cfg.EventTime, fault.NewReporter(f.Logger()), new(Cluster))
		if took := time.Since(began); err != nil || len(topics) != 1 || took < settled || took > settled+time.Second {
			t.Errorf("%v, %v after %v", topics, err, took)
		}
		kafkatest.Contains(t, f.Warnings(), "partitions of an output have no leader", "topic=raw.late")
	})
}

// What is only warned of takes no longer for many topics than for one.
func TestPreflightWarnsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(kfake.VirtualNetwork)
		cluster := start(t, network)
		f, adm := virtual(t, network)
		cfg := f.Config()
		cfg.Topics = nil
		for i := range 10 {
			topic := fmt.Sprint("many-", i)
			cfg.Topics = append(cfg.Topics, topic)
			for _, name := range []string{topic, cfg.OrderedTopic(topic), cfg.LateTopic(topic)} {
				if _, err := adm.CreateTopic(t.Context(), 1, 1, nil, name); err != nil {
					t.Fatal(err)
				}
			}
		}
		cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.NotLeaderForPartition, Count: -1})
		began := time.Now()
		topics, err := checkWith(t.Context(), adm, cfg, cfg.EventTime, fault.NewReporter(f.Logger()), new(Cluster))
		if took := time.Since(began); err != nil || len(topics) != 10 || took > 2*warnPatience {
			t.Errorf("%d topics, %v after %v", len(topics), err, took)
		}
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
				began, cfg := time.Now(), f.Config()
				_, err := checkWith(t.Context(), adm, cfg, cfg.EventTime, fault.NewReporter(f.Logger()), new(Cluster))
				switch took := time.Since(began); {
				case test.wait:
					if err != nil || took < mended {
						t.Errorf("%v after %v", err, took)
					}
					kafkatest.Contains(t, f.Warnings(), "not ready", test.reason)
				case err == nil || took > time.Second:
					t.Errorf("%v after %v", err, took)
				default:
					kafkatest.Contains(t, err.Error(), test.reason)
					if f, ok := err.(*fault.Fault); !ok || f.Code != 1 {
						t.Errorf("%v is no failure", err)
					}
				}
			})
		})
	}
}

// TestPreflightOnNewCluster: a new cluster has no coordinator until it has created the topics
// for it. That is no reason for a warning, unless it lasts.
func TestPreflightOnNewCluster(t *testing.T) {
	for _, test := range []struct {
		fault kfake.Fault
		lasts time.Duration
		warns bool
	}{
		{fault: kfake.Fault{Group: "g"}, lasts: 8 * time.Second},
		{fault: kfake.Fault{TxnID: "g/i"}, lasts: 8 * time.Second},
		{fault: kfake.Fault{Group: "g"}, lasts: 40 * time.Second, warns: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			network := new(kfake.VirtualNetwork)
			cluster := start(t, network)
			test.fault.Keys, test.fault.Err, test.fault.Count = []kmsg.Key{kmsg.FindCoordinator}, kerr.CoordinatorNotAvailable, -1
			time.AfterFunc(test.lasts, cluster.Fault(test.fault).Remove)
			f, adm := virtual(t, network)
			cfg := f.Config()
			if _, err := checkWith(t.Context(), adm, cfg, cfg.EventTime, fault.NewReporter(f.Logger()), new(Cluster)); err != nil {
				t.Fatal(err)
			}
			kafkatest.Contains(t, f.Log.String(), "level=INFO", "a new cluster creates the topics for it first", "COORDINATOR_NOT_AVAILABLE")
			if !test.warns {
				if told := f.Warnings(); told != "" {
					t.Errorf("warned: %s", told)
				}
				return
			}
			kafkatest.Contains(t, f.Warnings(), "the brokers are not ready; retrying", "__consumer_offsets", "offsets.topic.replication.factor")
		})
	}
}

// TestPreflightTellsWhyUnreachable: whoever has a wrong address is told which setting to look
// at, and what is there instead of a broker.
func TestPreflightTellsWhyUnreachable(t *testing.T) {
	for _, test := range []struct {
		name, says string // what listens there answers; empty: it hangs up
		at         string // an address where nothing listens
		want       []string
	}{
		{name: "no host", at: "kafka.invalid:9092", want: []string{"kafka.invalid", "TIDEMARK_BROKERS", "DNS"}},
		{name: "nothing there", at: "127.0.0.1:1", want: []string{"127.0.0.1:1", "nothing listens", "TIDEMARK_BROKERS"}},
		{name: "HTTP", says: "HTTP/1.1 400 Bad Request\r\n\r\n", want: []string{"HTTP server and no Kafka broker", "port in TIDEMARK_BROKERS"}},
		{name: "TLS", says: "\x15\x03\x03\x00\x02\x02\x46", want: []string{"set TIDEMARK_TLS=true"}},
		{name: "something else", says: "SSH-2.0-OpenSSH_9.6\r\n", want: []string{"no Kafka broker", "port in TIDEMARK_BROKERS"}},
		{name: "hung up", want: []string{"port in TIDEMARK_BROKERS", "TIDEMARK_TLS", "TIDEMARK_SASL_MECHANISM"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.at == "" {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				test.at = l.Addr().String()
				go answerAll(l, test.says)
			}
			f := &kafkatest.Fixture{T: t}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			cfg := f.Config("TIDEMARK_BROKERS=" + test.at)
			reporter := fault.NewReporter(slog.New(slog.NewTextHandler(told(func(line string) {
				if !strings.Contains(line, "not ready") {
					return
				}
				for _, want := range test.want {
					if !strings.Contains(line, want) {
						t.Errorf("%q does not say %q", line, want)
					}
				}
				cancel()
			}), nil)))
			_, err := checkWith(ctx, f.Client(cfg), cfg, cfg.EventTime, reporter, new(Cluster))
			if !errors.Is(err, context.Canceled) {
				t.Errorf("never told: %v", err)
			}
		})
	}
}

// answerAll answers the first bytes on each connection.
func answerAll(l net.Listener, says string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			if _, err := conn.Read(make([]byte, 1024)); err == nil {
				_, _ = conn.Write([]byte(says))
			}
		}()
	}
}

// told gets each line of a log.
type told func(line string)

func (f told) Write(line []byte) (int, error) { f(string(line)); return len(line), nil }
