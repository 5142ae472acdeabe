package deploy

import (
	"bufio"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

// compose reads compose.yaml as Docker Compose does, and refuses what the
// specification does not know.
func compose(t *testing.T) *types.Project {
	t.Helper()
	opts, err := cli.NewProjectOptions([]string{"compose/compose.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	project, err := opts.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func TestCompose(t *testing.T) {
	project := compose(t)
	tidemark := project.Services["tidemark"]
	var environ []string
	for key, value := range tidemark.Environment {
		environ = append(environ, key+"="+*value)
	}
	cfg, err := config.Load(environ)
	if err != nil {
		t.Fatal(err)
	}
	if !tidemark.ReadOnly || len(tidemark.CapDrop) != 1 || tidemark.CapDrop[0] != "ALL" {
		t.Error("Tidemark may do more than it needs")
	}
	if tidemark.HealthCheck != nil {
		t.Error("the health check of the image is not used")
	}
	raw, ordered := project.Services["raw"], project.Services["ordered"]
	if got := *raw.Environment["TOPIC"]; got != cfg.Topics[0] {
		t.Errorf("the consumer of the raw topic reads %s", got)
	}
	if got := *ordered.Environment["TOPIC"]; got != cfg.OrderedTopic(cfg.Topics[0]) {
		t.Errorf("the consumer of the ordered topic reads %s", got)
	}
	for _, s := range []string{"topic", "disorder"} {
		if !strings.Contains(strings.Join(project.Services[s].Command, " "), "--topic "+cfg.Topics[0]+" ") {
			t.Errorf("%s does not know %s: %q", s, cfg.Topics[0], project.Services[s].Command)
		}
	}
	// What they do is the same; only the topic is another.
	raw.Name, raw.Environment = ordered.Name, ordered.Environment
	if a, b := asYAML(t, raw), asYAML(t, ordered); a != b {
		t.Errorf("the consumers differ:\n%s\n%s", a, b)
	}
}

func asYAML(t *testing.T, s types.ServiceConfig) string {
	t.Helper()
	text, err := (&types.Project{Services: types.Services{s.Name: s}}).MarshalYAML()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What the producer is given is what it reads, and not in order.
func TestComposeDisorder(t *testing.T) {
	cmd := exec.Command("bash", "compose/disorder.sh")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	line := regexp.MustCompile(`^event-time:(\d{13})\tcard-[0-4]\t\d\d:\d\d:\d\d\.(\d{3}) payment (\d+)$`)
	lines, newest, older := bufio.NewScanner(out), int64(0), 0
	for n := 1; n <= 60 && lines.Scan(); n++ {
		f := line.FindStringSubmatch(lines.Text())
		if f == nil || f[3] != strconv.Itoa(n) || f[2] != f[1][10:] {
			t.Fatalf("line %d is %q", n, lines.Text())
		}
		at, _ := strconv.ParseInt(f[1], 10, 64)
		if at < newest {
			older++
		}
		newest = max(newest, at)
	}
	if older == 0 {
		t.Error("it is all in order")
	}
}
