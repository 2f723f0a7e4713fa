package sealift_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// docs/LOG.md has each warning, each error and each finding that the server can log,
// and none that it cannot.
func TestLogIsDocumented(t *testing.T) {
	text, err := os.ReadFile("docs/LOG.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		row, ok := strings.CutPrefix(line, "| `")
		if !ok {
			continue
		}
		cell, _, _ := strings.Cut(row, " |")
		for i, part := range strings.Split(cell, "`") {
			if i%2 == 0 && i < strings.Count(cell, "`") && part != "finding" { // between two of them
				documented[part] = true
			}
		}
	}
	logged := loggedMessages(t)
	for message, where := range logged {
		if !documented[message] {
			t.Errorf("docs/LOG.md does not have %q, of %s", message, where)
		}
	}
	for message := range documented {
		if logged[message] == "" {
			t.Errorf("docs/LOG.md has %q, which the server never logs", message)
		}
	}
}

// loggedMessages finds the texts that are constants in calls of Warn and Error, and of
// report, which counts before it warns, in log entries of these levels, and in Events of
// package audit, and says for each where it is.
func loggedMessages(t *testing.T) map[string]string {
	t.Helper()
	found := make(map[string]string)
	for _, folder := range []string{"admin", "cmd/sealiftd", "eventloop", "events", "internal/logqueue", "server", "session", "storage", "transfer"} {
		err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "storagetest") {
				return err
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				for _, e := range messagesIn(n) {
					if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
						message, err := strconv.Unquote(lit.Value)
						if err != nil {
							t.Fatal(err)
						}
						found[message] = set.Position(lit.Pos()).String()
					}
				}
				return true
			})
			return nil
		})
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	return found
}

// messagesIn returns the expressions in n itself, not below it, that are messages.
func messagesIn(n ast.Node) []ast.Expr {
	switch n := n.(type) {
	case *ast.CallExpr:
		f, ok := n.Fun.(*ast.SelectorExpr)
		switch {
		case ok && len(n.Args) > 0 && (f.Sel.Name == "Warn" || f.Sel.Name == "Error"):
			return n.Args[:1]
		case ok && len(n.Args) > 1 && (f.Sel.Name == "Log" || f.Sel.Name == "report"):
			return n.Args[1:2]
		}
	case *ast.CompositeLit:
		if f, ok := n.Type.(*ast.SelectorExpr); !ok || f.Sel.Name != "Entry" {
			return nil
		}
		for _, e := range n.Elts {
			if kv, ok := e.(*ast.KeyValueExpr); ok && kv.Key.(*ast.Ident).Name == "Message" {
				return []ast.Expr{kv.Value}
			}
		}
	case *ast.ValueSpec:
		if name, ok := n.Type.(*ast.Ident); ok && name.Name == "Event" {
			return n.Values
		}
	}
	return nil
}

// The reasons in the runbook are texts of the code, or their beginning.
func TestReasonsInRunbook(t *testing.T) {
	text, err := os.ReadFile("docs/OPERATING.md")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, pattern := range []string{"session/*.go", "storage/*.go"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			source, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(path, "_test.go") {
				code.Write(source)
			}
		}
	}
	_, table, _ := strings.Cut(string(text), "| reason | what to do |\n|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	reasons := 0
	for row := range strings.Lines(table) {
		cell, _, _ := strings.Cut(row, " |")
		for i, reason := range strings.Split(cell, "`") {
			if i%2 == 1 {
				reasons++
				if begin, more := strings.CutSuffix(reason, "…"); !strings.Contains(code.String(), `"`+begin) || !more && !strings.Contains(code.String(), `"`+reason+`"`) {
					t.Errorf("the runbook has the reason %q, and the code does not", reason)
				}
			}
		}
	}
	if reasons < 5 {
		t.Errorf("the runbook has %d reasons", reasons)
	}
}
