package proxy

import (
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

// Processes, killed. A source writes under load, one or two sidecars reorder
// it and are killed at random moments, now and then told to stop instead; a
// consumer of committed records looks on. Real Kafka only. The load is
// TIDEMARK_TEST_RECORDS, TIDEMARK_TEST_SEED the moments.
func TestKafkaKill9(t *testing.T) {
	if os.Getenv(brokersVar) == "" {
		t.Skip(brokersVar + " is not set: kill -9 needs processes, and they a real cluster")
	}
	onKafka(t, func(t *testing.T, c *cluster) {
		n := fromEnv(t, "TIDEMARK_TEST_RECORDS", 200_000)
		seed := uint64(fromEnv(t, "TIDEMARK_TEST_SEED", 1))
		w := workload{
			seed: seed, records: n, partitions: 4, step: 100 * time.Microsecond,
			transactions: true, chunk: 2000, pause: 80 * time.Millisecond,
		}
		topic := c.topic(w.partitions)
		binary := build(t)
		k := &killer{c: c, binary: binary, topic: topic, rnd: rand.New(rand.NewPCG(seed, 3)), running: map[string]*exec.Cmd{}}
		defer k.end()
		k.spawn("a")
		c.await("the first commit", func() bool { return len(c.commits(k.config())) > 0 })
		reader := c.lookOn(topic+".ordered", 0, 1, 2, 3)
		k.rage(c.writing(topic, &w))
		longest := reader.leave()
		k.finish()
		r := c.holds(k.config(), &w)
		t.Logf("%d records, %d kills, %d stops; longest standstill of a reader %v; %d ordered, late %v",
			n, k.kills, k.stops, longest.Round(time.Millisecond), r.Ordered, r.Late)
		// A killed instance is back within 3 s; one that is gone for good
		// costs the session timeout of 6 s, and a little.
		if longest > 10*time.Second {
			t.Errorf("a reader of committed records stood still for %v", longest)
		}
	})
}

// killer runs sidecars as processes and kills them.
type killer struct {
	c             *cluster
	binary, topic string
	rnd           *rand.Rand
	running       map[string]*exec.Cmd
	kills, stops  int
}

func (k *killer) config() config.Config { return k.c.config(k.topic) }

// rage kills until the source has been written. Instance a is always started
// again at once; b comes and goes.
func (k *killer) rage(written <-chan struct{}) {
	for {
		select {
		case <-written:
			return
		case <-time.After(200*time.Millisecond + time.Duration(k.rnd.Int64N(int64(1300*time.Millisecond)))):
		}
		switch pick := k.rnd.IntN(10); {
		case pick < 5:
			k.kill("a")
			k.spawn("a")
		case pick < 7:
			k.stop("a")
			k.spawn("a")
		case k.running["b"] == nil:
			k.spawn("b")
		case pick < 9:
			k.kill("b") // perhaps for good: a has to take over
		default:
			k.stop("b")
		}
	}
}

// finish lets a alone come to the end.
func (k *killer) finish() {
	k.c.t.Helper()
	k.end()
	k.spawn("a")
	k.c.await("all put out", func() bool { return k.c.drained(k.config()) })
	k.stop("a")
}

func (k *killer) spawn(name string) {
	k.c.t.Helper()
	cmd := exec.Command(k.binary)
	cmd.Env = k.c.env(k.topic, "TIDEMARK_INSTANCE="+name, "TIDEMARK_LOG_FORMAT=text")
	cmd.Stderr = k.c.t.Output()
	if err := cmd.Start(); err != nil {
		k.c.t.Fatal(err)
	}
	k.running[name] = cmd
}

func (k *killer) kill(name string) {
	k.kills++
	cmd := k.running[name]
	delete(k.running, name)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// stop stops a process politely.
func (k *killer) stop(name string) {
	k.c.t.Helper()
	k.stops++
	cmd := k.running[name]
	delete(k.running, name)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	var err error
	if took := since(func() { err = cmd.Wait() }); err != nil || took > 10*time.Second {
		k.c.t.Errorf("%s, told to stop, took %v and ended with %v", name, took, err)
	}
}

func (k *killer) end() {
	for name := range k.running {
		k.kill(name)
	}
}

// reader is a consumer of committed records that watches the clock.
type reader struct {
	cl      *kgo.Client
	longest time.Duration
	done    chan struct{}
}

func (c *cluster) lookOn(topic string, partitions ...int32) *reader {
	at := map[int32]kgo.Offset{}
	for _, n := range partitions {
		at[n] = kgo.NewOffset().AtStart()
	}
	r := &reader{done: make(chan struct{}), cl: c.client(kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: at}))}
	go r.read()
	return r
}

func (r *reader) read() {
	defer close(r.done)
	var last time.Time
	for {
		fetches := r.cl.PollFetches(context.Background())
		if fetches.IsClientClosed() {
			return
		}
		if fetches.NumRecords() == 0 {
			continue
		}
		if !last.IsZero() {
			r.longest = max(r.longest, time.Since(last))
		}
		last = time.Now()
	}
}

// leave ends the reader and returns the longest time without a record.
func (r *reader) leave() time.Duration {
	r.cl.Close()
	<-r.done
	return r.longest
}

// build builds the program.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "tidemark")
	if out, err := exec.Command("go", "build", "-o", binary, "../cmd/tidemark").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return binary
}

// fromEnv reads a number from the environment.
func fromEnv(t *testing.T, key string, otherwise int) int {
	t.Helper()
	text := os.Getenv(key)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return n
}
