// Package measure watches processes: their memory, their processor time, and
// what else the machine was busy with meanwhile.
package measure

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
)

// Sample is a process at one moment.
type Sample struct {
	At  time.Time `json:"-"`
	Ms  int64     `json:"ms"` // since the moment that Usage counts from
	RSS int64     `json:"rss"`
	CPU float64   `json:"cpu"` // s, user and system, since the process started
}

// Process is a running child.
type Process struct {
	cmd     *exec.Cmd
	proc    procfs.Proc
	Started time.Time
	samples []Sample
	peak    int64
	stop    chan struct{}
	stopped chan struct{}
	ended   chan struct{} // closed when the child has
	err     error         // what it ended with
}

// every is how often a process is looked at.
const every = 50 * time.Millisecond

// Start starts a child and begins to watch it.
func Start(cmd *exec.Cmd) (*Process, error) {
	p := &Process{cmd: cmd, stop: make(chan struct{}), stopped: make(chan struct{}), ended: make(chan struct{})}
	p.Started = time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	var err error
	if p.proc, err = procfs.NewProc(cmd.Process.Pid); err != nil {
		_ = cmd.Process.Kill()
		return nil, err
	}
	go p.watch()
	return p, nil
}

// PID returns the child's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ended is closed when the child has ended by itself or been stopped.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Err returns what the child ended with.
func (p *Process) Err() error { return p.err }

func (p *Process) watch() {
	defer close(p.stopped)
	for {
		p.look()
		select {
		case <-time.After(every):
		case <-p.stop:
			return
		case <-p.ended:
			return
		}
	}
}

func (p *Process) look() {
	status, err := p.proc.NewStatus()
	if err != nil {
		return // it has just ended
	}
	stat, err := p.proc.Stat()
	if err != nil {
		return
	}
	p.peak = max(p.peak, int64(status.VmHWM))
	p.samples = append(p.samples, Sample{At: time.Now(), RSS: int64(status.VmRSS), CPU: stat.CPUTime()})
}

// Stop ends the child: politely, and after some time by force. It returns
// the processor time of its whole life, in seconds.
func (p *Process) Stop(patience time.Duration) float64 {
	close(p.stop)
	<-p.stopped
	p.look()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	use := p.cmd.ProcessState
	return (use.UserTime() + use.SystemTime()).Seconds()
}

// Usage is what a process used between two moments. It is to be asked for when
// the process has been stopped.
type Usage struct {
	CPU     float64  `json:"cpu"`     // s
	Peak    int64    `json:"peak"`    // bytes resident, at the most in its whole life
	Samples []Sample `json:"samples"` // up to a little after the end
}

// Between returns the usage between two moments.
func (p *Process) Between(from, to time.Time) Usage {
	u := Usage{Peak: p.peak, CPU: p.cpuAt(to) - p.cpuAt(from)}
	var until []Sample
	for _, s := range p.samples {
		if s.At.After(to.Add(every)) {
			break
		}
		s.Ms = s.At.Sub(from).Milliseconds()
		until = append(until, s)
	}
	for i := 0; i < len(until); i += 1 + len(until)/maxSamples {
		u.Samples = append(u.Samples, until[i])
	}
	return u
}

// maxSamples is as many as one can tell apart in a plot.
const maxSamples = 150

// cpuAt interpolates between the samples around a moment.
func (p *Process) cpuAt(at time.Time) float64 {
	var before Sample
	for _, s := range p.samples {
		if s.At.After(at) {
			if before.At.IsZero() {
				return s.CPU
			}
			part := float64(at.Sub(before.At)) / float64(s.At.Sub(before.At))
			return before.CPU + part*(s.CPU-before.CPU)
		}
		before = s
	}
	return before.CPU
}

// Load is what the processors have done since the machine started, and what of
// it was ours.
type Load struct {
	at         time.Time
	busy, ours float64 // s
	processors int
}

// Loads reads the load. Processes with these ids are ours, beside this one; 0
// is none.
func Loads(ids ...int) (Load, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return Load{}, err
	}
	stat, err := fs.Stat()
	if err != nil {
		return Load{}, err
	}
	c := stat.CPUTotal
	l := Load{
		at: time.Now(), processors: len(stat.CPU),
		busy: c.User + c.Nice + c.System + c.IRQ + c.SoftIRQ + c.Steal,
	}
	for _, id := range append(ids, os.Getpid()) {
		if id == 0 {
			continue
		}
		if proc, err := procfs.NewProc(id); err == nil {
			if s, err := proc.Stat(); err == nil {
				l.ours += s.CPUTime()
			}
		}
	}
	return l, nil
}

// Foreign returns the share of the machine, 0 to 1, that others used since an
// earlier Load of the same processes.
func (l Load) Foreign(before Load) float64 {
	machine := l.at.Sub(before.at).Seconds() * float64(l.processors)
	if machine <= 0 {
		return 0
	}
	return max(0, (l.busy-before.busy)-(l.ours-before.ours)) / machine
}

// Compiling returns the seconds that a Java virtual machine has spent on
// compiling so far, as far as the threads that did it are still there.
func Compiling(id int) (sum float64) {
	threads, err := procfs.AllThreads(id)
	if err != nil || id == 0 {
		return 0
	}
	for _, t := range threads {
		if s, err := t.Stat(); err == nil && strings.Contains(s.Comm, "CompilerThre") {
			sum += s.CPUTime()
		}
	}
	return sum
}

// CPU returns the seconds that a process has used so far, 0 if there is none.
func CPU(id int) float64 {
	if proc, err := procfs.NewProc(id); err == nil && id != 0 {
		if s, err := proc.Stat(); err == nil {
			return s.CPUTime()
		}
	}
	return 0
}
