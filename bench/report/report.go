// Package report makes the results page and its plots.
package report

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tidemarkhq/tidemark/bench/suite"
	"github.com/tidemarkhq/tidemark/bench/workload"
)

// Write reads the results in a folder and writes RESULTS.md and plots/ into
// another. What has not been measured is left out. Why a target was missed
// stands in the file causes; what the profile says, in profile.md beside it.
func Write(results, to, causes string) error {
	all, err := suite.Load(results)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return fmt.Errorf("no results in %s", results)
	}
	// In the order in which they were measured: the most important first.
	slices.SortStableFunc(all, func(a, b *suite.Results) int { return a.Started.Compare(b.Started) })
	p := &page{causes: map[string]string{}, plots: filepath.Join(to, "plots")}
	for _, r := range all {
		p.add(r)
	}
	if err := p.readCauses(causes); err != nil {
		return err
	}
	if p.profile, err = os.ReadFile(filepath.Join(filepath.Dir(causes), "profile.md")); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := os.MkdirAll(p.plots, 0o755); err != nil {
		return err
	}
	if err := p.write(all); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(to, "RESULTS.md"), []byte(p.String()), 0o644)
}

// page is the results page in the making.
type page struct {
	strings.Builder
	plots  string            // folder
	causes map[string]string // by target: why it falls short

	profile []byte // in words

	suites    []string // in the order of the page
	runs      map[string]table[suite.Run]
	latencies table[suite.Latency]
	core      []suite.Core
	binary    int64     // the size of the one that was measured last,
	built     time.Time // then
}

// table holds the runs of each candidate that are valid, in the order in which
// the candidates first ran.
type table[T any] struct {
	names []string
	rows  map[string][]T
}

func (t *table[T]) add(name string, row T) {
	if t.rows == nil {
		t.rows = map[string][]T{}
	}
	if _, ok := t.rows[name]; !ok {
		t.names = append(t.names, name)
	}
	t.rows[name] = append(t.rows[name], row)
}

func (p *page) add(r *suite.Results) {
	if r.Binary > 0 && r.Started.After(p.built) {
		p.binary, p.built = r.Binary, r.Started
	}
	p.core = append(p.core, r.Core...)
	for _, l := range r.Latencies {
		if l.Holds() {
			p.latencies.add(l.Candidate, l)
		}
	}
	if p.runs == nil {
		p.runs = map[string]table[suite.Run]{}
	}
	for _, run := range r.Runs {
		name := r.Name
		if r.Name != run.Case {
			name += "/" + run.Case
		}
		t := p.runs[name]
		if run.Holds() {
			t.add(run.Candidate, run)
		}
		if !slices.Contains(p.suites, name) {
			p.suites = append(p.suites, name)
		}
		p.runs[name] = t
	}
}

// readCauses reads lines of "target: why it falls short", which people write.
func (p *page) readCauses(file string) error {
	b, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		if target, why, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, "#") {
			p.causes[strings.TrimSpace(target)] = strings.TrimSpace(why)
		}
	}
	return err
}

func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *page) write(all []*suite.Results) error {
	p.line("# Results")
	p.line("")
	p.line("Written by `bench/run report` from the files in `results/`. [README.md](README.md)")
	p.line("says what is measured and how.")
	p.line("")
	p.machines(all)
	p.targets()
	for _, section := range []func() error{p.throughput, p.latency, p.scaling, p.coreSection} {
		if err := section(); err != nil {
			return err
		}
	}
	if len(p.profile) > 0 {
		p.line("## Where the time goes")
		p.line("")
		p.line("%s", p.profile)
	}
	p.failures(all)
	return nil
}

func (p *page) machines(all []*suite.Results) {
	m := all[0].Machine
	p.line("Machine: %d processors (%s), %.0f GiB, %s. %s, %s, franz-go %s.", m.Processors, m.Processor,
		float64(m.Memory)/(1<<30), m.Kernel, m.Go, m.Java, m.Client)
	p.line("")
	p.line("| suite | commit | begun (UTC) | took | command |")
	p.line("|---|---|---|---|---|")
	for _, r := range all {
		took := time.Duration(r.Seconds * float64(time.Second)).Round(time.Second)
		p.line("| %s | %s | %s | %s | `%s` |", r.Name, r.Machine.Commit, r.Started.Format("2006-01-02 15:04"), took, r.Command)
		if r.Machine.Processor != m.Processor || r.Machine.Processors != m.Processors {
			p.line("\n**These suites ran on different machines: do not compare them.**\n")
		}
	}
	p.line("")
}

// median returns the middle of what f finds in the rows, and 0 of none.
func median[T any](rows []T, f func(T) float64) float64 {
	_, mid, _ := spread(rows, f)
	return mid
}

func spread[T any](rows []T, f func(T) float64) (low, mid, high float64) {
	if len(rows) == 0 {
		return 0, 0, 0
	}
	var all []float64
	for _, r := range rows {
		all = append(all, f(r))
	}
	slices.Sort(all)
	n := len(all)
	return all[0], (all[(n-1)/2] + all[n/2]) / 2, all[n-1]
}

func rate(r suite.Run) float64      { return r.Rate() }
func whole(r suite.Run) float64     { return r.Whole }
func peak(r suite.Run) float64      { return float64(r.Usage.Peak) / (1 << 20) }
func broker(r suite.Run) float64    { return r.BrokerCPU }
func compiling(r suite.Run) float64 { return r.Compiling }
func inSpan(r suite.Run) float64    { return r.Usage.CPU }
func joined(r suite.Run) float64    { return 1000 * r.Join }

func (p *page) throughput() error {
	p.line("## Throughput")
	p.line("")
	p.line("From the moment at which the input can be read to that at which the last output")
	p.line("can be, for a consumer of committed records. Medians, and the least and the most.")
	p.line("")
	for _, name := range p.suites {
		t := p.runs[name]
		if len(t.names) == 0 || strings.HasPrefix(name, "partitions/") || strings.HasPrefix(name, "buffer/") {
			continue
		}
		p.runTable(name, t)
	}
	t, ok := p.runs["main"]
	if !ok {
		return nil
	}
	if err := plotThroughput(p.picture("records a second", "throughput.svg"), t); err != nil {
		return err
	}
	if long, ok := p.runs["main-8M/main"]; ok {
		t = long
	}
	return plotMemory(p.picture("resident memory over time", "memory.svg"), t)
}

// picture puts a plot on the page and returns where it is to be drawn.
func (p *page) picture(title, file string) string {
	p.line("![%s](plots/%s)", title, file)
	p.line("")
	return filepath.Join(p.plots, file)
}

func (p *page) runTable(name string, t table[suite.Run]) {
	first := t.rows[t.names[0]][0]
	p.line("### %s", name)
	p.line("")
	if c, err := workload.Find(first.Case); err == nil {
		p.line("%s. ", strings.ToUpper(c.Why[:1])+c.Why[1:])
	}
	p.line("%d records, %d partitions, %s.", first.Records, first.Partitions, first.Broker)
	p.line("")
	p.line("| | records/s | least, most | CPU s | of it in the span | broker CPU s | of it compiling | peak RSS MiB | runs |")
	p.line("|---|---|---|---|---|---|---|---|---|")
	for _, n := range t.names {
		rows := t.rows[n]
		low, mid, high := spread(rows, rate)
		noise := ""
		if slices.ContainsFunc(rows, func(r suite.Run) bool { return r.Noisy }) {
			noise = ", NOISY"
		}
		p.line("| %s | **%s** | %s, %s | %.2f | %.2f | %.2f | %.2f | %.0f | %d%s |", n, thousands(mid), thousands(low), thousands(high),
			median(rows, whole), median(rows, inSpan), median(rows, broker), median(rows, compiling), median(rows, peak), len(rows), noise)
	}
	p.line("")
}

func thousands(f float64) string {
	s := fmt.Sprintf("%.0f", f)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// at returns the latency at a percentile.
func at(percentile float64) func(suite.Latency) float64 {
	i := slices.Index(suite.Percentiles, percentile)
	return func(l suite.Latency) float64 { return l.Ms[i] }
}

func (p *page) latency() error {
	t := p.latencies
	if len(t.names) == 0 {
		return nil
	}
	p.line("## Latency beyond the bound")
	p.line("")
	p.line("From the moment at which a record could be released to its arrival at a consumer")
	p.line("of committed records, in ms, at %s records a second. Medians of the runs.", thousands(float64(t.rows[t.names[0]][0].Rate)))
	p.line("")
	p.line("| | interval | P50 | P90 | P99 | P99.9 | max | cores | peak RSS MiB | runs |")
	p.line("|---|---|---|---|---|---|---|---|---|---|")
	for _, n := range t.names {
		rows := t.rows[n]
		noise := ""
		if slices.ContainsFunc(rows, func(l suite.Latency) bool { return l.Noisy }) {
			noise = ", NOISY"
		}
		p.line("| %s | %s | %.1f | %.1f | %.1f | %.1f | %.1f | %.2f | %.0f | %d%s |", n, rows[0].Interval,
			median(rows, at(50)), median(rows, at(90)), median(rows, at(99)), median(rows, at(99.9)), median(rows, at(100)),
			median(rows, func(l suite.Latency) float64 { return l.Cores }),
			median(rows, func(l suite.Latency) float64 { return float64(l.Usage.Peak) / (1 << 20) }), len(rows), noise)
	}
	p.line("")
	return plotLatency(p.picture("latency by percentile", "latency.svg"), t)
}

// within returns the tables of one suite, in order.
func (p *page) within(name string) []table[suite.Run] {
	var ts []table[suite.Run]
	for _, s := range p.suites {
		if strings.HasPrefix(s, name+"/") && len(p.runs[s].names) > 0 {
			ts = append(ts, p.runs[s])
		}
	}
	return ts
}

func (p *page) scaling() error {
	if ts := p.within("partitions"); len(ts) > 0 {
		p.line("## With more partitions")
		p.line("")
		p.line("The records of `main`, and always as many of them held.")
		p.line("")
		p.line("| | partitions | records/s | CPU s | peak RSS MiB | start to ready, s |")
		p.line("|---|---|---|---|---|---|")
		for _, t := range ts {
			for _, n := range t.names {
				rows := t.rows[n]
				p.line("| %s | %d | %s | %.2f | %.0f | %.1f |", n, rows[0].Partitions, thousands(median(rows, rate)),
					median(rows, whole), median(rows, peak), median(rows, func(r suite.Run) float64 { return r.Ready }))
			}
		}
		p.line("")
		if err := plotPartitions(p.picture("records a second by partitions", "partitions.svg"), ts); err != nil {
			return err
		}
	}
	ts := p.within("buffer")
	if len(ts) == 0 {
		return nil
	}
	p.line("## With more held")
	p.line("")
	p.line("| | records held | bytes held, MiB | records/s | CPU s | peak RSS MiB |")
	p.line("|---|---|---|---|---|---|")
	for _, t := range ts {
		for _, n := range t.names {
			rows := t.rows[n]
			p.line("| %s | %s | %.0f | %s | %.2f | %.0f |", n, thousands(float64(rows[0].HeldCount)), float64(rows[0].Held)/(1<<20),
				thousands(median(rows, rate)), median(rows, whole), median(rows, peak))
		}
	}
	p.line("")
	return plotBuffer(p.picture("resident memory by bytes held", "buffer.svg"), ts)
}

// coreRows groups the benchmarks of the core by name and number held.
func (p *page) coreRows() (names []string, helds []int, rows map[string]map[int][]suite.Core) {
	rows = map[string]map[int][]suite.Core{}
	for _, c := range p.core {
		if rows[c.Name] == nil {
			rows[c.Name] = map[int][]suite.Core{}
			names = append(names, c.Name)
		}
		if !slices.Contains(helds, c.Held) {
			helds = append(helds, c.Held)
		}
		rows[c.Name][c.Held] = append(rows[c.Name][c.Held], c)
	}
	slices.Sort(helds)
	return names, helds, rows
}

func nanos(c suite.Core) float64  { return c.Ns }
func allocs(c suite.Core) float64 { return c.Allocs }

func (p *page) coreSection() error {
	names, helds, rows := p.coreRows()
	if len(names) == 0 {
		return nil
	}
	p.line("## The core, without a broker")
	p.line("")
	p.line("| | held | ns a record | least, most | CPU ns a record, with the collector's | allocations a record |")
	p.line("|---|---|---|---|---|---|")
	for _, n := range names {
		for _, held := range helds {
			low, mid, high := spread(rows[n][held], nanos)
			p.line("| %s | %s | **%.0f** | %.0f, %.0f | %.0f | %.0f |", n, thousands(float64(held)), mid, low, high,
				median(rows[n][held], func(c suite.Core) float64 { return c.CPU }), median(rows[n][held], allocs))
		}
	}
	p.line("")
	return plotCore(p.picture("time a record by number held", "core.svg"), names, helds, rows)
}

// failures are shown, and count for nothing above.
func (p *page) failures(all []*suite.Results) {
	var lines []string
	for _, r := range all {
		for _, run := range r.Runs {
			if !run.Holds() {
				lines = append(lines, fmt.Sprintf("- %s, %s, round %d: %s", run.Case, run.Candidate, run.Round, why(run.Failed, run.Check.Faults)))
			}
		}
		for _, l := range r.Latencies {
			if !l.Holds() {
				lines = append(lines, fmt.Sprintf("- latency, %s, round %d: %s", l.Candidate, l.Round, why(l.Failed, l.Check.Faults)))
			}
		}
	}
	if len(lines) > 0 {
		p.line("## Runs that failed, and are in no table")
		p.line("")
		p.line("%s", strings.Join(lines, "\n"))
	}
}

func why(failed string, faults []string) string {
	first, _, _ := strings.Cut(strings.Join(append([]string{failed}, faults...), " "), "\n")
	return strings.TrimSpace(first)
}
