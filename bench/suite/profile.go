package suite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"

	"github.com/tidemarkhq/tidemark/bench/check"
	"github.com/tidemarkhq/tidemark/bench/workload"
	"github.com/tidemarkhq/tidemark/proxy"
	"github.com/tidemarkhq/tidemark/proxy/config"
)

// profileTo names the file that Sidecar writes a profile to.
const profileTo = "BENCH_PROFILE"

// Sidecar runs Tidemark in this process, under a CPU profile: the binary that
// users have cannot be asked for one.
func Sidecar(ctx context.Context) (err error) {
	cfg, err := config.Load(os.Environ())
	if err != nil {
		return err
	}
	file, err := os.Create(os.Getenv(profileTo))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := pprof.StartCPUProfile(file); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return proxy.Run(ctx, cfg, slog.New(slog.NewTextHandler(os.Stderr, nil)))
}

// Profile has Tidemark work off a case once and shows where its time went. The
// profile of its whole life is left in file.
func (s *Suite) Profile(ctx context.Context, c workload.Case, file string) error {
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	profiled := Candidate{
		Name: "profiled", Interval: commitInterval, Rules: check.Rules{Orders: true}, Groups: true, Tidemark: true,
		command: func(s *Suite, j job) *exec.Cmd {
			cmd := exec.Command(s.self, "sidecar")
			cmd.Env = append(s.tidemarkEnv(j), profileTo+"="+file)
			return cmd
		},
	}
	run, err := s.throughput(ctx, c, profiled, 1)
	if err != nil {
		return err
	}
	s.logf("%s", run.line())
	if !run.Holds() {
		return errors.New("the run is not right")
	}
	top, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", "-nodecount=20", file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("go tool pprof: %w\n%s", err, top)
	}
	s.logf("%s\nlook closer with: go tool pprof -http=: %s", top, file)
	return nil
}
