package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy"
	"github.com/tidemarkhq/tidemark/proxy/config"
)

// brokersVar names a real cluster; without it the program in Go runs on a fake
// one, and the others do not run.
const brokersVar = "TIDEMARK_TEST_BROKERS"

// stage is a source topic with what was written to it.
type stage struct {
	t       *testing.T
	brokers string
	topic   string
	cl      *kgo.Client
	adm     *kadm.Client
	rnd     *rand.Rand
	at      int64 // event time, ms, of the latest record
	written [partitions][]payment
}

// payment is a record: its value is its number, which is in the whole topic its own.
type payment struct {
	at int64 // event time, ms
	n  int
}

const (
	partitions = 2
	disorder   = 900 // ms that event times are behind at the most
)

func newStage(t *testing.T, name string) *stage {
	t.Helper()
	s := &stage{
		t: t, brokers: os.Getenv(brokersVar), rnd: rand.New(rand.NewPCG(7, 7)),
		topic: fmt.Sprintf("payments-%s-%x", name, rand.Uint32()),
		at:    time.Now().Add(-2 * time.Hour).UnixMilli(),
	}
	if s.brokers == "" {
		fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(fake.Close)
		s.brokers = strings.Join(fake.ListenAddrs(), ",")
	}
	var err error
	s.cl, err = kgo.NewClient(kgo.SeedBrokers(strings.Split(s.brokers, ",")...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.UnknownTopicRetries(50))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.cl.Close)
	s.adm = kadm.NewClient(s.cl)
	if _, err := s.adm.CreateTopic(t.Context(), partitions, -1, nil, s.topic); err != nil {
		t.Fatal(err)
	}
	return s
}

// write writes records whose event times are behind by up to 900 ms, a minute after
// those before: the clock may have moved the watermark meanwhile.
func (s *stage) write(records int) {
	s.t.Helper()
	s.at += 60_000
	var batch []*kgo.Record
	for range records {
		s.at += s.rnd.Int64N(100)
		n, p := s.count(), s.rnd.Int32N(partitions)
		at := s.at - s.rnd.Int64N(disorder)
		s.written[p] = append(s.written[p], payment{at, n})
		batch = append(batch, &kgo.Record{
			Topic: s.topic, Partition: p, Key: fmt.Appendf(nil, "card-%d-%d", p, n%5), Value: strconv.AppendInt(nil, int64(n), 10),
			Headers: []kgo.RecordHeader{{Key: "event-time", Value: strconv.AppendInt(nil, at, 10)}},
		})
	}
	if err := s.cl.ProduceSync(s.t.Context(), batch...).FirstErr(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) count() (n int) {
	for _, p := range s.written {
		n += len(p)
	}
	return n
}

// lines are what a consumer prints of a partition; the numbers of the payments are
// in the order of the topic, or of event time.
func (s *stage) lines(ordered bool) (lines [partitions][]string) {
	for p, written := range s.written {
		written = slices.Clone(written)
		if ordered {
			slices.SortStableFunc(written, func(a, b payment) int { return cmp.Compare(a.at, b.at) })
		}
		for _, w := range written {
			lines[p] = append(lines[p], fmt.Sprintf("%d card-%d-%d %d", p, p, w.n%5, w.n))
		}
	}
	return lines
}

// tidemark runs Tidemark until stop is called or the test ends.
func (s *stage) tidemark(env ...string) (stop func()) {
	s.t.Helper()
	cfg, err := config.Load(append([]string{
		"TIDEMARK_BROKERS=" + s.brokers, "TIDEMARK_TOPICS=" + s.topic, "TIDEMARK_GROUP=tidemark-" + s.topic, "TIDEMARK_INSTANCE=a",
		"TIDEMARK_MAX_OUT_OF_ORDERNESS=1s", "TIDEMARK_IDLE_TIMEOUT=1s", "TIDEMARK_SESSION_TIMEOUT=6s",
	}, env...))
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- proxy.Run(ctx, cfg, slog.New(slog.NewTextHandler(s.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})))
	}()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("tidemark: %v", err)
		}
	}
	s.t.Cleanup(stop)
	s.await("the outputs", func() bool {
		ends, err := s.adm.ListEndOffsets(s.t.Context(), cfg.OrderedTopic(s.topic), cfg.LateTopic(s.topic))
		return err == nil && ends.Error() == nil
	})
	return stop
}

func (s *stage) await(what string, ok func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(90 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("waited in vain for: %s", what)
		}
	}
}

// program is a consumer: it is started with brokers, group and topic, and prints
// to out until it is ended.
type program func(t *testing.T, out io.Writer, brokers, group, topic string) (end func())

func inGo(t *testing.T, out io.Writer, brokers, group, topic string) func() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- consume(ctx, out, brokers, group, topic) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the consumer has ended: %v", err)
		}
	}
}

// command runs a program in another process.
func command(t *testing.T, out io.Writer, name string, args ...string) func() {
	cmd := exec.Command(name, args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return func() {
		_ = cmd.Process.Kill()
		if err := <-ended; err != nil && !strings.Contains(err.Error(), "killed") {
			t.Errorf("the program has ended: %v\n%s", err, &said)
		}
	}
}

// inPython needs an interpreter that has the package confluent-kafka.
func inPython(t *testing.T, out io.Writer, brokers, group, topic string) func() {
	python := cmp.Or(os.Getenv("TIDEMARK_TEST_PYTHON"), "python3")
	if out, err := exec.Command(python, "-c", "import confluent_kafka").CombinedOutput(); err != nil {
		missing(t, fmt.Sprintf("%s with the package confluent-kafka (TIDEMARK_TEST_PYTHON names another): %v %s", python, err, out))
	}
	return command(t, out, python, "consumer.py", brokers, group, topic)
}

// inJava takes the client from the Kafka that bench/kafka has fetched.
func inJava(t *testing.T, out io.Writer, brokers, group, topic string) func() {
	if _, err := exec.LookPath("java"); err != nil {
		missing(t, "java")
	}
	return command(t, out, kafka, "tool", "Consumer.java", brokers, group, topic)
}

func inKcat(t *testing.T, out io.Writer, brokers, group, topic string) func() {
	if _, err := exec.LookPath("kcat"); err != nil {
		missing(t, "kcat")
	}
	return command(t, out, "kcat", "-q", "-u", "-b", brokers, "-X", "auto.offset.reset=earliest", "-f", `%p %k %s\n`, "-G", group, topic)
}

var kafka = filepath.Join("..", "..", "..", "bench", "kafka")

// missing skips the test, but not in CI, which has everything.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("missing: %s", what)
	}
	t.Skipf("missing: %s", what)
}

// printed reads what a consumer prints, n lines of it, partition by partition.
func (s *stage) printed(start program, group, topic string, n int) (lines [partitions][]string) {
	s.t.Helper()
	in, out := io.Pipe()
	end := start(s.t, out, s.brokers, group, topic)
	defer end()
	defer in.Close() // first, so that a program that still prints does not wait for a reader
	overdue := time.AfterFunc(90*time.Second, func() { out.CloseWithError(os.ErrDeadlineExceeded) })
	defer overdue.Stop()
	scan := bufio.NewScanner(in)
	for range n {
		if !scan.Scan() {
			s.t.Fatalf("%s: %v after %d and %d lines, of %d", topic, scan.Err(), len(lines[0]), len(lines[1]), n)
		}
		p, err := strconv.Atoi(strings.SplitN(scan.Text(), " ", 2)[0])
		if err != nil || p < 0 || p >= partitions {
			s.t.Fatalf("%s: printed %q", topic, scan.Text())
		}
		lines[p] = append(lines[p], scan.Text())
	}
	return lines
}

// TestKafkaConsumers runs one and the same program on the raw and on the ordered
// topic: from the one it gets what was written as it was written, from the other in
// order of event time.
func TestKafkaConsumers(t *testing.T) {
	for _, p := range []struct {
		name  string
		start program
	}{{"go", inGo}, {"python", inPython}, {"java", inJava}, {"kcat", inKcat}} {
		t.Run(p.name, func(t *testing.T) {
			if os.Getenv(brokersVar) == "" && p.name != "go" {
				t.Skip("needs a real Kafka: set " + brokersVar)
			}
			s := newStage(t, p.name)
			s.write(1000)
			s.tidemark()
			for topic, want := range map[string][partitions][]string{s.topic: s.lines(false), s.topic + ".ordered": s.lines(true)} {
				got := s.printed(p.start, "consumer-"+topic, topic, 1000)
				for n := range want {
					if !slices.Equal(got[n], want[n]) {
						t.Errorf("%s partition %d is not what it should be:\n%s", topic, n, strings.Join(got[n], "\n"))
					}
				}
			}
			if raw, ordered := s.lines(false), s.lines(true); slices.Equal(raw[0], ordered[0]) {
				t.Error("what was written is in order already")
			}
		})
	}
}
