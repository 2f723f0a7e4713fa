// Package testservices starts the services that tests and benchmarks need beside Sealift, in
// temporary directories and on loopback: they end with the test.
//
// A service whose program is not on this machine is an [ErrMissing]. A test skips then, and
// fails where SEALIFT_INTEROP is 1: [Need] does that.
package testservices

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
)

// ErrMissing is a program that is not on this machine.
var ErrMissing = errors.New("the program is not on this machine")

// TB is what is used of testing.TB.
type TB interface {
	Helper()
	Cleanup(func())
	Fatal(args ...any)
	Skip(args ...any)
	Logf(format string, args ...any)
}

// Need ends the test if err is not nil: it is skipped where a program is missing, unless
// SEALIFT_INTEROP is 1, and fails otherwise.
func Need(t TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case errors.Is(err, ErrMissing) && os.Getenv("SEALIFT_INTEROP") != "1":
		t.Skip(err)
	default:
		t.Fatal(err)
	}
}

// starts makes the starts of all services, on a thread that never ends: on Linux a service
// ends with the thread that has started it, and tests have threads that end.
var starts = sync.OnceValue(func() chan<- func() {
	todo := make(chan func())
	go func() {
		runtime.LockOSThread()
		for do := range todo {
			do()
		}
	}()
	return todo
})

// start starts cmd.
func start(cmd *exec.Cmd) error {
	started := make(chan error)
	starts() <- func() { started <- cmd.Start() }
	return <-started
}

// program finds a program in PATH, or in one of the folders, which may be patterns: the last
// match of the first that has one.
func program(name string, folders ...string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, folder := range folders {
		found, _ := filepath.Glob(filepath.Join(folder, name))
		if len(found) > 0 {
			return found[len(found)-1], nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, ErrMissing)
}

// freePort returns a port of loopback that nobody listens on. It is none that the system gives to
// connections that go out, so that a server can be started on it again.
func freePort() (int, error) {
	for range 1000 {
		port := 12_000 + rand.IntN(18_000)
		if l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("there is no free port")
}

// tail returns the end of a log, for an error.
func tail(path string) string {
	text, _ := os.ReadFile(path)
	return string(text[max(0, len(text)-2000):])
}
