package suite

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/perf/benchfmt"
)

// Core runs the benchmarks of the core.
func (s *Suite) Core(ctx context.Context, count int) error {
	r := s.results("core")
	// So many records that what is held is turned over once: a second would be
	// over before the collector has been through five million of them.
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "Core",
		"-benchtime", "5000000x", "-count", strconv.Itoa(count), "-timeout", "1h", "./core")
	cmd.Dir = filepath.Join(s.Root, "bench")
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	s.logf("%s", out)
	lines := benchfmt.NewReader(bytes.NewReader(out), "core")
	for lines.Scan() {
		b, ok := lines.Result().(*benchfmt.Result)
		if !ok {
			continue
		}
		_, parts := b.Name.Parts()
		if len(parts) < 2 {
			continue
		}
		held, _ := strconv.Atoi(string(bytes.TrimPrefix(parts[1], []byte("/held="))))
		sec, _ := b.Value("sec/op")
		allocs, _ := b.Value("allocs/op")
		cpu, _ := b.Value("cpu-sec/op")
		r.Core = append(r.Core, Core{Name: string(parts[0][1:]), Held: held, Ns: 1e9 * sec, CPU: 1e9 * cpu, Allocs: allocs})
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return s.save(r)
}
