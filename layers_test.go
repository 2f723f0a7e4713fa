package sealift_test

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	module      = "sealift"
	gnet        = "github.com/panjf2000/gnet/v2"
	sqlite      = "modernc.org/sqlite"
	prometheus  = "github.com/prometheus/client_golang"
	pgx         = "github.com/jackc/pgx/v5"
	minio       = "github.com/minio/minio-go/v7"
	proxyproto  = "github.com/pires/go-proxyproto"
	testpeer    = module + "/internal/testpeer"
	services    = module + "/internal/testservices"
	notStandard = "all but the standard library"
)

// layers says for the folders of the module what their packages may not import,
// directly or through others. A folder stands for all below it.
var layers = []struct {
	folder string
	never  []string // folders of the module, other modules, or notStandard
}{
	{"codec", []string{notStandard}},
	{"crypto", []string{"codec", "transfer", "session", "eventloop", "events", "server", "client", "storage", "cmd", "test", gnet}},
	// No connection, no replies.
	{"transfer", append(stores, "session", "eventloop", "admin", "events", "server", "client", "cmd", "internal", "test", gnet, sqlite)},
	// No sockets, no SQL, no files.
	{"session", append(stores, "eventloop", "admin", "events", "server", "client", "cmd", "internal", "test", gnet, sqlite)},
	{"storage", []string{"eventloop", "admin", "events", "server", "client", "cmd", "internal", "test", gnet}},
	{"storage/audit", []string{"session", "transfer"}},
	{"storage/files", []string{"session", "transfer"}},
	{"storage/memory", []string{"session", "transfer"}},
	{"storage/postgres", []string{"session", "transfer", "storage/files", "storage/sqlite", "storage/s3", sqlite, minio}},
	{"storage/s3", []string{"session", "transfer", "storage/files", "storage/sqlite", "storage/postgres", sqlite, pgx}},
	{"storage/sqlite", []string{"session", "transfer"}},
	{"eventloop", append(stores, "admin", "events", "server", "client", "cmd", "internal", "test", sqlite)},
	// It has functions and numbers of the server, and knows none of its parts.
	{"admin", []string{"codec", "crypto", "transfer", "session", "eventloop", "events", "storage", "server", "client", "cmd", "internal", "test", gnet, sqlite}},
	// It knows what is on record, and not who has put it there.
	{"events", append(stores, "session", "transfer", "eventloop", "admin", "server", "client", "cmd", "internal", "test", gnet, sqlite)},
	{"server", []string{"client", "cmd", "test"}},
	{"client", []string{"transfer", "session", "eventloop", "admin", "events", "server", "storage", "cmd", "test", gnet}},
	{"internal", []string{"cmd", "test"}},
	// A peer that tests the product with none of its parts but messages and ciphers.
	{"internal/testpeer", []string{"session", "eventloop", "client", "storage", "cmd", "internal", "test", gnet, sqlite}},
	// It starts what the product needs, and nothing of the product.
	{"internal/testservices", []string{"codec", "crypto", "transfer", "session", "eventloop", "admin", "events", "server", "client", "storage", "cmd", gnet, sqlite}},
	{"cmd", []string{"test"}},
}

// stores are what is below the contract of storage.
var stores = []string{"storage/audit", "storage/files", "storage/memory", "storage/postgres", "storage/s3", "storage/sqlite", "storage/storagetest"}

// doors says for the folders behind them all folders of the module that their
// packages may import themselves.
var doors = map[string][]string{
	"cmd/sealiftd": {"server", "internal", "cmd/internal/demo"},
	"cmd/sealift":  {"client", "internal"},
	"eventloop":    {"session"},
	"admin":        {},
	"events":       {"storage"},
}

// alone says for packages, not those below them, all that they may depend on
// besides the standard library.
var alone = map[string][]string{
	"storage": {"codec"},
}

// direct says what only these folders may import themselves. Tests are not asked.
var direct = map[string][]string{
	gnet:       {"eventloop"},
	prometheus: {"admin"},
	pgx:        {"storage/postgres", "internal/testservices"},
	minio:      {"storage/s3", "internal/testservices"},
	proxyproto: {"eventloop"},
	testpeer:   {"test"},
	services:   {"test"},
}

// apart are modules of their own, which the product does without.
var apart = []string{"bench", "internal/asmgen", "test/browser"}

// sessionStd is what package session has no business with, though the standard
// library has it. What others of its imports need of it is theirs.
var sessionStd = []string{"net", "os", "database/sql", "syscall", "net/http"}

type listed struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string
}

// TestLayers: imports only point down.
func TestLayers(t *testing.T) {
	watch(t)
	packages := list(t, "./...")
	standard := make(map[string]bool)
	for _, p := range list(t, "-deps", "./...") {
		standard[p.ImportPath] = p.Standard
	}
	seen := make(map[string]bool)
	for _, p := range packages {
		for _, l := range layers {
			if !below(p.ImportPath, module+"/"+l.folder) {
				continue
			}
			seen[l.folder] = true
			for _, dep := range p.Deps {
				for _, never := range l.never {
					bad := below(dep, module+"/"+never)
					switch never {
					case notStandard:
						bad = !standard[dep] && !below(dep, module+"/"+l.folder)
					case gnet, sqlite, pgx, minio:
						bad = below(dep, never)
					}
					if bad {
						t.Errorf("%s depends on %s", p.ImportPath, dep)
					}
				}
			}
		}
		if may, ok := alone[strings.TrimPrefix(p.ImportPath, module+"/")]; ok {
			for _, dep := range p.Deps {
				if !standard[dep] && !belowAny(dep, may) {
					t.Errorf("%s depends on %s", p.ImportPath, dep)
				}
			}
		}
		for _, dep := range p.Deps {
			if belowAny(dep, apart) {
				t.Errorf("%s depends on %s", p.ImportPath, dep)
			}
		}
		for folder, may := range doors {
			if !below(p.ImportPath, module+"/"+folder) {
				continue
			}
			seen[folder] = true
			for _, i := range p.Imports {
				if below(i, module) && !belowAny(i, may) {
					t.Errorf("%s imports %s", p.ImportPath, i)
				}
			}
		}
		for path, folders := range direct {
			for _, i := range p.Imports {
				if below(i, path) && !belowAny(p.ImportPath, folders) {
					t.Errorf("%s imports %s", p.ImportPath, i)
				}
			}
		}
		if p.ImportPath == module+"/session" {
			for _, i := range p.Imports {
				for _, never := range sessionStd {
					if i == never {
						t.Errorf("%s imports %s", p.ImportPath, i)
					}
				}
			}
		}
	}
	for _, l := range layers {
		if !seen[l.folder] {
			t.Errorf("there is no package in %s", l.folder)
		}
	}
	for folder := range doors {
		if !seen[folder] {
			t.Errorf("there is no package in %s", folder)
		}
	}
}

// below reports whether an import path is that package or one below it.
func below(path, of string) bool { return path == of || strings.HasPrefix(path, of+"/") }

func belowAny(path string, folders []string) bool {
	for _, f := range folders {
		if below(path, module+"/"+f) {
			return true
		}
	}
	return false
}

// watch has go test run this test again when a file has changed that go list
// will read: its cache goes by what the test itself opens.
func watch(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && d.Name() == ".git" {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func list(t *testing.T, args ...string) (all []listed) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Standard,Imports,Deps"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaint strings.Builder
	cmd.Stderr = &complaint
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(out); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("go list: %v\n%s", err, complaint.String())
	}
	return all
}
