package admin

import (
	"bytes"
	"os"
	"runtime/metrics"
	"strconv"
)

// process is what the system reports about this process; -1: not known.
type process struct {
	cpuSeconds, residentBytes, openFiles, goBytes float64
}

// readProcess reads what Linux has in /proc. Elsewhere most is unknown.
func readProcess() process {
	p := process{-1, -1, -1, -1}
	if stat, err := os.ReadFile("/proc/self/stat"); err == nil {
		p.stat(stat)
	}
	if open, err := os.ReadDir("/proc/self/fd"); err == nil {
		p.openFiles = float64(len(open) - 1) // one is for this
	}
	total := []metrics.Sample{{Name: "/memory/classes/total:bytes"}}
	if metrics.Read(total); total[0].Value.Kind() == metrics.KindUint64 {
		p.goBytes = float64(total[0].Value.Uint64())
	}
	return p
}

// stat takes what is wanted of /proc/self/stat; see proc_pid_stat(5).
func (p *process) stat(text []byte) {
	const (
		userTime, systemTime, residentPages = 14, 15, 24
		ticks                               = 100 // a second, on every Linux that Go runs on
	)
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:]) // behind the name, which may be anything
	field := func(n int) float64 {
		v, _ := strconv.ParseFloat(string(fields[n-3]), 64)
		return v
	}
	if len(fields) > residentPages-3 {
		p.cpuSeconds = (field(userTime) + field(systemTime)) / ticks
		p.residentBytes = field(residentPages) * float64(os.Getpagesize())
	}
}
