package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/status"
)

var update = flag.Bool("update", false, "write the expected output into the scripts")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"tidemark": main,
		// A proxy that stops when it is told to, and one that does not.
		"tidemark-polite": with(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }),
		"tidemark-stuck":  with(func(context.Context) error { select {} }),
		// Proxies that fail, with more or less to say about it.
		"tidemark-fails":  with(func(context.Context) error { return errors.New("broker on fire") }),
		"tidemark-fenced": with(func(context.Context) error { return fmt.Errorf("commit: %w", helpful{}) }),
	})
}

func with(body func(context.Context) error) func() {
	return func() {
		if os.Getenv("TIDEMARK_ADMIN") == "" {
			os.Setenv("TIDEMARK_ADMIN", "off") // several run at once
		}
		runProxy = func(ctx context.Context, _ config.Config, log *slog.Logger, _ *status.Publisher) error {
			log.Info("started")
			return body(ctx)
		}
		main()
	}
}

// helpful is an error as package proxy returns them.
type helpful struct{}

func (helpful) Error() string { return "fenced" }
func (helpful) Hint() string  { return "is the instance used twice?" }
func (helpful) ExitCode() int { return 3 }

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: *update,
		// With -race every process would else sleep a second before it exits.
		Setup: func(e *testscript.Env) error { e.Setenv("GORACE", "atexit_sleep_ms=0"); return nil },
		Cmds:  map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// exits runs a command and checks its exit code, which the exec of testscript
// cannot: exits CODE COMMAND ARGS...
func exits(ts *testscript.TestScript, _ bool, args []string) {
	cmd := exec.Command(args[1], args[2:]...)
	for _, key := range []string{"PATH", "GORACE", "TIDEMARK_TOPICS", "TIDEMARK_ADMIN", "TIDEMARK_GRUOP", "TIDEMARK_DELIVERY"} {
		if v := ts.Getenv(key); v != "" {
			cmd.Env = append(cmd.Env, key+"="+v)
		}
	}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		ts.Fatalf("%v", err)
	}
	if got := fmt.Sprint(cmd.ProcessState.ExitCode()); got != args[0] {
		ts.Fatalf("%s: exit code %s, want %s\n%s", strings.Join(args[1:], " "), got, args[0], out)
	}
}

// start runs a proxy until it has logged its first line.
func start(t *testing.T, name string, env ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command(name)
	cmd.Env = append([]string{"TIDEMARK_TOPICS=orders"}, env...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := bufio.NewReader(stderr)
	if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, `"msg":"started"`) {
		t.Fatalf("%q, %v", line, err)
	}
	return cmd, lines
}

func TestSignalStops(t *testing.T) {
	for _, signal := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		cmd, lines := start(t, "tidemark-polite")
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		rest, _ := lines.ReadString(0)
		if err := cmd.Wait(); err != nil || rest != "" {
			t.Errorf("%v: %v, and on stderr %q", signal, err, rest)
		}
	}
}

func TestSecondSignalKills(t *testing.T) {
	cmd, _ := start(t, "tidemark-stuck")
	dead := make(chan error, 1)
	go func() { dead <- cmd.Wait() }()
	patience := time.After(10 * time.Second)
	// A process in the middle of its death by one signal must not be hit by
	// a storm of them: the runtime has crashed so.
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case <-patience:
			t.Fatal("still there")
		case <-dead:
			if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGTERM {
				t.Errorf("ended with %v", cmd.ProcessState)
			}
			return
		case <-again.C:
			_ = cmd.Process.Signal(syscall.SIGTERM)
		}
	}
}

func TestLogHandler(t *testing.T) {
	const (
		json  = `^\{"time":"[^"]+","level":"WARN","msg":"hot","partition":3\}\n$`
		plain = `^\d\d:\d\d:\d\d\.\d{3} WRN hot partition=3\n$`
	)
	tests := []struct {
		format          config.LogFormat
		terminal, color bool
		want            string
	}{
		{config.LogAuto, false, false, json},
		{config.LogAuto, true, false, plain},
		{config.LogAuto, true, true, "\x1b\\["},
		{config.LogText, false, false, plain},
		{config.LogJSON, true, true, json},
	}
	for _, tt := range tests {
		var out bytes.Buffer
		log := slog.New(newLogHandler(&out, config.Config{LogFormat: tt.format, LogLevel: config.LogWarn}, tt.terminal, tt.color))
		log.Info("cold")
		log.Warn("hot", "partition", 3)
		if !regexp.MustCompile(tt.want).MatchString(out.String()) {
			t.Errorf("%+v: %q", tt, out.String())
		}
	}
}
