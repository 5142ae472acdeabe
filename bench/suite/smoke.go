package suite

import (
	"context"
	"fmt"
	"time"

	"github.com/tidemarkhq/tidemark/bench/workload"
)

// Smoke does a little of everything that needs no Java, and fails where
// anything is not as it should be. Its figures mean nothing.
func (s *Suite) Smoke(ctx context.Context) error {
	s.Settle, s.Still = 50*time.Millisecond, 200*time.Millisecond
	for i, c := range workload.Cases {
		c.Records, c.Partitions = 4000, min(c.Partitions, 8)
		candidates, err := Choose([]string{"tidemark"})
		if i == 0 {
			candidates, err = Choose([]string{"copy", "copy-split", "copy-headers", "copy-alo", "tidemark", "tidemark-alo"})
		}
		if err != nil {
			return err
		}
		for _, candidate := range candidates {
			run, err := s.throughput(ctx, c, candidate, 1)
			if err != nil {
				return err
			}
			s.logf("%s", run.line())
			if !run.Holds() {
				return fmt.Errorf("%s on %s is not right", candidate.Name, c.Name)
			}
		}
	}
	c, err := workload.Find("main")
	if err != nil {
		return err
	}
	candidates, err := Choose([]string{"tidemark"})
	if err != nil {
		return err
	}
	l, err := s.latency(ctx, c, candidates[0], Pacing{Rate: 1000, Measured: 500 * time.Millisecond}, 1)
	if err != nil {
		return err
	}
	s.logf("%s", l.line())
	if !l.Holds() {
		return fmt.Errorf("%s under a paced load is not right", candidates[0].Name)
	}
	return nil
}
