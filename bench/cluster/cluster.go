// Package cluster starts the broker that is measured on, and makes its topics.
package cluster

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Cluster is one broker.
type Cluster struct {
	Addr string
	Kind string // "Kafka 4.1.1", "kfake" or "given"
	PID  int    // of the broker; 0: it is in this process, or not ours

	adm   *kadm.Client
	cl    *kgo.Client
	close func()
}

// Start starts a broker: "kafka" with the script bench/kafka, "kfake" in this
// process; anything else is the address of one that is there.
func Start(ctx context.Context, what, root string) (*Cluster, error) {
	c := &Cluster{Addr: what, Kind: "given", close: func() {}}
	var err error
	switch what {
	case "kafka":
		err = c.startKafka(ctx, root)
	case "kfake":
		err = c.startFake()
	}
	if err != nil {
		return nil, fmt.Errorf("start the broker: %w", err)
	}
	if c.cl, err = kgo.NewClient(kgo.SeedBrokers(c.Addr)); err == nil {
		c.adm = kadm.NewClient(c.cl)
		err = c.cl.Ping(ctx)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("reach the broker at %s: %w", c.Addr, err)
	}
	return c, nil
}

func (c *Cluster) startFake() error {
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		return err
	}
	c.Kind, c.Addr, c.close = "kfake", fake.ListenAddrs()[0], fake.Close
	return nil
}

func (c *Cluster) startKafka(ctx context.Context, root string) error {
	dir, err := os.MkdirTemp("", "bench-kafka-")
	if err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	script := filepath.Join(root, "bench", "kafka")
	var said bytes.Buffer
	start := exec.CommandContext(ctx, script, "start", "--port", strconv.Itoa(port), "--dir", dir)
	start.Stderr = &said
	addr, err := start.Output()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, said.Bytes())
	}
	c.Kind, c.Addr = "Kafka 4.1.1", strings.TrimSpace(string(addr))
	c.close = func() { _ = exec.Command(script, "stop", "--dir", dir).Run() }
	pid, err := os.ReadFile(filepath.Join(dir, "broker-1.pid"))
	if err == nil {
		c.PID, err = strconv.Atoi(strings.TrimSpace(string(pid)))
	}
	if err != nil {
		c.close()
	}
	return err
}

// freePort finds a port that is free together with the one a hundred above,
// which the controller takes.
func freePort() (int, error) {
	for port := 33000; port < 39000; port += 7 {
		if free(port) && free(port+100) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port from 33000 to 39000")
}

func free(port int) bool {
	l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err == nil {
		l.Close()
	}
	return err == nil
}

// Close stops the broker, if it was started here.
func (c *Cluster) Close() {
	if c.cl != nil {
		c.cl.Close()
	}
	c.close()
}

// Outputs are the names of the topics that come out of one.
func Outputs(topic string) []string { return []string{topic + ".ordered", topic + ".late"} }

// CreateTopics makes a source topic and its outputs. They do not expire:
// event times lie in the past.
func (c *Cluster) CreateTopics(ctx context.Context, topic string, partitions int32) error {
	forever := map[string]*string{"retention.ms": kadm.StringPtr("-1"), "max.message.bytes": kadm.StringPtr("2097152")}
	made, err := c.adm.CreateTopics(ctx, partitions, 1, forever, append(Outputs(topic), topic)...)
	if err == nil {
		err = made.Error()
	}
	if err != nil {
		return fmt.Errorf("create %s and its outputs: %w", topic, err)
	}
	return nil
}

// DeleteTopics removes a source topic, its outputs, and what a job made for
// itself under the name of its group.
func (c *Cluster) DeleteTopics(ctx context.Context, topic, group string) error {
	all, err := c.adm.ListTopics(ctx)
	if err != nil {
		return err
	}
	names := append(Outputs(topic), topic)
	for name := range all {
		if strings.HasPrefix(name, group+"-") {
			names = append(names, name)
		}
	}
	_, err = c.adm.DeleteTopics(ctx, names...)
	return err
}

// AwaitMember waits until the group has a member and returns when that was
// first seen: within a few milliseconds of its JoinGroup request.
func (c *Cluster) AwaitMember(ctx context.Context, group string) (time.Time, error) {
	return c.await(ctx, group, 2*time.Millisecond, func(g kadm.DescribedGroup) bool { return len(g.Members) > 0 })
}

// AwaitStable waits until the group's members have their partitions.
func (c *Cluster) AwaitStable(ctx context.Context, group string) (time.Time, error) {
	return c.await(ctx, group, 20*time.Millisecond, func(g kadm.DescribedGroup) bool { return g.State == "Stable" })
}

func (c *Cluster) await(ctx context.Context, group string, every time.Duration, is func(kadm.DescribedGroup) bool) (time.Time, error) {
	for {
		groups, err := c.adm.DescribeGroups(ctx, group)
		if err == nil && is(groups[group]) {
			return time.Now(), nil
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("wait for group %s: %w", group, context.Cause(ctx))
		}
	}
}
