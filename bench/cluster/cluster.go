// Package cluster starts the broker that is measured on, and makes its topics.
package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	// What is cached of a topic that has just been made is wrong for the 5 s for
	// which the client would keep it.
	if c.cl, err = kgo.NewClient(kgo.SeedBrokers(c.Addr), kgo.MetadataMinAge(20*time.Millisecond)); err == nil {
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
		os.RemoveAll(dir)
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
	for range 100 { // at random: another may be looking at the same time
		if port := 33000 + rand.IntN(6000); free(port) && free(port+100) {
			return port, nil
		}
	}
	return 0, errors.New("no free port from 33000 to 39000")
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

// CreateTopics makes a source topic and its outputs. They do not expire, for
// event times lie in the past, and the outputs have the room for headers that
// Tidemark would give them.
func (c *Cluster) CreateTopics(ctx context.Context, topic string, partitions int32) error {
	const limit, headers = 1048588, 1024 // the broker's default
	source := map[string]*string{"retention.ms": kadm.StringPtr("-1")}
	output := map[string]*string{"max.message.bytes": kadm.StringPtr(strconv.Itoa(limit + headers))}
	maps.Copy(output, source)
	for _, t := range []struct {
		config map[string]*string
		names  []string
	}{{source, []string{topic}}, {output, Outputs(topic)}} {
		made, err := c.adm.CreateTopics(ctx, partitions, 1, t.config, t.names...)
		if err == nil {
			err = made.Error()
		}
		if err != nil {
			return fmt.Errorf("create %s: %w", t.names[0], err)
		}
	}
	return c.until(ctx, 20*time.Millisecond, func() bool { // the broker takes its time with hundreds of partitions
		ends, err := c.adm.ListEndOffsets(ctx, append(Outputs(topic), topic)...)
		n := 0
		ends.Each(func(kadm.ListedOffset) { n++ })
		return err == nil && ends.Error() == nil && n == 3*int(partitions)
	})
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
	if _, err := c.adm.DeleteTopics(ctx, names...); err != nil {
		return err
	}
	return c.until(ctx, 20*time.Millisecond, func() bool { // what is left to do would disturb the next run
		left, err := c.adm.ListTopics(ctx, names...)
		return err == nil && !slices.ContainsFunc(names, func(name string) bool { return left[name].Err == nil })
	})
}

// AwaitMember waits until the group has a member and returns when that was
// first seen: within a few milliseconds of its JoinGroup request.
func (c *Cluster) AwaitMember(ctx context.Context, group string) (time.Time, error) {
	err := c.until(ctx, 2*time.Millisecond, func() bool {
		groups, err := c.adm.DescribeGroups(ctx, group)
		return err == nil && len(groups[group].Members) > 0
	})
	return time.Now(), err
}

// AwaitStable waits until the group's members have their partitions.
func (c *Cluster) AwaitStable(ctx context.Context, group string) error {
	return c.until(ctx, 20*time.Millisecond, func() bool {
		groups, err := c.adm.DescribeGroups(ctx, group)
		return err == nil && groups[group].State == "Stable"
	})
}

// AwaitCommits waits until the group has committed an offset of every
// partition of a topic.
func (c *Cluster) AwaitCommits(ctx context.Context, group, topic string, partitions int32) error {
	return c.until(ctx, 20*time.Millisecond, func() bool {
		commits, err := c.adm.FetchOffsets(ctx, group)
		return err == nil && len(commits[topic]) == int(partitions)
	})
}

// until asks again and again whether something has come about.
func (c *Cluster) until(ctx context.Context, every time.Duration, is func() bool) error {
	for !is() {
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
