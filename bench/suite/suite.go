package suite

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/tidemarkhq/tidemark/bench/cluster"
)

// Suite is what all measurements of one command share.
type Suite struct {
	Root    string // of the repository
	Out     string // where results go
	Command string // as the user gave it
	Log     io.Writer
	Cluster *cluster.Cluster
	Warm    int           // runs that are done first and thrown away, at the most
	Settle  time.Duration // between a candidate being ready and its work
	Tries   int           // of a run that others disturb, at the most
	Still   time.Duration // how long nothing must come out for a run to be over

	work           string // temporary
	self, tidemark string // binaries
	runs           int
}

// New builds Tidemark and makes a temporary folder.
func New(ctx context.Context, root, out, command string, log io.Writer) (*Suite, error) {
	s := &Suite{Root: root, Out: out, Command: command, Log: log, Settle: 3 * time.Second, Still: 1500 * time.Millisecond}
	var err error
	if s.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if s.work, err = os.MkdirTemp("", "bench-"); err != nil {
		return nil, err
	}
	s.tidemark = filepath.Join(s.work, "tidemark")
	// As the image's is built.
	if err := s.do(ctx, root, "env", "CGO_ENABLED=0", "go", "build", "-trimpath", "-tags=nethttpomithttp2", "-ldflags=-s -w", "-o", s.tidemark, "./cmd/tidemark"); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close removes the temporary folder.
func (s *Suite) Close() { os.RemoveAll(s.work) }

func (s *Suite) logf(format string, args ...any) { fmt.Fprintf(s.Log, format+"\n", args...) }

func (s *Suite) do(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}

// Build builds the peers among the candidates.
func (s *Suite) Build(ctx context.Context, candidates []Candidate) error {
	built := map[string]bool{"": true}
	for _, c := range candidates {
		if built[c.Peer] {
			continue
		}
		built[c.Peer] = true
		s.logf("building %s", c.Peer)
		if err := s.do(ctx, filepath.Join(s.Root, "bench", "peers", c.Peer), "mvn", "-B", "-q", "package"); err != nil {
			return err
		}
	}
	return nil
}

func (s *Suite) results(name string) *Results {
	r := &Results{Name: name, Command: s.Command, Started: time.Now().UTC().Truncate(time.Second), Machine: thisMachine(s.Root)}
	if info, err := os.Stat(s.tidemark); err == nil {
		r.Binary = info.Size()
	}
	return r
}

// noisy is the share of the machine that others may use during a run.
const noisy = 0.08

// quietly does a run, and again as long as others disturbed it.
func (s *Suite) quietly(run func() (foreign float64, err error)) error {
	for try := 1; ; try++ {
		foreign, err := run()
		if err != nil || foreign <= noisy || try >= s.Tries {
			return err
		}
		s.logf("  NOISY: others used %.0f %% of the machine; once more", 100*foreign)
	}
}
