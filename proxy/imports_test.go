package proxy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestImports keeps the shape of the house: who never imports whom. A test may import
// what it likes.
func TestImports(t *testing.T) {
	const module = "github.com/tidemarkhq/tidemark/"
	never := map[string][]string{ // packages, below them too
		"proxy/pipeline":  {"proxy/group", "proxy/txn", "proxy/recovery", "proxy/position"},
		"proxy/txn":       {"proxy/group", "proxy/pipeline", "proxy/recovery", "proxy/status", "proxy/position"},
		"proxy/group":     {"proxy/txn", "proxy/pipeline", "proxy/recovery", "proxy/status", "proxy/position"},
		"proxy/recovery":  {"proxy/pipeline", "proxy/status", "proxy/position"},
		"proxy/status":    {"proxy/preflight", "proxy/group", "proxy/txn", "proxy/pipeline", "proxy/recovery"},
		"proxy/fault":     {"proxy/status", "proxy/preflight", "proxy/group", "proxy/txn", "proxy/pipeline", "proxy/recovery"},
		"proxy/preflight": {"proxy/status", "proxy/group", "proxy/txn", "proxy/pipeline", "proxy/recovery"},
		"emit":            {"proxy"},
		"reorder":         {"proxy", "emit"},
		"watermark":       {"proxy", "emit", "reorder"},
	}
	only := map[string][]string{ // of the packages in proxy
		"proxy/admin": {"proxy/status", "proxy/config", "proxy/clocks", "proxy/fault", "proxy/admin/page"},
	}
	files := 0
	fset := token.NewFileSet()
	err := filepath.WalkDir("..", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{"../bench", "../deploy", "../docs", "../.git", "../.ci", "../proxy/admin/browser"}, file):
			return filepath.SkipDir
		case d.IsDir(), !strings.HasSuffix(file, ".go"), strings.HasSuffix(file, "_test.go"):
			return nil
		}
		files++
		parsed, err := parser.ParseFile(fset, file, nil, 0)
		if err != nil {
			return err
		}
		of := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(file)), "../")
		for _, spec := range parsed.Imports {
			what, _ := strconv.Unquote(spec.Path.Value)
			what, ours := strings.CutPrefix(what, module)
			if !ours {
				continue
			}
			if what == "proxy" && strings.HasPrefix(of, "proxy/") {
				t.Errorf("%s imports the driver", file)
			}
			for from, banned := range never {
				if below(of, from) && slices.ContainsFunc(banned, func(b string) bool { return below(what, b) }) {
					t.Errorf("%s imports %s, which %s never does", file, what, from)
				}
			}
			for from, allowed := range only {
				if below(of, from) && below(what, "proxy") && !slices.Contains(allowed, what) {
					t.Errorf("%s imports %s; %s imports only %v", file, what, from, allowed)
				}
			}
		}
		if of == "emit" {
			noClient(t, fset, file, parsed)
		}
		return nil
	})
	if err != nil || files < 100 {
		t.Fatalf("looked at %d files: %v", files, err)
	}
}

func below(pkg, tree string) bool { return pkg == tree || strings.HasPrefix(pkg, tree+"/") }

// noClient checks that a file starts no goroutine and has no Kafka client.
func noClient(t *testing.T, fset *token.FileSet, file string, parsed *ast.File) {
	ast.Inspect(parsed, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			t.Errorf("%s: a goroutine in package emit", fset.Position(n.Pos()))
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && (x.Name == "kadm" || x.Name == "kgo" && (n.Sel.Name == "Client" || n.Sel.Name == "NewClient")) {
				t.Errorf("%s: a Kafka client in package %s", fset.Position(n.Pos()), path.Base(filepath.Dir(file)))
			}
		}
		return true
	})
}

// TestSessionIsTheDriver: the session's methods are in a few files of this package, and a
// method is not spread into packages that it does not belong to.
func TestSessionIsTheDriver(t *testing.T) {
	const most = 12 // files
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var with []string
	fset := token.NewFileSet()
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(fset, file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(parsed.Decls, func(d ast.Decl) bool {
			f, ok := d.(*ast.FuncDecl)
			return ok && f.Recv != nil && receiver(f) == "session"
		}) {
			with = append(with, file)
		}
	}
	if len(with) > most || len(with) == 0 {
		t.Errorf("methods of session are in %d files: %v", len(with), with)
	}
}

func receiver(f *ast.FuncDecl) string {
	x := f.Recv.List[0].Type
	if star, ok := x.(*ast.StarExpr); ok {
		x = star.X
	}
	id, _ := x.(*ast.Ident)
	if id == nil {
		return ""
	}
	return id.Name
}
