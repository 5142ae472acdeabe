package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
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

// stage is a source topic, a Tidemark that tags it, and an output for sums.
type stage struct {
	t             *testing.T
	brokers       string
	topic, output string
	cl            *kgo.Client
	adm           *kadm.Client
	rnd           *rand.Rand
	at            int64 // event time, ms, of the record written last
	want          map[string]int64
	late          int64 // what was written with an event time far behind
}

const (
	family     = "hopping:1m/20s"
	partitions = 2
)

var inFamily = hopping{60_000, 20_000}

func newStage(t *testing.T, brokers, name string) *stage {
	t.Helper()
	s := &stage{
		t: t, brokers: brokers, rnd: rand.New(rand.NewPCG(6, 6)), want: map[string]int64{},
		topic: fmt.Sprintf("windows-%s-%x", name, rand.Uint32()),
		at:    time.Now().Add(-2 * time.Hour).Truncate(time.Hour).UnixMilli(),
	}
	s.output = s.topic + ".sums"
	var err error
	s.cl, err = kgo.NewClient(kgo.SeedBrokers(strings.Split(brokers, ",")...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.UnknownTopicRetries(50))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.cl.Close)
	s.adm = kadm.NewClient(s.cl)
	compact := "compact"
	if _, err := s.adm.CreateTopic(t.Context(), partitions, -1, nil, s.topic); err != nil {
		t.Fatal(err)
	}
	if _, err := s.adm.CreateTopic(t.Context(), 1, -1, map[string]*string{"cleanup.policy": &compact}, s.output); err != nil {
		t.Fatal(err)
	}
	s.await("the topics", func() bool {
		ends, err := s.adm.ListEndOffsets(t.Context(), s.topic, s.output)
		return err == nil && ends.Error() == nil
	})
	s.tidemark()
	return s
}

// tidemark runs Tidemark until the test ends, and waits for its outputs.
func (s *stage) tidemark() {
	cfg, err := config.Load([]string{
		"TIDEMARK_BROKERS=" + s.brokers, "TIDEMARK_TOPICS=" + s.topic, "TIDEMARK_GROUP=tidemark-" + s.topic, "TIDEMARK_INSTANCE=a",
		"TIDEMARK_MAX_OUT_OF_ORDERNESS=1s", "TIDEMARK_IDLE_TIMEOUT=1s", "TIDEMARK_SESSION_TIMEOUT=6s", "TIDEMARK_WINDOWS=" + family,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- proxy.Run(ctx, cfg, slog.New(slog.NewTextHandler(s.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})))
	}()
	s.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			s.t.Errorf("tidemark: %v", err)
		}
	})
	s.await("the outputs", func() bool {
		ends, err := s.adm.ListEndOffsets(s.t.Context(), s.topic+".ordered", s.topic+".late")
		return err == nil && ends.Error() == nil
	})
}

func (s *stage) await(what string, ok func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(90 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("waited in vain for: %s", what)
		}
	}
}

// write writes some minutes of event time, one record in thirty of them late, and
// keeps the sums that must come of it: a batch job over the source.
func (s *stage) write(n int) {
	s.t.Helper()
	var batch []*kgo.Record
	for range n {
		s.at += s.rnd.Int64N(400)
		at := s.at - s.rnd.Int64N(900)
		if s.rnd.IntN(30) == 0 {
			at -= 2000 + s.rnd.Int64N(100_000)
			s.late++
		}
		r := s.record(s.rnd.Int32N(partitions), at, fmt.Sprintf("card %d", s.rnd.IntN(5)), s.rnd.Int64N(100)-20)
		for _, w := range inFamily.of(at) {
			amount, _ := strconv.ParseInt(string(r.Value), 10, 64)
			s.want[row(r.Partition, 0, w, "", string(r.Key))] += amount
		}
		batch = append(batch, r)
		if s.rnd.IntN(100) == 0 { // nobody's time: no sum has these
			untimed := s.record(r.Partition, 0, "card 1", 1_000_000)
			untimed.Headers[0].Value = []byte("noon")
			batch = append(batch, untimed, s.record(r.Partition, time.Now().Add(24*time.Hour).UnixMilli(), "card 2", 1_000_000))
		}
	}
	s.produce(batch)
}

func (s *stage) record(partition int32, at int64, key string, amount int64) *kgo.Record {
	return &kgo.Record{
		Topic: s.topic, Partition: partition, Key: []byte(key), Value: strconv.AppendInt(nil, amount, 10),
		Headers: []kgo.RecordHeader{{Key: "event-time", Value: strconv.AppendInt(nil, at, 10)}},
	}
}

// end writes what closes all windows that are open.
func (s *stage) end() {
	s.t.Helper()
	var batch []*kgo.Record
	for n := range int32(partitions) {
		batch = append(batch, s.record(n, s.at+3_600_000, "end", 0))
	}
	s.produce(batch)
}

func (s *stage) produce(batch []*kgo.Record) {
	s.t.Helper()
	if err := s.cl.ProduceSync(s.t.Context(), batch...).FirstErr(); err != nil {
		s.t.Fatal(err)
	}
}

// written reads the output: of every row what was written, in this order.
func (s *stage) written() rows {
	s.t.Helper()
	ends, err := s.adm.ListEndOffsets(s.t.Context(), s.output)
	if err != nil {
		s.t.Fatal(err)
	}
	all, end := rows{}, int64(0)
	if o, ok := ends.Lookup(s.output, 0); ok {
		end = o.Offset
	}
	if end == 0 {
		return all
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(s.brokers, ",")...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{s.output: {0: kgo.NewOffset().AtStart()}}))
	if err != nil {
		s.t.Fatal(err)
	}
	defer cl.Close()
	for next := int64(0); next < end && s.t.Context().Err() == nil; {
		cl.PollFetches(s.t.Context()).EachRecord(func(r *kgo.Record) {
			sum, err := strconv.ParseInt(string(r.Value), 10, 64)
			if err != nil {
				s.t.Fatalf("%s: %q", r.Key, r.Value)
			}
			all.write(string(r.Key), sum)
			next = r.Offset + 1
		})
	}
	return all
}

// sums adds up the rows of each window and key, corrections to what they
// correct, and counts the corrections.
func (s *stage) sums(all rows) (sums map[string]int64, corrections int) {
	s.t.Helper()
	sums = map[string]int64{}
	for key, written := range all {
		for _, sum := range written {
			if sum != written[0] {
				s.t.Fatalf("row %q was written as %v", key, written)
			}
		}
		f := strings.SplitN(key, " ", 6) // partition, epoch, start, end, late, key
		if len(f) != 6 {
			s.t.Fatalf("row %q", key)
		}
		if f[4] != "-" {
			corrections++
		}
		sums[strings.Join(append(f[:4:4], "", f[5]), " ")] += written[0]
	}
	return sums, corrections
}

// whole reports whether all sums are there.
func (s *stage) whole(sums map[string]int64) bool {
	for key := range s.want {
		if _, ok := sums[key]; !ok {
			return false
		}
	}
	return true
}

// program is started with its arguments, and ends without any farewell by kill.
type program func(t *testing.T, args []string) (kill func())

// inGo runs the program in this process. What is left of it after kill finds all
// its connections closed.
func inGo(t *testing.T, args []string) func() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, args[0], args[1], args[2], args[3]) }()
	return func() {
		cancelled := len(ended) == 0
		cancel()
		if err := <-ended; err != nil && !cancelled {
			t.Errorf("the program has ended: %v", err)
		}
	}
}

// command runs a program in another process.
func command(name string, before ...string) program {
	return func(t *testing.T, args []string) func() {
		cmd := exec.Command(name, append(before, args...)...)
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
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
}

// inPython needs an interpreter that has the package confluent-kafka.
func inPython(t *testing.T, args []string) func() {
	python := os.Getenv("TIDEMARK_TEST_PYTHON")
	if python == "" {
		python = "python3"
	}
	if out, err := exec.Command(python, "-c", "import confluent_kafka").CombinedOutput(); err != nil {
		missing(t, fmt.Sprintf("%s with the package confluent-kafka (TIDEMARK_TEST_PYTHON names another): %v %s", python, err, out))
	}
	return command(python, "windows.py")(t, args)
}

// inJava takes the client from the Kafka that bench/kafka has fetched.
func inJava(t *testing.T, args []string) func() {
	if _, err := exec.LookPath("java"); err != nil {
		missing(t, "java")
	}
	return command(filepath.Join("..", "..", "..", "bench", "kafka"), "tool", "Windows.java")(t, args)
}

// missing skips the test, but not in CI, which has everything.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("missing: %s", what)
	}
	t.Skipf("missing: %s", what)
}

// TestKafkaWindows has each of the programs killed while it works, and compares
// what all its lives have written with a batch job.
func TestKafkaWindows(t *testing.T) {
	for _, p := range []struct {
		name  string
		start program
	}{{"go", inGo}, {"python", inPython}, {"java", inJava}} {
		t.Run(p.name, func(t *testing.T) {
			brokers := os.Getenv(brokersVar)
			if brokers == "" && p.name != "go" {
				t.Skip("needs a real Kafka: set " + brokersVar)
			}
			if brokers == "" {
				fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(fake.Close)
				brokers = strings.Join(fake.ListenAddrs(), ",")
			}
			sumsAreThose(t, newStage(t, brokers, p.name), p.start)
		})
	}
}

func sumsAreThose(t *testing.T, s *stage, start program) {
	args := []string{s.brokers, s.topic, family, s.output}
	for range 3 {
		enough := len(s.written()) + 1 + s.rnd.IntN(20)
		s.write(1000)
		kill := start(t, args)
		s.await("something to be written", func() bool { return len(s.written()) >= enough })
		kill()
	}
	s.write(1000)
	s.end()
	kill := start(t, args)
	defer kill()
	var sums map[string]int64
	var corrections int
	s.await("all windows to be written", func() bool {
		sums, corrections = s.sums(s.written())
		return s.whole(sums) && corrections >= int(s.late)
	})
	late := s.lateRecords()
	s.await("all corrections", func() bool {
		sums, corrections = s.sums(s.written())
		return corrections == late*3
	})
	for key, sum := range sums {
		if strings.HasSuffix(key, " end") {
			continue
		}
		if want, ok := s.want[key]; sum != want || !ok {
			t.Errorf("%q is %d, want %d", key, sum, want)
		}
	}
	t.Logf("%d sums of %d windows and keys, with %d corrections for %d late records", len(sums), len(s.want), corrections, late)
}

// lateRecords counts what came too late; each is in three windows.
func (s *stage) lateRecords() (n int) {
	s.t.Helper()
	ends, err := s.adm.ListCommittedOffsets(s.t.Context(), s.topic+".late")
	if err != nil {
		s.t.Fatal(err)
	}
	at, left := map[int32]kgo.Offset{}, 0
	ends.Each(func(end kadm.ListedOffset) {
		if end.Offset > 0 {
			at[end.Partition] = kgo.NewOffset().AtStart()
			left++
		}
	})
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(s.brokers, ",")...), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{s.topic + ".late": at}))
	if err != nil {
		s.t.Fatal(err)
	}
	defer cl.Close()
	for left > 0 && s.t.Context().Err() == nil {
		cl.PollFetches(s.t.Context()).EachRecord(func(r *kgo.Record) {
			if reason, _ := header(r, "tidemark-late-reason"); reason == "behind-watermark" {
				n++
			}
			if end, _ := ends.Lookup(r.Topic, r.Partition); r.Offset == end.Offset-1 {
				left--
			}
		})
	}
	return n
}
