// Package kafkatest provides what the tests of several packages need: a cluster, real or
// fake, an admin client, and checks of faults.
package kafkatest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// Fixture is a cluster to run a preflight on, and the log of that.
type Fixture struct {
	T       testing.TB
	Cluster *kfake.Cluster // nil: a real one
	Env     []string
	Admin   *kadm.Client // may do everything
	Log     Journal      // of the last run
}

// Journal is a log that may be read while it is written.
type Journal struct {
	mu    sync.Mutex
	lines bytes.Buffer
}

// Write implements io.Writer.
func (j *Journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lines.Write(line)
}

// Clear empties it.
func (j *Journal) Clear() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines.Reset()
}

// String returns what was written.
func (j *Journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lines.String()
}

// NewFake returns a fixture with a fake cluster. The user root is allowed everything.
func NewFake(t testing.TB, opts ...kfake.Opt) *Fixture {
	opts = append([]kfake.Opt{kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("PLAIN", "root", "root")}, opts...)
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	f := &Fixture{T: t, Cluster: cluster, Env: []string{"TIDEMARK_BROKERS=" + strings.Join(cluster.ListenAddrs(), ",")}}
	f.Login("root")
	f.Admin = f.Client(f.Config())
	return f
}

// NewAny returns a fixture with the cluster that TIDEMARK_TEST_BROKERS names, or a fake one.
func NewAny(t testing.TB) *Fixture {
	brokers := os.Getenv("TIDEMARK_TEST_BROKERS")
	if brokers == "" {
		return NewFake(t)
	}
	f := &Fixture{T: t, Env: []string{"TIDEMARK_BROKERS=" + brokers}}
	f.Admin = f.Client(f.Config())
	return f
}

// Login has the configuration log in as a user, whose password is its name.
func (f *Fixture) Login(user string) {
	f.Env = append(f.Env, "TIDEMARK_SASL_MECHANISM=PLAIN", "TIDEMARK_SASL_USERNAME="+user, "TIDEMARK_SASL_PASSWORD="+user)
}

// Config returns a configuration for the cluster.
func (f *Fixture) Config(env ...string) config.Config {
	f.T.Helper()
	cfg, err := config.Load(append(append([]string{"TIDEMARK_TOPICS=raw", "TIDEMARK_GROUP=g", "TIDEMARK_INSTANCE=i"}, f.Env...), env...))
	if err != nil {
		f.T.Fatal(err)
	}
	return cfg
}

// Client returns an admin client, which is closed when the test ends.
func (f *Fixture) Client(cfg config.Config, opts ...kgo.Opt) *kadm.Client {
	f.T.Helper()
	connection, err := cfg.ClientOpts(func(err error) { f.T.Error(err) })
	if err != nil {
		f.T.Fatal(err)
	}
	cl, err := kgo.NewClient(append(connection, opts...)...)
	if err != nil {
		f.T.Fatal(err)
	}
	f.T.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

// Topics returns topic names that no other run uses, and has them and their outputs deleted
// when the test ends.
func (f *Fixture) Topics(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("preflight-%d-%d", time.Now().UnixNano(), i)
	}
	f.T.Cleanup(func() {
		for _, name := range names {
			_, _ = f.Admin.DeleteTopics(context.Background(), name, name+".ordered", name+".late")
		}
	})
	return names
}

// Create makes a topic and waits until the brokers show it.
func (f *Fixture) Create(topic string, partitions int32, settings map[string]string) {
	f.T.Helper()
	values := map[string]*string{}
	for key, value := range settings {
		values[key] = &value
	}
	if _, err := f.Admin.CreateTopic(f.T.Context(), partitions, 1, values, topic); err != nil {
		f.T.Fatal(err)
	}
	for {
		details, err := f.Admin.ListTopics(kadm.WithAuthorizedOps(f.T.Context()), topic)
		if err == nil && len(details[topic].Partitions) == int(partitions) {
			return
		}
		if f.T.Context().Err() != nil {
			f.T.Fatal(err)
		}
	}
}

// Logger writes to Log.
func (f *Fixture) Logger() *slog.Logger { return slog.New(slog.NewTextHandler(&f.Log, nil)) }

// Warnings returns the logged warnings. None may be logged twice.
func (f *Fixture) Warnings() string {
	f.T.Helper()
	var lines []string
	for line := range strings.Lines(f.Log.String()) {
		if !strings.Contains(line, "level=WARN") || strings.Contains(line, "unencrypted") { // as it is here
			continue
		}
		if _, text, _ := strings.Cut(line, " "); strings.Contains(text, "topic=") && strings.Contains(strings.Join(lines, ""), text) {
			f.T.Errorf("told twice: %s", line)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "")
}

// Partitions returns how many partitions a topic has.
func (f *Fixture) Partitions(topic string) int {
	f.T.Helper()
	details, err := f.Admin.ListTopics(kadm.WithAuthorizedOps(f.T.Context()), topic)
	if err != nil {
		f.T.Fatal(err)
	}
	return len(details[topic].Partitions)
}

// Settings returns the settings of a topic.
func (f *Fixture) Settings(topic string) map[string]kadm.Config {
	f.T.Helper()
	found, err := f.Admin.DescribeTopicConfigs(f.T.Context(), topic)
	if err != nil {
		f.T.Fatal(err)
	}
	all := map[string]kadm.Config{}
	for _, c := range found[0].Configs {
		all[c.Key] = c
	}
	return all
}

// Contains checks that text has each of the parts.
func Contains(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("got\n%s\nwant in it\n%s", text, part)
		}
	}
}

// WantUsage checks that err is a Fault of setting up with each of the parts in its
// text or its hint.
func WantUsage(t testing.TB, err error, parts ...string) {
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
	Contains(t, text, parts...)
}

// Allow returns the permission of an operation on a resource.
func Allow(kind kmsg.ACLResourceType, name string, op kmsg.ACLOperation) kfake.ACL {
	return kfake.ACL{Resource: kind, Name: name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: op, Allow: true}
}

// Grant is a permission, and how its absence is reported.
type Grant struct {
	kfake.ACL
	Fault   []string // what the fault says
	Warning string   // if there is none, what the warning says
}

// Without returns the permissions of grants except for one; -1: all.
func Without(grants []Grant, without int) (acls []kfake.ACL) {
	for i, g := range grants {
		if i != without {
			acls = append(acls, g.ACL)
		}
	}
	return acls
}
