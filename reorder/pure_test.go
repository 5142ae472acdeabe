package reorder_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// impurities lists what has no place in a package that is told the time, keeps
// no secrets between goroutines and does nothing but compute.
func impurities(file *ast.File) (found []string) {
	banned := []string{"sync", "context", "os", "net", "log", "github.com/twmb/franz-go"}
	clock := []string{"Now", "Since", "Until", "After", "Sleep", "NewTimer", "NewTicker", "AfterFunc", "Tick"}
	timeIs := ""
	for _, imp := range file.Imports {
		path, _ := strconv.Unquote(imp.Path.Value)
		for _, b := range banned {
			if path == b || strings.HasPrefix(path, b+"/") {
				found = append(found, "import "+path)
			}
		}
		if path == "time" {
			if timeIs = "time"; imp.Name != nil {
				timeIs = imp.Name.Name
			}
		}
	}
	if timeIs == "." {
		found = append(found, "import . time")
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			found = append(found, "go")
		case *ast.ChanType:
			found = append(found, "chan")
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == timeIs && slices.Contains(clock, n.Sel.Name) {
				found = append(found, "time."+n.Sel.Name)
			}
		}
		return true
	})
	return found
}

// TestPure holds this package and the others that only compute to it.
func TestPure(t *testing.T) {
	for _, dir := range []string{".", "../watermark", "../emit/window", "../emit/zone"} {
		files, err := fs.Glob(os.DirFS(dir), "*.go")
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			seen++
			file, err := parser.ParseFile(token.NewFileSet(), dir+"/"+name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			if found := impurities(file); found != nil {
				t.Errorf("%s/%s is not pure: %v", dir, name, found)
			}
		}
		if seen == 0 {
			t.Errorf("%d files in %s", seen, dir)
		}
	}
}

// TestPureSeesImpurity: a ban that catches nothing is none.
func TestPureSeesImpurity(t *testing.T) {
	for src, want := range map[string]string{
		`import "sync"`:        "import sync",
		`import "sync/atomic"`: "import sync/atomic",
		`import "context"`:     "import context",
		`import "os"`:          "import os",
		`import "net/http"`:    "import net/http",
		`import "log"`:         "import log",
		`import "log/slog"`:    "import log/slog",
		`import "github.com/twmb/franz-go/pkg/kgo"`: "import github.com/twmb/franz-go/pkg/kgo",
		`import . "time"`:                                 "import . time",
		`import "time"; var x = time.Now()`:               "time.Now",
		`import "time"; var x = time.Since`:               "time.Since",
		`import "time"; func f() { <-time.After(1) }`:     "time.After",
		`import "time"; func f() { time.Sleep(1) }`:       "time.Sleep",
		`import clock "time"; var x = clock.NewTimer(1)`:  "time.NewTimer",
		`import "time"; var x = time.NewTicker(1)`:        "time.NewTicker",
		`import "time"; var x = time.AfterFunc(1, nil)`:   "time.AfterFunc",
		`import "time"; var x = time.Tick(1)`:             "time.Tick",
		`func f() { go f() }`:                             "go",
		`var c chan int`:                                  "chan",
		`func f() { _ = make(chan<- bool) }`:              "chan",
		`import "time"; var x time.Duration = time.Hour`:  "",
		`import "networks"; import "cosmos"; import "io"`: "",
	} {
		file, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\n"+src, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(impurities(file), " "); got != want {
			t.Errorf("%s: found %q, want %q", src, got, want)
		}
	}
}
