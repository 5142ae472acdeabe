package deploy

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// maxImage is how large the image may be, in bytes: the binary, and 250 kB of
// certificates.
const (
	maxImage     = 40_000_000
	certificates = 250_000
)

// stages reads the Dockerfile as BuildKit does.
func stages(t *testing.T) (build, image instructions.Stage) {
	t.Helper()
	text, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range parsed.Warnings {
		t.Errorf("warning: %s", w.Short)
	}
	all, _, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 {
		t.Fatalf("%d stages, want one to build in and one that is the image", len(all))
	}
	return all[0], all[1]
}

// of returns the only command of its kind.
func of[T any](t *testing.T, s instructions.Stage) T {
	t.Helper()
	var found []T
	for _, c := range s.Commands {
		if c, ok := c.(T); ok {
			found = append(found, c)
		}
	}
	if len(found) != 1 {
		t.Fatalf("there are %d of %T in stage %q", len(found), *new(T), s.Name+s.BaseName)
	}
	return found[0]
}

func TestImage(t *testing.T) {
	build, image := stages(t)
	if build.Platform != "$BUILDPLATFORM" {
		t.Error("the compiler is emulated where the image is for another machine")
	}
	if image.BaseName != "scratch" {
		t.Errorf("the image is made from %s", image.BaseName)
	}
	user := of[*instructions.UserCommand](t, image).User
	if id, err := strconv.Atoi(strings.Split(user, ":")[0]); err != nil || id == 0 {
		t.Errorf("Kubernetes cannot tell that user %s is not root", user)
	}
	entry := of[*instructions.EntrypointCommand](t, image)
	health := of[*instructions.HealthCheckCommand](t, image).Health
	if want := []string{"CMD", entry.CmdLine[0], "check", "--live"}; !slices.Equal(health.Test, want) || entry.PrependShell {
		t.Errorf("the health check is %q, want %q", health.Test, want)
	}
	var files []string
	for _, c := range image.Commands {
		if c, ok := c.(*instructions.CopyCommand); ok && c.From == build.Name {
			files = append(files, c.SourcePaths...)
		}
	}
	if want := []string{"/etc/ssl/certs/ca-certificates.crt", "/out/tidemark"}; !slices.Equal(files, want) {
		t.Errorf("the image has %q, want %q", files, want)
	}
}

// What the Dockerfile runs makes a static binary for each platform, small enough.
func TestImageBinary(t *testing.T) {
	build, _ := stages(t)
	run := strings.Join(of[*instructions.RunCommand](t, build).CmdLine, " ")
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		t.Run(arch, func(t *testing.T) {
			binary := filepath.Join(t.TempDir(), "tidemark")
			script := strings.ReplaceAll(run, "/out/tidemark", binary)
			if script == run {
				t.Fatalf("%q makes no /out/tidemark", run)
			}
			cmd := exec.Command("sh", "-c", script)
			cmd.Dir = ".."
			cmd.Env = append(os.Environ(), "TARGETOS=linux", "TARGETARCH="+arch)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", script, err, out)
			}
			f, err := elf.Open(binary)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			libraries, err := f.ImportedLibraries()
			if err != nil && f.Section(".dynamic") != nil {
				t.Fatal(err)
			}
			interpreted := slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
			if f.Machine != machine || interpreted || len(libraries) > 0 {
				t.Errorf("it is for %v and needs %q", f.Machine, libraries)
			}
			about, err := os.Stat(binary)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%.1f MB", float64(about.Size())/1e6)
			if about.Size()+certificates > maxImage {
				t.Errorf("%d bytes are too many", about.Size())
			}
			info, err := buildinfo.ReadFile(binary)
			if err != nil {
				t.Fatal(err)
			}
			if info.Main.Path != "github.com/tidemarkhq/tidemark" || info.Main.Version == "" {
				t.Errorf("it says that it is %s %s", info.Main.Path, info.Main.Version)
			}
		})
	}
}
