//go:build unix

package proxy

import (
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// processes are sidecars that signals can be sent to.
type processes struct {
	c             *cluster
	binary, topic string
	env           []string
	running       map[string]*child
	sent          map[syscall.Signal]int
}

type child struct {
	name   string
	cmd    *exec.Cmd
	done   chan struct{} // closed when it has ended
	err    error         // what it ended with
	born   time.Time
	frozen bool
}

// unborn is how long after its start a process may not yet listen to signals.
const unborn = 100 * time.Millisecond

func (c *cluster) processes(topic string, env ...string) *processes {
	return &processes{
		c: c, binary: build(c.t), topic: topic, env: env,
		running: map[string]*child{}, sent: map[syscall.Signal]int{},
	}
}

func (ps *processes) spawn(name string) {
	ps.c.t.Helper()
	cmd := exec.Command(ps.binary)
	cmd.Env = slices.Concat(ps.c.env(ps.topic, "TIDEMARK_INSTANCE="+name, "TIDEMARK_LOG_FORMAT=text",
		"TIDEMARK_ADMIN=off"), ps.env) // several have this machine
	if level := os.Getenv("TIDEMARK_LOG_LEVEL"); level != "" {
		cmd.Env = append(cmd.Env, "TIDEMARK_LOG_LEVEL="+level)
	}
	cmd.Stderr = voices{name, ps.c.t.Output()}
	if err := cmd.Start(); err != nil {
		ps.c.t.Fatal(err)
	}
	p := &child{name: name, cmd: cmd, done: make(chan struct{}), born: time.Now()}
	go func() { p.err = cmd.Wait(); close(p.done) }()
	ps.running[name] = p
}

func (ps *processes) signal(name string, s syscall.Signal) *child {
	ps.c.t.Helper()
	p := ps.running[name]
	ps.sent[s]++
	_ = p.cmd.Process.Signal(s)
	return p
}

func (ps *processes) kill(name string) {
	ps.c.t.Helper()
	<-ps.signal(name, syscall.SIGKILL).done
	delete(ps.running, name)
}

// stop stops a process politely.
func (ps *processes) stop(name string) {
	ps.c.t.Helper()
	began := time.Now()
	p := ps.signal(name, syscall.SIGTERM)
	<-p.done
	status, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	deaf := status.Signaled() && began.Sub(p.born) < unborn
	if took := time.Since(began); p.err != nil && !deaf || took > 10*time.Second {
		ps.c.t.Errorf("%s, told to stop, took %v and ended with %v", name, took, p.err)
	}
	delete(ps.running, name)
}

func (ps *processes) freeze(name string) { ps.signal(name, syscall.SIGSTOP).frozen = true }

func (ps *processes) thaw(name string) { ps.signal(name, syscall.SIGCONT).frozen = false }

// ended returns the processes that nobody has told to end, and forgets them.
func (ps *processes) ended() (names []string) {
	for name, p := range ps.running {
		select {
		case <-p.done:
			names = append(names, name)
			delete(ps.running, name)
			ps.c.t.Errorf("%s ended by itself: %v", name, p.err)
		default:
		}
	}
	return names
}

// names returns who runs, in order.
func (ps *processes) names() []string { return slices.Sorted(maps.Keys(ps.running)) }

// awake returns who runs and is not frozen.
func (ps *processes) awake() []string {
	return slices.DeleteFunc(ps.names(), func(name string) bool { return ps.running[name].frozen })
}

func (ps *processes) end() {
	for _, name := range ps.names() {
		ps.kill(name)
	}
}

// voices puts a name before what is said.
type voices struct {
	name string
	to   io.Writer
}

func (v voices) Write(b []byte) (int, error) {
	if _, err := v.to.Write(append([]byte(v.name+": "), b...)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// build builds the program.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "tidemark")
	run(t, "go", "build", "-o", binary, "../cmd/tidemark")
	return binary
}

// run runs a command to its end.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// fromEnv reads a number from the environment.
func fromEnv(t *testing.T, key string, otherwise int) int {
	t.Helper()
	text := os.Getenv(key)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return n
}
