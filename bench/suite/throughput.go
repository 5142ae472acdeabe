package suite

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tidemarkhq/tidemark/bench/check"
	"github.com/tidemarkhq/tidemark/bench/cluster"
	"github.com/tidemarkhq/tidemark/bench/measure"
	"github.com/tidemarkhq/tidemark/bench/workload"
)

var (
	samples = regexp.MustCompile(`(?s)\{\s*"ms": [^}]*\}`)
	spaces  = regexp.MustCompile(`\s+`)
)

// Throughput has each candidate work off each case, rounds times, in turns: a
// machine that becomes slower or faster meanwhile does so for all.
func (s *Suite) Throughput(ctx context.Context, name string, cases []workload.Case, candidates []Candidate, rounds int) error {
	if err := s.Build(ctx, candidates); err != nil {
		return err
	}
	r := s.results(name)
	if err := s.warmUp(ctx, cases[0], candidates); err != nil {
		return err
	}
	for _, c := range cases {
		for round := range rounds {
			for _, candidate := range candidates {
				err := s.quietly(func() (float64, error) {
					run, err := s.throughput(ctx, c, candidate, uint64(round+1))
					if err != nil {
						return 0, err
					}
					run.Round = round + 1
					s.logf("%s", run.line())
					r.Runs = keepQuiet(r.Runs, run)
					return run.Foreign, s.save(r)
				})
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// A broker is warm when it compiles for less than so long in each of so many
// runs in a row: no two candidates ask the same of it, and what it does not know
// it compiles while they are measured, on the same processors.
const (
	warmCompiling = 0.1 // s
	warmRuns      = 4
)

// warmUp has the candidates take turns until the broker is warm. The peers, whose
// own virtual machines take longer to start than the rest takes, do so only among
// themselves.
func (s *Suite) warmUp(ctx context.Context, c workload.Case, candidates []Candidate) error {
	quick := slices.DeleteFunc(slices.Clone(candidates), func(c Candidate) bool { return c.Peer != "" })
	if len(quick) == 0 {
		quick = candidates
	}
	most := s.Warm
	s.Warm = 0 // once is enough
	for n, calm := 0, 0; n < most && calm < max(warmRuns, len(quick)); n++ {
		run, err := s.throughput(ctx, c, quick[n%len(quick)], 0)
		if err != nil {
			return err
		}
		s.logf("warming up: %s, broker compiling %.2f s", run.line(), run.Compiling)
		if calm++; run.Compiling > warmCompiling {
			calm = 0
		}
	}
	return nil
}

// keepQuiet adds a run in the place of an earlier, noisier try at it. A run
// that failed stays.
func keepQuiet(runs []Run, run Run) []Run {
	if n := len(runs); n > 0 {
		last := runs[n-1]
		same := last.Case == run.Case && last.Candidate == run.Candidate && last.Round == run.Round
		if same && last.Holds() {
			if run.Foreign < last.Foreign || !run.Holds() {
				runs[n-1] = run
			}
			return runs
		}
	}
	return append(runs, run)
}

func (r Run) line() string {
	at := fmt.Sprintf("%s %-16s round %d", r.Case, r.Candidate, r.Round)
	if r.Failed != "" {
		return at + ": FAILED: " + r.Failed
	}
	return fmt.Sprintf("%s: %.0f records/s, CPU %.2f s (%.2f s in all), peak %d MiB, joined after %.0f ms and ready after %.1f s, others %.0f %%, %s",
		at, r.Rate(), r.Usage.CPU, r.Whole, r.Usage.Peak>>20, 1000*r.Join, r.Ready, 100*r.Foreign, r.Check.String())
}

// throughput is one run. What goes wrong in it is in the Run, and the next may
// go well; the error is that of ctx.
func (s *Suite) throughput(ctx context.Context, c workload.Case, candidate Candidate, seed uint64) (Run, error) {
	run := Run{Case: c.Name, Candidate: candidate.Name, Broker: s.Cluster.Kind, Records: c.Total(), Partitions: c.Partitions}
	run.HeldCount, run.Held = c.Held()
	s.runs++
	topic := fmt.Sprintf("%s-%d", c.Name, s.runs)
	err := s.Cluster.CreateTopics(ctx, topic, c.Partitions)
	if err == nil {
		err = s.runOn(ctx, topic, c, candidate, seed, &run)
	}
	if gone := s.Cluster.DeleteTopics(ctx, topic, "group-"+topic); err == nil {
		err = gone
	}
	if err != nil {
		run.Failed = err.Error()
	}
	return run, ctx.Err()
}

func (s *Suite) runOn(ctx context.Context, topic string, c workload.Case, candidate Candidate, seed uint64, run *Run) error {
	gate, err := workload.Fill(ctx, s.Cluster.Addr, topic, c, seed)
	if err != nil {
		return err
	}
	defer gate.Close()
	ch, err := s.start(ctx, candidate, topic, c.Partitions)
	if err != nil {
		return err
	}
	span, err := s.workOff(ctx, ch, gate, c, run)
	if err != nil {
		err = ch.explain(err)
	}
	run.Whole = ch.stop()
	if err != nil {
		return err
	}
	run.Ready = ch.ready.Sub(ch.Started).Seconds()
	if candidate.Groups {
		run.Join = ch.joined.Sub(ch.Started).Seconds()
	}
	found, err := check.Outputs(ctx, s.Cluster.Addr, topic, c.Partitions, candidate.Rules)
	if err != nil {
		return err
	}
	run.Check = *found
	if candidate.Tidemark {
		run.Verify = s.verify(ctx, ch.job, candidate)
		if !strings.HasSuffix(run.Verify, "HOLDS") || strings.Contains(run.Verify, "NOT") {
			run.Check.Faults = append(run.Check.Faults, "tidemark verify: "+run.Verify)
		}
	}
	last, err := lastSeen(span.ends, found, topic, c.Partitions)
	if err != nil {
		return err
	}
	run.Seconds = last.Sub(span.opened).Seconds()
	run.Usage = ch.Between(span.opened, last)
	return nil
}

// span is the time of a run.
type span struct {
	opened time.Time
	ends   *cluster.Ends
}

// workOff opens the gate and waits until all has come out.
func (s *Suite) workOff(ctx context.Context, ch *child, gate *workload.Gate, c workload.Case, run *Run) (span, error) {
	before, err := measure.Loads(ch.PID(), s.Cluster.PID)
	if err != nil {
		return span{}, err
	}
	broker, compiling := measure.CPU(s.Cluster.PID), measure.Compiling(s.Cluster.PID)
	sp := span{ends: cluster.FollowEnds(cluster.Outputs(ch.topic), c.Partitions)}
	if sp.opened, err = gate.Open(ctx); err != nil {
		return span{}, err
	}
	working, cancel := ch.within(ctx, 30*time.Minute)
	defer cancel()
	still := s.Still + 2*ch.candidate.Interval
	if err := sp.ends.Await(working, s.Cluster, c.Total(), still, time.Minute); err != nil {
		return span{}, err
	}
	after, err := measure.Loads(ch.PID(), s.Cluster.PID)
	run.BrokerCPU = measure.CPU(s.Cluster.PID) - broker
	run.Compiling = max(0, measure.Compiling(s.Cluster.PID)-compiling) // a thread may have ended
	run.Foreign = after.Foreign(before)
	run.Noisy = run.Foreign > noisy
	return sp, err
}

// lastSeen is when the last of all output records became visible.
func lastSeen(ends *cluster.Ends, found *check.Result, topic string, partitions int32) (last time.Time, err error) {
	for _, output := range cluster.Outputs(topic) {
		for p := range partitions {
			offset := found.Last(output, p)
			if offset < 0 {
				continue
			}
			at, err := ends.Reached(output, p, offset)
			if err != nil {
				return last, fmt.Errorf("%s partition %d: %w", output, p, err)
			}
			if at.After(last) {
				last = at
			}
		}
	}
	return last, nil
}

// verify runs `tidemark verify`, with the configuration of the run.
func (s *Suite) verify(ctx context.Context, j job, c Candidate) string {
	cmd := exec.CommandContext(ctx, s.tidemark, "verify")
	cmd.Env = c.command(s, j).Env
	out, err := cmd.CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	verdict := lines[len(lines)-1]
	if err != nil && verdict == "HOLDS" {
		verdict = "it says HOLDS and ends with " + err.Error() + ": NOT believed"
	}
	return verdict
}
