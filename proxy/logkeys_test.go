package proxy

import (
	"context"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tidemarkhq/tidemark/proxy/fault"
)

var updateDocs = flag.Bool("update", false, "write the table of docs/logs.md anew")

func isLogKey(name string) bool {
	return slices.ContainsFunc(fault.LogKeys, func(k fault.LogKey) bool { return k.Name == name })
}

// The table of docs/logs.md is that of the code.
func TestLogKeysAreDocumented(t *testing.T) {
	const file, begin = "../docs/logs.md", "| key | unit | meaning |\n|---|---|---|\n"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, after, found := strings.Cut(string(text), begin)
	if !found {
		t.Fatalf("%s has no table", file)
	}
	var table strings.Builder
	for _, k := range fault.LogKeys {
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", k.Name, k.Unit, k.Meaning)
	}
	_, rest, _ := strings.Cut("\n"+after, "\n\n")
	want := before + begin + table.String()
	if rest != "" {
		want += "\n" + rest
	}
	if *updateDocs {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(text) != want {
		t.Errorf("%s is not what logKeys says: go test ./proxy -run LogKeys -update", file)
	}
}

// The methods that write log lines, and how many arguments come before the keys.
var (
	loggerCalls   = map[string]int{"Debug": 1, "Info": 1, "Warn": 1, "Error": 1, "Log": 3, "With": 0}
	reporterCalls = map[string]int{"Progress": 1, "WarnOnce": 2, "InfoOnce": 2, "Info": 2, "Warn": 2, "Error": 3, "Report": 4, "Throttle": 4, "ThrottleMore": 3, "Changed": 4, "Remind": 3}
)

// Every key in a call that writes a line is in the table, and everything in the table
// is in a call. What is put together elsewhere is looked at when it is written: see
// keyed.
func TestLogCallsUseTheTable(t *testing.T) {
	used := map[string]bool{"time": true, "level": true, "msg": true}
	key := regexp.MustCompile(`^[a-z_]+$`)
	fset := token.NewFileSet()
	look := func(args []ast.Expr, every bool) {
		for i, arg := range args {
			lit, ok := arg.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING || !every && i%2 == 1 {
				continue
			}
			name, _ := strconv.Unquote(lit.Value)
			switch {
			case strings.HasPrefix(name, "--"): // of a command line in a hint
			case isLogKey(name):
				used[name] = true
			case !every || key.MatchString(name):
				t.Errorf("%s: the key %q is not in logKeys", fset.Position(lit.Pos()), name)
			}
		}
	}
	calls := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{"../bench", "../deploy", "../docs", "../.git", "../.ci"}, path):
			return filepath.SkipDir
		case d.IsDir(), !strings.HasSuffix(path, ".go"), strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if keys, ok := logCall(n); ok {
					calls++
					look(keys, false)
				}
				if f, ok := n.Fun.(*ast.Ident); ok && f.Name == "append" && len(n.Args) > 1 && (named(n.Args[0], "args") || named(n.Args[0], "keyvals")) {
					look(n.Args[1:], false)
				}
			case *ast.CompositeLit:
				if list, ok := n.Type.(*ast.ArrayType); ok && named(list.Elt, "any") {
					look(n.Elts, true)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if calls < 40 {
		t.Errorf("only %d calls were found", calls)
	}
	for _, k := range fault.LogKeys {
		if !used[k.Name] {
			t.Errorf("%s is in logKeys, and in no line", k.Name)
		}
	}
}

// logCall returns the keys and values of a call that writes a log line; false: it is
// another call. Loggers and reporters are told by the names of variables and fields.
func logCall(call *ast.CallExpr) (keys []ast.Expr, ok bool) {
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return nil, false
	}
	name := ""
	switch x := f.X.(type) {
	case *ast.Ident:
		name = x.Name
	case *ast.SelectorExpr:
		name = x.Sel.Name
	}
	calls := map[string]map[string]int{
		"log": loggerCalls, "Logger": loggerCalls, "l": loggerCalls, "slog": loggerCalls,
		"reporter": reporterCalls, "Reporter": reporterCalls, "r": reporterCalls, "h": reporterCalls,
	}[name]
	before, ok := calls[f.Sel.Name]
	if !ok || len(call.Args) <= before {
		return nil, false
	}
	return call.Args[before:], true
}

func named(x ast.Expr, name string) bool {
	id, ok := x.(*ast.Ident)
	return ok && id.Name == name
}

// keyed sees that lines have only keys of the table.
type keyed struct {
	slog.Handler
	t testing.TB
}

// Handle implements slog.Handler.
func (k keyed) Handle(ctx context.Context, r slog.Record) error {
	if !strings.HasPrefix(r.Message, "kafka client: ") {
		r.Attrs(func(a slog.Attr) bool {
			if !isLogKey(a.Key) {
				defer func() { _ = recover() }() // the test may have ended
				k.t.Errorf("%s: the key %q is not in logKeys", r.Message, a.Key)
			}
			return true
		})
	}
	return k.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (k keyed) WithAttrs(attrs []slog.Attr) slog.Handler {
	return keyed{k.Handler.WithAttrs(attrs), k.t}
}
