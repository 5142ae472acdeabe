package suite

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/procfs"

	"github.com/tidemarkhq/tidemark/bench/check"
	"github.com/tidemarkhq/tidemark/bench/measure"
)

// Results are those of one suite: what is written to results/NAME.json.
type Results struct {
	Name    string    `json:"name"`
	Command string    `json:"command"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	Machine Machine   `json:"machine"`

	Runs      []Run     `json:"runs,omitempty"`
	Latencies []Latency `json:"latencies,omitempty"`
	Core      []Core    `json:"core,omitempty"`
	Binary    int64     `json:"binary,omitempty"` // bytes
}

// Machine is where and of what the results are.
type Machine struct {
	Processor  string `json:"processor"`
	Processors int    `json:"processors"`
	Memory     uint64 `json:"memory"` // bytes
	Kernel     string `json:"kernel"`
	Go         string `json:"go"`
	Java       string `json:"java,omitempty"`
	Client     string `json:"client"` // version of franz-go
	Commit     string `json:"commit"`
}

// Run is one candidate working off one filled topic.
type Run struct {
	Case       string  `json:"case"`
	Candidate  string  `json:"candidate"`
	Round      int     `json:"round"`
	Broker     string  `json:"broker"`
	Records    int64   `json:"records"`
	Partitions int32   `json:"partitions"`
	Held       int64   `json:"held_bytes"` // of records held at a time, as bound and workload have it
	HeldCount  int64   `json:"held_records"`
	Seconds    float64 `json:"seconds"` // first input available to last output committed
	Join       float64 `json:"join"`    // s from start to membership of the group; 0 if there is none
	Ready      float64 `json:"ready"`   // s from start to having the partitions
	Whole      float64 `json:"whole"`   // CPU s from start to end of the process
	BrokerCPU  float64 `json:"broker_cpu"`
	Compiling  float64 `json:"broker_compiling"` // s of it that went into compiling
	Foreign    float64 `json:"foreign"`          // share of the machine that others used meanwhile
	Noisy      bool    `json:"noisy"`

	Usage  measure.Usage `json:"usage"`
	Check  check.Result  `json:"check"`
	Verify string        `json:"verify,omitempty"` // what `tidemark verify` said
	Failed string        `json:"failed,omitempty"`
}

// Holds reports whether the run came to its end and its outputs are right.
func (r Run) Holds() bool { return r.Failed == "" && len(r.Check.Faults) == 0 }

// Rate is in records a second.
func (r Run) Rate() float64 { return float64(r.Records) / r.Seconds }

// Latency is one candidate under a paced load.
type Latency struct {
	Candidate string        `json:"candidate"`
	Round     int           `json:"round"`
	Broker    string        `json:"broker"`
	Interval  time.Duration `json:"interval"`
	Rate      int           `json:"rate"`
	Count     int64         `json:"count"` // records that were measured

	// Ms holds the latency beyond the bound, in ms, at each of Percentiles.
	Ms      []float64     `json:"ms"`
	Cores   float64       `json:"cores"`
	Foreign float64       `json:"foreign"`
	Noisy   bool          `json:"noisy"`
	Usage   measure.Usage `json:"usage"`
	Check   check.Result  `json:"check"`
	Failed  string        `json:"failed,omitempty"`
}

// Holds reports whether the run came to its end and its outputs are right.
func (l Latency) Holds() bool { return l.Failed == "" && len(l.Check.Faults) == 0 }

// Percentiles are those that are kept of a latency, the maximum last.
var Percentiles = []float64{0, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.99, 100}

// Core is one benchmark of the core, without a broker.
type Core struct {
	Name   string  `json:"name"`
	Held   int     `json:"held"`
	Ns     float64 `json:"ns"`  // a record
	CPU    float64 `json:"cpu"` // ns of all processors, the collector's with it
	Allocs float64 `json:"allocs"`
}

// thisMachine describes where we are. What cannot be found out stays empty.
func thisMachine(root string) Machine {
	m := Machine{Processors: runtime.NumCPU(), Go: runtime.Version()}
	if fs, err := procfs.NewDefaultFS(); err == nil {
		if cpus, err := fs.CPUInfo(); err == nil && len(cpus) > 0 {
			m.Processor = cpus[0].ModelName
		}
		if mem, err := fs.Meminfo(); err == nil && mem.MemTotalBytes != nil {
			m.Memory = *mem.MemTotalBytes
		}
	}
	m.Kernel = said(root, "uname", "-sr")
	m.Commit = said(root, "git", "rev-parse", "--short=12", "HEAD")
	// Earlier results may be in the repository, and are being written anew.
	if said(root, "git", "status", "--porcelain", "--untracked-files=no", "--",
		".", ":!bench/results", ":!bench/plots", ":!bench/RESULTS.md") != "" {
		m.Commit += " and changes"
	}
	m.Java, _, _ = strings.Cut(said(root, "java", "--version"), "\n")
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range build.Deps {
			if dep.Path == "github.com/twmb/franz-go" {
				m.Client = dep.Version
			}
		}
	}
	return m
}

func said(dir, name string, args ...string) string {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, _ := cmd.Output()
	return strings.TrimSpace(string(out))
}

// save writes the results; a suite that is broken off leaves what it has.
func (s *Suite) save(r *Results) error {
	r.Seconds = time.Since(r.Started).Seconds()
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.Out, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.Out, r.Name+".json"), compact(b), 0o644)
}

// compact puts each sample on one line, for there are many.
func compact(b []byte) []byte {
	return samples.ReplaceAllFunc(b, func(m []byte) []byte { return spaces.ReplaceAll(m, nil) })
}

// Load reads all results in a folder.
func Load(dir string) ([]*Results, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var all []*Results
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		r := new(Results)
		if err := json.Unmarshal(b, r); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, r)
	}
	return all, nil
}
