//go:build unix

package proxy

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2/client"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

// clusterVar names the directory of the cluster under test: what bench/kafka
// was given as --dir. Without it the brokers are beyond our reach.
const clusterVar = "TIDEMARK_TEST_CLUSTER_DIR"

// brokers are the processes of a cluster that bench/kafka has started.
type brokers struct {
	t    *testing.T
	dir  string
	port int
	n    int
	net  []*toxiproxy.Proxy // one before each broker, if the cluster has room for it
}

// brokers returns nil where they are beyond reach.
func (c *cluster) brokers() *brokers {
	dir := os.Getenv(clusterVar)
	if dir == "" {
		return nil
	}
	b := &brokers{t: c.t, dir: dir}
	b.port, b.n = b.number("port"), b.number("brokers")
	settings, err := os.ReadFile(filepath.Join(dir, "broker-1.properties"))
	if err != nil {
		c.t.Fatal(err)
	}
	if strings.Contains(string(settings), "PROXIED://") {
		b.connect()
	}
	return b
}

func (b *brokers) number(name string) int {
	text, err := os.ReadFile(filepath.Join(b.dir, name))
	if err != nil {
		b.t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// do has bench/kafka do something to a broker (1, 2, ...).
func (b *brokers) do(command string, broker int) {
	out, err := exec.Command("../bench/kafka", command, "--dir", b.dir, "--broker", strconv.Itoa(broker)).CombinedOutput()
	if err != nil {
		b.t.Errorf("bench/kafka %s --broker %d: %v\n%s", command, broker, err, out)
	}
}

// connect starts the network that can fail.
func (b *brokers) connect() {
	b.t.Helper()
	binary := filepath.Join(b.t.TempDir(), "toxiproxy")
	run(b.t, "go", "build", "-modfile=../.ci/tools/go.mod", "-o", binary, "github.com/Shopify/toxiproxy/v2/cmd/server")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	api := free.Addr().String()
	free.Close()
	_, port, _ := net.SplitHostPort(api)
	cmd := exec.Command(binary, "-host", "127.0.0.1", "-port", port)
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	client := toxiproxy.NewClient(api)
	for i := 1; i <= b.n; i++ {
		var p *toxiproxy.Proxy
		for range 100 {
			p, err = client.CreateProxy(strconv.Itoa(i), address(b.port+299+i), address(b.port+199+i))
			if err == nil {
				break
			}
			time.Sleep(50 * time.Millisecond) // it is starting
		}
		if err != nil {
			b.t.Fatal(err)
		}
		b.net = append(b.net, p)
	}
}

// seeds is what TIDEMARK_BROKERS of a sidecar is to be.
func (b *brokers) seeds() string {
	if b == nil || b.net == nil {
		return os.Getenv(brokersVar)
	}
	var list []string
	for i := 1; i <= b.n; i++ {
		list = append(list, address(b.port+299+i))
	}
	return strings.Join(list, ",")
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// coordinator returns the broker that coordinates a group or, else, a
// transactional id; 0 if nobody knows.
func (c *cluster) coordinator(key string, group bool) int {
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorType, req.CoordinatorKey = 1, key
	if group {
		req.CoordinatorType = 0
	}
	ctx, cancel := context.WithTimeout(c.ctx, 5*time.Second)
	defer cancel()
	resp, err := req.RequestWith(ctx, c.cl)
	if err != nil || len(resp.Coordinators) > 0 && resp.Coordinators[0].ErrorCode != 0 || resp.ErrorCode != 0 {
		return 0
	}
	if len(resp.Coordinators) > 0 {
		return int(resp.Coordinators[0].NodeID)
	}
	return int(resp.NodeID)
}

// moveLeaders gives some partitions of the source, the outputs and Kafka's own
// topics another order of replicas, and with it another leader.
func (c *cluster) moveLeaders(rnd *rand.Rand, cfg config.Config) {
	ctx, cancel := context.WithTimeout(c.ctx, 20*time.Second)
	defer cancel()
	source := cfg.Topics[0]
	topics := []string{source, cfg.OrderedTopic(source), cfg.LateTopic(source), "__consumer_offsets", "__transaction_state"}
	listed, err := c.adm.ListTopicsWithInternal(ctx, topics...)
	if err != nil {
		c.t.Logf("leaders stay where they are: %v", err)
		return
	}
	var moves kadm.AlterPartitionAssignmentsReq
	elect := kadm.TopicsSet{}
	for _, topic := range topics {
		for _, p := range listed[topic].Partitions.Sorted() {
			if rnd.IntN(2) == 0 {
				continue
			}
			replicas := slices.Clone(p.Replicas)
			rnd.Shuffle(len(replicas), func(i, j int) { replicas[i], replicas[j] = replicas[j], replicas[i] })
			moves.Assign(topic, p.Partition, replicas)
			elect.Add(topic, p.Partition)
		}
	}
	if _, err = c.adm.AlterPartitionAssignments(ctx, moves); err == nil {
		_, err = c.adm.ElectLeaders(ctx, kadm.ElectPreferredReplica, elect)
	}
	if err != nil {
		c.t.Logf("leaders were to move: %v", err)
	}
}
