package sealift_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// units are what the key of a number in a log line, or in JSON, ends in. A key may be
// one alone.
var units = []string{"bytes", "seconds", "mb_per_second", "bytes_per_second"}

// numbers are the keys of numbers that have no unit: they count things, or name them.
var numbers = []string{
	"actual_files", "allowed", "asked", "attempt", "attempts", "cksum", "code", "connection", "connections", "connections_in_all", "connections_limit", "count", "failed", "files", "kept_files", "left_out",
	"limit", "limit_per_address", "number", "of", "others", "packet", "packets", "pinned", "port", "quota_files", "received", "refused", "registered", "retry", "times", "transfers_in_all", "verified",
}

// moments are keys of points in time. That of a CloudEvent is called time.
var moments = []string{"time"}

// measures are words that speak of a size or a duration, and so are no key by themselves.
var measures = []string{
	"size", "length", "free", "memory", "rate", "took", "open", "time", "duration", "timeout", "pause", "delay", "wait", "left", "at_most", "age", "ttl", "elapsed",
}

// The name of a size or a duration in a log line or in JSON says its unit.
func TestUnitsAreNamed(t *testing.T) {
	watch(t)
	seen := 0
	for _, path := range sources(t) {
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		check := func(at token.Pos, what, key string, number bool) {
			seen++
			last := key[strings.LastIndex(key, "_")+1:]
			if hasUnit(key) || !number && slices.Contains(moments, key) || !number && !slices.Contains(measures, key) && !slices.Contains(measures, last) || number && slices.Contains(numbers, key) {
				return
			}
			t.Errorf("%s: the %s %q: want a unit at its end, one of %v, or an entry in numbers", set.Position(at), what, key, units)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if key, number, ok := zapField(n); ok {
					check(n.Pos(), "field", key, number)
				} else if isLogCall(n) {
					for _, arg := range words(n.Args[1:]) {
						if key, ok := text(arg); ok {
							check(arg.Pos(), "word", key, false)
						}
					}
				}
			case *ast.Field:
				if key, ok := jsonKey(n); ok {
					check(n.Pos(), "JSON key", key, isNumber(n.Type))
				}
			}
			return true
		})
	}
	if seen < 100 {
		t.Errorf("only %d names were found", seen)
	}
}

// sources are the files of the product.
func sources(t *testing.T) (all []string) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (slices.Contains([]string{"bench", "test", ".git"}, path) || d.Name() == "testdata"):
			return fs.SkipDir
		case strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go"):
			all = append(all, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func hasUnit(key string) bool {
	return slices.ContainsFunc(units, func(u string) bool { return key == u || strings.HasSuffix(key, "_"+u) })
}

// zapField is the key of a call such as zap.Int64("bytes", n).
func zapField(call *ast.CallExpr) (key string, number, ok bool) {
	f, isSelector := call.Fun.(*ast.SelectorExpr)
	if !isSelector || len(call.Args) < 2 {
		return "", false, false
	}
	if pkg, isName := f.X.(*ast.Ident); !isName || pkg.Name != "zap" {
		return "", false, false
	}
	kind := strings.TrimSuffix(strings.TrimSuffix(f.Sel.Name, "s"), "p")
	number = strings.HasPrefix(kind, "Int") || strings.HasPrefix(kind, "Uint") || strings.HasPrefix(kind, "Float") || kind == "Duration"
	key, ok = text(call.Args[0])
	return key, number, ok
}

// isLogCall reports whether a call is one of a slog.Logger: a message and words in pairs.
func isLogCall(call *ast.CallExpr) bool {
	f, ok := call.Fun.(*ast.SelectorExpr)
	return ok && len(call.Args) > 1 && slices.Contains([]string{"Debug", "Info", "Warn", "Error", "With"}, f.Sel.Name)
}

// words are the arguments of a call, with those of append in the place of an append.
func words(args []ast.Expr) (all []ast.Expr) {
	for _, arg := range args {
		if call, ok := arg.(*ast.CallExpr); ok {
			if f, ok := call.Fun.(*ast.Ident); ok && f.Name == "append" {
				all = append(all, words(call.Args)...)
			}
			continue
		}
		all = append(all, arg)
	}
	return all
}

func text(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

// jsonKey is the name in the tag of a struct's field.
func jsonKey(f *ast.Field) (string, bool) {
	if f.Tag == nil {
		return "", false
	}
	tag, err := strconv.Unquote(f.Tag.Value)
	if err != nil {
		return "", false
	}
	name, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
	return name, name != "" && name != "-"
}

func isNumber(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.StarExpr:
		return isNumber(e.X)
	case *ast.Ident:
		return strings.HasPrefix(e.Name, "int") || strings.HasPrefix(e.Name, "uint") || strings.HasPrefix(e.Name, "float")
	case *ast.SelectorExpr:
		return e.Sel.Name == "Duration"
	}
	return false
}
