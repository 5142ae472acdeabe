package proxy

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTroubleshootingQuotes: what docs/troubleshooting.md quotes of the log, of errors and of
// /status is what the code says, its metrics exist, and so do the pages it leads to.
func TestTroubleshootingQuotes(t *testing.T) {
	page := read(t, "../docs/troubleshooting.md")
	var code strings.Builder
	for _, dir := range []string{".", "../cmd", "../emit", "../reorder"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				code.WriteString(read(t, path))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	metrics := read(t, "../docs/metrics.md")
	quotes, counters := 0, 0
	for _, quote := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(page, -1) {
		switch text := quote[1]; {
		case strings.HasPrefix(text, "tidemark_"):
			counters++
			if !strings.Contains(metrics, "`"+text+"`") {
				t.Errorf("there is no metric %s", text)
			}
		case strings.Count(text, " ") >= 2 && !strings.HasPrefix(text, "tidemark "):
			quotes++
			if !strings.Contains(code.String(), text) {
				t.Errorf("nothing says %q", text)
			}
		}
	}
	if quotes < 20 || counters < 5 {
		t.Errorf("found %d quotes and %d metrics", quotes, counters)
	}
	for _, link := range regexp.MustCompile(`\]\(([a-z-]+\.md)(#[a-z-]+)?\)`).FindAllStringSubmatch(page, -1) {
		target := read(t, "../docs/"+link[1])
		if anchor := strings.TrimPrefix(link[2], "#"); anchor != "" && !heading(target, anchor) {
			t.Errorf("%s has no heading #%s", link[1], anchor)
		}
	}
}

// heading reports whether a page has a heading with an anchor.
func heading(page, anchor string) bool {
	for line := range strings.Lines(page) {
		text, is := strings.CutPrefix(strings.TrimLeft(line, "#"), " ")
		if !is || !strings.HasPrefix(line, "#") {
			continue
		}
		kept := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(strings.TrimSpace(text)), "")
		if strings.ReplaceAll(kept, " ", "-") == anchor {
			return true
		}
	}
	return false
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
