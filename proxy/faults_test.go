package proxy

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every fault that is documented names its tests, and they exist.
func TestFaultsAreTested(t *testing.T) {
	var sources strings.Builder
	for _, dir := range []string{"../reorder", "../watermark", "../emit", "../emit/window", ".", "config", "timestamp", "repair", "../cmd/tidemark", "../docs/examples/windows"} {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d tests, %v", dir, len(files), err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			sources.Write(text)
		}
	}
	for _, page := range []string{"../docs/faults.md", "../DESIGN.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(string(text), -1) {
			if !strings.Contains(sources.String(), "func "+name[1]+"(t *testing.T)") {
				t.Errorf("%s names %s, which does not exist", page, name[1])
			}
		}
	}
	text, _ := os.ReadFile("../docs/faults.md")
	tables, _, _ := strings.Cut(string(text), "## What is not covered")
	for row := range strings.Lines(tables) {
		if strings.HasPrefix(row, "| ") && !strings.HasPrefix(row, "| fault") && !strings.Contains(row, "`Test") {
			t.Errorf("no test: %s", row)
		}
	}
}
