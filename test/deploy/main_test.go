//go:build linux && !race

package deploy

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long anything may take that is waited for.
const patience = 2 * time.Minute

const version = "1.2.3"

// top is the checkout.
var top = func() string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	return dir
}()

// work is where everything is built. It is removed at the end.
var work string

func TestMain(m *testing.M) {
	var err error
	if work, err = os.MkdirTemp("", "sealift-deploy-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status := m.Run()
	_ = os.RemoveAll(work)
	os.Exit(status)
}

// need skips a test where programs are missing, and fails it where all have to be there. A
// name may be "root", which is to be that user.
func need(t *testing.T, names ...string) {
	t.Helper()
	var missing []string
	for _, name := range names {
		_, err := exec.LookPath(name)
		if name == "root" && os.Getuid() != 0 || name != "root" && err != nil {
			missing = append(missing, name)
		}
	}
	if missing != nil {
		lack(t, "missing: "+strings.Join(missing, ", "))
	}
}

func lack(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("SEALIFT_INTEROP") == "1" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// output runs a command, which has to succeed, and returns what it prints.
func output(t *testing.T, command string, args ...string) string {
	t.Helper()
	return finish(t, exec.Command(command, args...))
}

func finish(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s%s", cmd.Args, err, out, errs.String())
	}
	return string(out)
}

// environment is ours, without the variables that stand for flags.
func environment(more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "SEALIFT_") })
	return append(env, more...)
}

// nfpm is the packager, as build.sh names it.
var nfpm = sync.OnceValues(func() (string, error) {
	script, err := os.ReadFile(filepath.Join(top, "deploy/build.sh"))
	if err != nil {
		return "", err
	}
	m := regexp.MustCompile(`(?m)^nfpm=(\S+)$`).FindSubmatch(script)
	if m == nil {
		return "", fmt.Errorf("build.sh names no nfpm")
	}
	out, err := exec.Command("go", "run", string(m[1]), "--version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("nfpm: %s", bytes.TrimSpace(out))
	}
	return string(m[1]), nil
})

// dist is what build.sh has made of both architectures, once for all tests.
func dist(t *testing.T) string {
	t.Helper()
	need(t, "bash", "git", "gzip")
	if _, err := nfpm(); err != nil {
		lack(t, err.Error())
	}
	watch(t)
	if out, err := build(); err != nil {
		t.Fatalf("build.sh: %v\n%s", err, out)
	}
	return filepath.Join(work, "dist")
}

var build = sync.OnceValues(func() (string, error) {
	cmd := exec.Command("bash", filepath.Join(top, "deploy/build.sh"), "amd64", "arm64")
	cmd.Env = environment("OUT="+filepath.Join(work, "dist"), "VERSION=v"+version, "SOURCE_DATE_EPOCH=1790000000")
	out, err := cmd.CombinedOutput()
	return string(out), err
})

// watch has go test run a test again when a file of the checkout has changed: its cache goes
// by what the test itself opens.
func watch(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && (d.Name() == ".git" || path == filepath.Join(top, "dist")) {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// here is a program that build.sh has made for this machine.
func here(t *testing.T, name string) string {
	t.Helper()
	return filepath.Join(dist(t), runtime.GOARCH, "bin", name)
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
