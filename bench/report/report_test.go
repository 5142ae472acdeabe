package report

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidemarkhq/tidemark/bench/check"
	"github.com/tidemarkhq/tidemark/bench/measure"
	"github.com/tidemarkhq/tidemark/bench/suite"
)

// TestWrite: medians, verdicts and causes end up on the page, and what failed
// counts for nothing.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	main := suite.Results{Name: "main", Binary: 15e6}
	for round, seconds := range []float64{1, 2, 4} {
		for _, c := range []struct {
			name   string
			factor float64
		}{{"copy", 1}, {"tidemark", 2}, {"streams-memory", 9}, {"flink-heap", 16}} {
			main.Runs = append(main.Runs, suite.Run{
				Case: "main", Candidate: c.name, Round: round, Records: 1_000_000, Seconds: seconds * c.factor, Whole: c.factor, Join: 0.1,
				Usage: measure.Usage{Peak: 100 << 20, Samples: []measure.Sample{{Ms: 100, RSS: 50 << 20}, {Ms: 200, RSS: 60 << 20}}},
			})
		}
	}
	main.Runs = append(main.Runs, suite.Run{Case: "main", Candidate: "tidemark", Records: 1_000_000, Seconds: 0.001, Check: check.Result{Faults: []string{"1 lost"}}})
	latency := suite.Results{Name: "latency"}
	core := suite.Results{Name: "core", Core: []suite.Core{
		{Name: "tidemark", Held: 50_000, Ns: 100},
		{Name: "tidemark", Held: 5_000_000, Ns: 300},
		{Name: "heap", Held: 50_000, Ns: 1100},
		{Name: "heap", Held: 5_000_000, Ns: 2000},
	}}
	var ms []float64
	for range suite.Percentiles {
		ms = append(ms, float64(10+len(ms)))
	}
	for _, name := range []string{"tidemark", "streams-memory"} {
		latency.Latencies = append(latency.Latencies, suite.Latency{Candidate: name, Interval: 1e8, Rate: 20_000, Ms: ms})
	}
	for _, r := range []suite.Results{main, latency, core} {
		b, err := json.Marshal(r)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, r.Name+".json"), b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	causes := filepath.Join(dir, "causes.txt")
	if err := os.WriteFile(causes, []byte("# none\nthroughput: order costs memory\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, dir, causes); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "RESULTS.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| copy | **500,000** | 250,000, 1,000,000 |",
		"| throughput, of the exactly-once copy loop's, Kafka | ≥ 0.85 | 0.50 | **short** |",
		"falls short: order costs memory",
		"| throughput, of the better peer's, 2 M records | ≥ 4 times | 4.5 times | pass |",
		"| the core, times as fast as container/heap, 50,000 held | ≥ 10 times | 11 times | pass |",
		"| the core, times as fast as container/heap, 5,000,000 held | ≥ 10 times | 6.7 times | **short** |",
		"not explained yet",
		"- main, tidemark, round 0: 1 lost",
	} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", page)
	}
	for _, plot := range []string{"throughput", "memory", "latency", "core"} {
		if info, err := os.Stat(filepath.Join(dir, "plots", plot+".svg")); err != nil || info.Size() > 100_000 {
			t.Errorf("plot %s: %v, %v", plot, info, err)
		}
	}
}
