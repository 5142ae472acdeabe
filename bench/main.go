// Command bench measures Tidemark beside the limit, which is a copy loop, and
// beside what else one would use. README.md says what is measured and how.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidemarkhq/tidemark/bench/cluster"
	"github.com/tidemarkhq/tidemark/bench/copyloop"
	"github.com/tidemarkhq/tidemark/bench/report"
	"github.com/tidemarkhq/tidemark/bench/suite"
	"github.com/tidemarkhq/tidemark/bench/workload"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// settings are the flags that measuring commands have in common.
type settings struct {
	broker, out string
	candidates  []string
	cases       []string
	parts       []string
	records     int
	rounds      int
	tries       int
	rate        int
	time        time.Duration
}

// What the comparison with others is made of, and what is of interest beyond.
var (
	peers = []string{
		"copy", "tidemark", "streams-memory", "streams-rocksdb", "flink-heap-1s", "flink-heap", "flink-rocksdb",
	}
	everybody = append([]string{"copy-split", "copy-alo", "tidemark-10ms", "tidemark-alo"}, peers...)
	paced     = []string{
		"tidemark", "tidemark-10ms", "tidemark-alo", "streams-memory", "streams-rocksdb", "flink-heap-1s", "flink-heap",
	}
	limit   = []string{"copy", "tidemark"}
	limited = []string{"copy", "copy-headers", "tidemark"}
)

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use: "bench", Short: "Measure Tidemark beside the limit and beside its peers",
		SilenceUsage: true, SilenceErrors: true,
	}
	cobra.EnableCommandSorting = false
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newAll(), newThroughput(), newLatency(), newScaling(), newCore(), newProfile(), newReport(), newSmoke(), newCopy(), newSidecar())
	return root
}

func (o *settings) flags(cmd *cobra.Command, candidates []string, rounds int) {
	f := cmd.Flags()
	f.StringVar(&o.broker, "broker", "kafka", "kafka: start one; kfake: the one in this process; or host:port")
	f.StringVar(&o.out, "out", "", "folder for the results (default bench/results)")
	f.StringSliceVar(&o.candidates, "candidates", candidates, "who is measured, of "+strings.Join(suite.Names(), ", "))
	f.IntVar(&o.rounds, "rounds", rounds, "runs of each candidate, in turns")
	f.IntVar(&o.tries, "tries", 4, "how often at the most to do a run that others disturb")
}

func (o *settings) sizes(cmd *cobra.Command) {
	cmd.Flags().IntVar(&o.records, "records", 0, "how many, in place of a case's own number")
}

func (o *settings) pacing(cmd *cobra.Command) {
	cmd.Flags().IntVar(&o.rate, "rate", 20_000, "records a second under a paced load")
	cmd.Flags().DurationVar(&o.time, "time", time.Minute, "how long to measure it, after 20 s of warming up")
}

// sized returns the cases with as many records as was told.
func (o *settings) sized(cases ...workload.Case) []workload.Case {
	cases = slices.Clone(cases)
	for i := range cases {
		if o.records > 0 {
			cases[i].Records = o.records
		}
	}
	return cases
}

func newAll() *cobra.Command {
	var o settings
	cmd := &cobra.Command{
		Use: "all", Short: "Everything, and the results page: about two hours on a quiet machine",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.with(cmd, func(ctx context.Context, s *suite.Suite) error { return all(ctx, s, &o) })
		},
	}
	o.flags(cmd, nil, 5)
	o.sizes(cmd)
	o.pacing(cmd)
	cmd.Flags().Lookup("candidates").Hidden = true
	cmd.Flags().StringSliceVar(&o.parts, "parts", nil, "only these, of limit, main, main-8M, latency, core, kfake, cases, partitions, buffer (default all)")
	return cmd
}

// all is what the results page is made of, the most important first.
func all(ctx context.Context, s *suite.Suite, o *settings) error {
	main, err := workload.Find("main")
	if err != nil {
		return err
	}
	long := main
	long.Records *= 4
	fake, err := cluster.Start(ctx, "kfake", s.Root)
	if err != nil {
		return err
	}
	defer fake.Close()
	real := s.Cluster
	throughput := func(name string, candidates []string, rounds int, cases ...workload.Case) func() error {
		return func() error {
			chosen, err := suite.Choose(candidates)
			if err != nil {
				return err
			}
			return s.Throughput(ctx, name, o.sized(cases...), chosen, rounds)
		}
	}
	for _, part := range []struct {
		name string
		run  func() error
	}{
		{"limit", throughput("limit", limited, o.rounds+2, main)},
		{"main", throughput("main", everybody, o.rounds, main)},
		{"main-8M", throughput("main-8M", peers, min(3, o.rounds), long)},
		{"latency", func() error {
			chosen, err := suite.Choose(paced)
			if err != nil {
				return err
			}
			return s.Latency(ctx, "latency", chosen, suite.Pacing{Rate: o.rate, Warm: warm, Measured: o.time}, min(3, o.rounds))
		}},
		{"core", func() error { return s.Core(ctx, o.rounds) }},
		{"kfake", func() error {
			s.Cluster = fake
			defer func() { s.Cluster = real }()
			return throughput("kfake", limited, o.rounds, main)()
		}},
		{"cases", throughput("cases", limit, min(3, o.rounds), workload.Cases...)},
		{"partitions", throughput("partitions", limit, min(3, o.rounds), partitions()...)},
		{"buffer", throughput("buffer", []string{"tidemark"}, min(3, o.rounds), buffers()...)},
	} {
		if len(o.parts) > 0 && !slices.Contains(o.parts, part.name) {
			continue
		}
		if err := part.run(); err != nil {
			return err
		}
	}
	return writeReport(o.out, s.Root)
}

// partitions are main's records in ever more partitions, and always as many of
// them held.
func partitions() []workload.Case {
	var cases []workload.Case
	for _, n := range []int32{1, 4, 64, 1000} {
		c, _ := workload.Find("main")
		c.Name, c.Partitions, c.Step = fmt.Sprintf("partitions-%d", n), n, time.Duration(n)*25*time.Microsecond
		cases = append(cases, c)
	}
	return cases
}

// buffers are main's records, ever more of them in the bound.
func buffers() []workload.Case {
	var cases []workload.Case
	for _, held := range []int{50_000, 200_000, 800_000, 1_600_000} {
		c, _ := workload.Find("main")
		c.Name = fmt.Sprintf("held-%d", held)
		c.Step = workload.Bound * time.Duration(c.Partitions) / time.Duration(held)
		c.Records = max(c.Records, 5*held/2)
		cases = append(cases, c)
	}
	return cases
}

const (
	// warm is what a virtual machine gets to compile, after the bound.
	warm = 15 * time.Second
	// warmUps are the most runs that a broker that has been started is given to
	// compile what it needs: for the first it takes three times as long.
	warmUps = 16
)

func newThroughput() *cobra.Command {
	var o settings
	cmd := &cobra.Command{
		Use: "throughput", Short: "How fast a filled topic is worked off",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.withChosen(cmd, func(ctx context.Context, s *suite.Suite, chosen []suite.Candidate) error {
				var cases []workload.Case
				for _, name := range o.cases {
					c, err := workload.Find(name)
					if err != nil {
						return err
					}
					cases = append(cases, c)
				}
				return s.Throughput(ctx, "throughput", o.sized(cases...), chosen, o.rounds)
			})
		},
	}
	o.flags(cmd, limit, 5)
	var names []string
	for _, c := range workload.Cases {
		names = append(names, c.Name)
	}
	cmd.Flags().StringSliceVar(&o.cases, "case", []string{"main"}, "workloads, of "+strings.Join(names, ", "))
	o.sizes(cmd)
	return cmd
}

func newLatency() *cobra.Command {
	var o settings
	cmd := &cobra.Command{
		Use: "latency", Short: "How long beyond the bound a record takes under a paced load",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.withChosen(cmd, func(ctx context.Context, s *suite.Suite, chosen []suite.Candidate) error {
				return s.Latency(ctx, "latency", chosen, suite.Pacing{Rate: o.rate, Warm: warm, Measured: o.time}, o.rounds)
			})
		},
	}
	o.flags(cmd, paced, 3)
	o.pacing(cmd)
	return cmd
}

func newScaling() *cobra.Command {
	var o settings
	cmd := &cobra.Command{
		Use: "scaling", Short: "Throughput and memory with more partitions, and with more held",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.withChosen(cmd, func(ctx context.Context, s *suite.Suite, chosen []suite.Candidate) error {
				if err := s.Throughput(ctx, "partitions", o.sized(partitions()...), chosen, o.rounds); err != nil {
					return err
				}
				return s.Throughput(ctx, "buffer", o.sized(buffers()...), chosen, o.rounds)
			})
		},
	}
	o.flags(cmd, limit, 3)
	o.sizes(cmd)
	return cmd
}

func newCore() *cobra.Command {
	var o settings
	cmd := &cobra.Command{
		Use: "core", Short: "What is done with a record, without a broker, beside container/heap",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.broker = "none"
			return o.with(cmd, func(ctx context.Context, s *suite.Suite) error { return s.Core(ctx, o.rounds) })
		},
	}
	cmd.Flags().StringVar(&o.out, "out", "", "folder for the results (default bench/results)")
	cmd.Flags().IntVar(&o.rounds, "rounds", 5, "runs of each benchmark")
	return cmd
}

func newProfile() *cobra.Command {
	var o settings
	var name, file string
	cmd := &cobra.Command{
		Use: "profile", Short: "Where Tidemark's processor time goes",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.with(cmd, func(ctx context.Context, s *suite.Suite) error {
				c, err := workload.Find(name)
				if err != nil {
					return err
				}
				return s.Profile(ctx, o.sized(c)[0], file)
			})
		},
	}
	cmd.Flags().StringVar(&o.broker, "broker", "kafka", "kafka, kfake, or host:port")
	cmd.Flags().StringVar(&name, "case", "main", "workload")
	cmd.Flags().StringVar(&file, "file", "cpu.prof", "where the profile is left")
	o.sizes(cmd)
	return cmd
}

func newReport() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "report", Short: "Make RESULTS.md and the plots from the results",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			root, err := findRoot()
			if err != nil {
				return err
			}
			return writeReport(out, root)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "folder of the results (default bench/results)")
	return cmd
}

func newSmoke() *cobra.Command {
	o := settings{}
	cmd := &cobra.Command{
		Use: "smoke", Short: "A little of everything that needs no Java: whether it works, not how fast",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.with(cmd, func(ctx context.Context, s *suite.Suite) error { return s.Smoke(ctx) })
		},
	}
	cmd.Flags().StringVar(&o.broker, "broker", "kfake", "kfake, kafka, or host:port")
	return cmd
}

// newCopy is the copy loop as a process of its own.
func newCopy() *cobra.Command {
	var o copyloop.Options
	cmd := &cobra.Command{
		Use: "copy", Short: "Be the copy loop", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return copyloop.Run(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.Broker, "broker", "", "host:port")
	f.StringVar(&o.Topic, "topic", "", "source")
	f.StringVar(&o.Group, "group", "", "consumer group")
	f.DurationVar(&o.Interval, "interval", 100*time.Millisecond, "between commits")
	f.StringVar(&o.Codec, "codec", "none", "compression of the outputs")
	f.BoolVar(&o.AtLeastOnce, "at-least-once", false, "without transactions")
	f.BoolVar(&o.Label, "label", false, "add two headers to each record, as long as Tidemark's")
	f.BoolVar(&o.Split, "split", false, "send what is late to the late topic")
	f.Int32Var(&o.PartitionSize, "partition-bytes", 1<<20, "most bytes fetched of a partition at a time")
	return cmd
}

// newSidecar is Tidemark under a profile, configured by environment.
func newSidecar() *cobra.Command {
	return &cobra.Command{
		Use: "sidecar", Short: "Be Tidemark, and write a profile", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return suite.Sidecar(cmd.Context()) },
	}
}

// withChosen runs something with a suite, its broker and the chosen candidates.
func (o *settings) withChosen(cmd *cobra.Command, run func(context.Context, *suite.Suite, []suite.Candidate) error) error {
	return o.with(cmd, func(ctx context.Context, s *suite.Suite) error {
		chosen, err := suite.Choose(o.candidates)
		if err != nil {
			return err
		}
		return run(ctx, s, chosen)
	})
}

// with runs something with a suite and its broker.
func (o *settings) with(cmd *cobra.Command, run func(context.Context, *suite.Suite) error) (err error) {
	ctx := cmd.Context()
	root, err := findRoot()
	if err != nil {
		return err
	}
	command := "bench/run " + strings.Join(os.Args[1:], " ")
	s, err := suite.New(ctx, root, orDefault(o.out, root), command, cmd.OutOrStdout())
	if err != nil {
		return err
	}
	defer s.Close()
	if s.Tries = 1; o.tries > 0 {
		s.Tries = o.tries
	}
	if o.broker == "kafka" {
		s.Warm = warmUps
	}
	if o.broker != "none" {
		if s.Cluster, err = cluster.Start(ctx, o.broker, root); err != nil {
			return err
		}
		defer s.Cluster.Close()
	}
	err = run(ctx, s)
	if ctx.Err() != nil {
		err = errors.New("stopped")
	}
	return err
}

// writeReport writes the page into bench/, or beside results that are elsewhere.
func writeReport(out, root string) error {
	bench := filepath.Join(root, "bench")
	to := out
	if to == "" {
		to = bench
	}
	return report.Write(orDefault(out, root), to, filepath.Join(bench, "causes.txt"))
}

func orDefault(out, root string) string {
	if out != "" {
		return out
	}
	return filepath.Join(root, "bench", "results")
}

// findRoot returns the repository that we were built in.
func findRoot() (string, error) {
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	dir := filepath.Dir(strings.TrimSpace(string(mod)))
	if filepath.Base(dir) != "bench" {
		return "", errors.New("run it as bench/run, in a checkout of the repository")
	}
	return filepath.Dir(dir), nil
}
