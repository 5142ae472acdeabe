package proxy

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every fault that is documented names its tests, and they exist.
func TestFaultsAreTested(t *testing.T) {
	var sources strings.Builder
	err := filepath.WalkDir("..", func(file string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(file, "_test.go") {
			return err
		}
		text, err := os.ReadFile(file)
		sources.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob("../docs/design/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages of the design: %v", err)
	}
	for _, page := range append(pages, "../docs/faults.md", "../DESIGN.md") {
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
