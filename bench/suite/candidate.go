// Package suite runs the candidates, one at a time, and writes down what they did.
package suite

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidemarkhq/tidemark/bench/check"
	"github.com/tidemarkhq/tidemark/bench/workload"
)

// Candidate is a program that is measured.
type Candidate struct {
	Name     string
	Why      string
	Interval time.Duration // between commits or checkpoints
	Rules    check.Rules
	Groups   bool // it joins a consumer group; what does not says "ready"
	Tidemark bool
	Peer     string // the folder of its Maven project

	command func(s *Suite, j job) *exec.Cmd
}

// job is what a candidate is told to do.
type job struct {
	topic, group, dir string
	partitions        int32
}

const commitInterval = 100 * time.Millisecond

// Candidates are all programs there are. The outputs are uncompressed, as they
// are by default with all but Tidemark.
var Candidates = []Candidate{
	copying("copy", "the limit: exactly once, no order", commitInterval, check.Rules{}),
	copying("copy-split", "the same, and what is late to the second topic", commitInterval, check.Rules{Splits: true}, "--split"),
	copying("copy-headers", "the same, with two headers more on each record, as many bytes as Tidemark adds", commitInterval, check.Rules{Labels: true}, "--label"),
	copying("copy-alo", "at least once, no order", commitInterval, check.Rules{Repeats: true}, "--at-least-once"),
	tidemark("tidemark", "exactly once", commitInterval, check.Rules{Orders: true}),
	tidemark("tidemark-10ms", "exactly once, commits ten times as often", commitInterval/10, check.Rules{Orders: true}),
	tidemark("tidemark-alo", "at least once", commitInterval, check.Rules{Orders: true, Repeats: true}, "TIDEMARK_DELIVERY=at-least-once"),
	streams("streams-memory", "Kafka Streams, store in memory", commitInterval, "memory"),
	streams("streams-rocksdb", "Kafka Streams, store in RocksDB", commitInterval, "rocksdb"),
	flink("flink-heap-1s", "Flink, state on the heap, a checkpoint every second", time.Second, "heap"),
	flink("flink-heap", "the same, ten checkpoints a second", commitInterval, "heap"),
	flink("flink-rocksdb", "Flink, state in RocksDB, a checkpoint every second", time.Second, "rocksdb"),
}

// Choose returns the candidates of these names, in the order of the names.
func Choose(names []string) ([]Candidate, error) {
	chosen := make([]Candidate, 0, len(names))
	for _, name := range names {
		i := slices.IndexFunc(Candidates, func(c Candidate) bool { return c.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("no candidate %q", name)
		}
		chosen = append(chosen, Candidates[i])
	}
	return chosen, nil
}

// Names returns the names of all candidates.
func Names() []string {
	var names []string
	for _, c := range Candidates {
		names = append(names, c.Name)
	}
	return names
}

// copying runs this program again, as the copy loop: to be measured, it has to
// be a process of its own.
func copying(name, why string, interval time.Duration, rules check.Rules, flags ...string) Candidate {
	return Candidate{
		Name: name, Why: why, Interval: interval, Rules: rules, Groups: true,
		command: func(s *Suite, j job) *exec.Cmd {
			args := append([]string{
				"copy", "--broker", s.Cluster.Addr, "--topic", j.topic, "--group", j.group, "--interval", interval.String(),
			}, flags...)
			return exec.Command(s.self, args...)
		},
	}
}

func tidemark(name, why string, interval time.Duration, rules check.Rules, env ...string) Candidate {
	return Candidate{
		Name: name, Why: why, Interval: interval, Rules: rules, Groups: true, Tidemark: true,
		command: func(s *Suite, j job) *exec.Cmd {
			cmd := exec.Command(s.tidemark)
			cmd.Env = append(s.tidemarkEnv(j), env...)
			cmd.Env = append(cmd.Env, "TIDEMARK_COMMIT_INTERVAL="+interval.String())
			return cmd
		},
	}
}

// tidemarkEnv leaves the defaults alone, but for idleness: the last record of
// a partition is to stay where it is, as it does with the others, so that the
// end of a run is the same for all.
func (s *Suite) tidemarkEnv(j job) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "TIDEMARK_") })
	return append(env,
		"TIDEMARK_BROKERS="+s.Cluster.Addr,
		"TIDEMARK_TOPICS="+j.topic,
		"TIDEMARK_GROUP="+j.group,
		"TIDEMARK_INSTANCE=bench",
		"TIDEMARK_MAX_OUT_OF_ORDERNESS="+workload.Bound.String(),
		"TIDEMARK_IDLE_TIMEOUT=0",
		"TIDEMARK_COMPRESSION=none",
	)
}

func streams(name, why string, interval time.Duration, store string) Candidate {
	return Candidate{
		Name: name, Why: why, Interval: interval, Rules: check.Rules{Orders: true}, Groups: true, Peer: "streams",
		command: func(s *Suite, j job) *exec.Cmd {
			return s.java("streams", s.Cluster.Addr, j.topic, j.group, store, millis(interval), j.dir)
		},
	}
}

func flink(name, why string, interval time.Duration, state string) Candidate {
	return Candidate{
		Name: name, Why: why, Interval: interval, Rules: check.Rules{Orders: true}, Peer: "flink",
		command: func(s *Suite, j job) *exec.Cmd {
			return s.java("flink", s.Cluster.Addr, j.topic, strconv.Itoa(int(j.partitions)), j.group, state, millis(interval), j.dir)
		},
	}
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// java runs a peer with a heap of 1 GiB and the collector for throughput.
func (s *Suite) java(peer string, args ...string) *exec.Cmd {
	target := filepath.Join(s.Root, "bench", "peers", peer, "target")
	options := []string{
		"-Xmx1g", "-XX:+UseParallelGC", "-Dbound=" + millis(workload.Bound),
		"-cp", filepath.Join(target, "classes") + ":" + filepath.Join(target, "libs", "*"), "Reorder",
	}
	java := "java"
	if home := os.Getenv("JAVA_HOME"); home != "" {
		java = filepath.Join(home, "bin", "java")
	}
	return exec.Command(java, append(options, args...)...)
}
