package proxy

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The brokers' disk is full: a broker whose log cannot be written shuts itself
// down. When there is room again and it is started, the sidecar goes on as if
// nothing had been. The test mounts a small disk and runs a broker of its own.
func TestKafkaDiskFull(t *testing.T) {
	breaksBrokers(t)
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=256m"); err != nil {
		t.Skipf("cannot mount a disk to fill: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	dir := filepath.Join(disk, "kafka")
	address := ownKafka(t, dir, 1)

	onReal(t, address, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		base := time.Now().Add(-time.Hour)
		seconds := 0
		write := func() error {
			r := timed(topic, base, seconds, []byte("x"))
			err := c.cl.ProduceSync(c.ctx, r).FirstErr()
			if err == nil {
				seconds++
			}
			return err
		}
		for range 10 {
			c.wrote(write())
		}
		s := c.start(topic)
		c.awaitDrained(s)

		filler := filepath.Join(disk, "filler")
		fill(t, filler)
		full := time.Now()
		done := make(chan struct{})
		c.writers.Go(func() { // makes the broker notice, and waits for it to be back
			defer close(done)
			for range 2000 {
				c.wrote(write())
			}
		})
		c.await("the broker to give up", func() bool {
			conn, err := net.DialTimeout("tcp", strings.TrimSpace(address), time.Second)
			if err == nil {
				conn.Close()
			}
			return err != nil
		})
		s.lives()
		t.Logf("the broker gave up after %v", time.Since(full).Round(time.Second))
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		kafka(t, "restart", "--dir", dir, "--broker", "1")
		<-done
		c.awaitDrained(s)
		s.stop()
		if r := c.verify(s.cfg); r.Read < int64(seconds) || r.Buffered != 0 {
			t.Errorf("%d read, %d buffered, %d were written", r.Read, r.Buffered, seconds)
		}
	})
}

// fill writes a file until there is no room.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; size /= 2 {
		for zeros := make([]byte, size); err == nil; {
			_, err = f.Write(zeros)
		}
		err = nil
	}
}

// breaksBrokers skips what only a real cluster of its own can show, in a minute.
func breaksBrokers(t *testing.T) {
	t.Helper()
	if os.Getenv(brokersVar) == "" || testing.Short() {
		t.Skip("starts and breaks brokers of its own: needs " + brokersVar + " to be set, and no -short")
	}
}

// ownKafka starts a cluster that a test may break.
func ownKafka(t *testing.T, dir string, brokers int) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	listener.Close()
	address = kafka(t, "start", "--port", port, "--dir", dir, "--brokers", strconv.Itoa(brokers))
	t.Cleanup(func() { kafka(t, "stop", "--dir", dir) })
	return address
}

// kafka runs the script that runs a Kafka.
func kafka(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("../bench/kafka", args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("bench/kafka %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// A replica that was behind is elected: the end of the log is gone, and other
// records are written in its place. The sidecar says so with the numbers; told
// to go on, it takes what was written in place of the lost as what it is.
func TestKafkaUncleanElection(t *testing.T) {
	breaksBrokers(t)
	dir := filepath.Join(t.TempDir(), "kafka")
	address := ownKafka(t, dir, 3)
	onReal(t, address, func(t *testing.T, c *cluster) {
		topic := "raw" + c.run
		c.placed(topic, 1, 2)
		base := time.Now().Add(-time.Hour)
		write := func(ms int, value string) {
			c.produce(c.cl, record(topic, 0, base.UnixMilli()+int64(ms), value))
		}
		for i := range 10 {
			write(100*i, "both")
		}
		kafka(t, "kill", "--dir", dir, "--broker", "2")
		for i := range 10 {
			write(1000+100*i, "lost")
		}
		env := []string{noDrain, "TIDEMARK_MAX_OUT_OF_ORDERNESS=1500ms"}
		s := c.start(topic, env...)
		c.awaitRead(s)
		s.stop()
		snap := c.commits(s.cfg)[0]
		if snap.Next != 20 || snap.Low >= 10 {
			t.Fatalf("L=%d, H=%d", snap.Low, snap.Next)
		}
		kafka(t, "kill", "--dir", dir, "--broker", "1")
		kafka(t, "restart", "--dir", dir, "--broker", "2")
		c.await("an unclean leader", func() bool {
			_, err := c.adm.ElectLeaders(c.ctx, kadm.ElectLiveReplica, kadm.TopicsSet{topic: {0: {}}})
			listed, listErr := c.adm.ListEndOffsets(c.ctx, topic)
			end, _ := listed.Lookup(topic, 0)
			return err == nil && listErr == nil && end.Err == nil && end.Offset == 10
		})
		write(100, "late")     // at the offset of one that was read, and behind W
		write(1100, "instead") // above W
		for i := range 12 {    // so that the log is longer than it was
			write(2000+100*i, "more")
		}
		fault := c.start(topic, env...).fails()
		if fault.Code != 1 || !strings.Contains(fault.Advice, goOn) {
			t.Errorf("exit code %d: %v (hint: %s)", fault.Code, fault, fault.Advice)
		}
		t.Log(fault)
		again := c.start(topic, append(env, goOn)...)
		c.awaitRead(again)
		again.stop()
		values := func(topic string) (all []string) {
			for _, r := range c.contents(topic)[0] {
				all = append(all, string(r.Value))
			}
			return all
		}
		if late := values(topic + ".late"); len(late) != 1 || late[0] != "late" {
			t.Errorf("late: %v", late)
		}
		ordered := values(topic + ".ordered")
		count := map[string]int{}
		for _, v := range ordered {
			count[v]++
		}
		if count["both"] != 10 || count["lost"] != 0 || count["instead"] != 1 || count["more"] != 0 {
			t.Errorf("ordered: %v", ordered)
		}
	})
}

// placed creates a topic of one partition on these brokers, whose log may be
// lost, and its outputs.
func (c *cluster) placed(topic string, replicas ...int32) {
	c.t.Helper()
	one, unclean := "1", "true"
	req := kmsg.NewPtrCreateTopicsRequest()
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = topic, -1, -1
	assignment := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
	assignment.Replicas = replicas
	rt.ReplicaAssignment = append(rt.ReplicaAssignment, assignment)
	for key, value := range map[string]*string{"min.insync.replicas": &one, "unclean.leader.election.enable": &unclean} {
		config := kmsg.NewCreateTopicsRequestTopicConfig()
		config.Name, config.Value = key, value
		rt.Configs = append(rt.Configs, config)
	}
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(c.ctx, c.cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	for _, out := range []string{topic + ".ordered", topic + ".late"} {
		if _, err := c.adm.CreateTopic(c.ctx, 1, 3, nil, out); err != nil {
			c.t.Fatal(err)
		}
	}
}
