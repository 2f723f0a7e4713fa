//go:build unix

// Package e2e tests the programs as their users have them: sealiftd and sealift
// are built, started in directories of their own, and watched from outside,
// through the network, their output, their status and the files they leave.
//
// With SEALIFT_LARGE=1 the sizes are those that the programs are made for, up to
// 4,000,000,000 bytes; without it they are smaller, and the tests the same.
//
// With SEALIFT_TEST_TLS=1 everything runs over TLS, and the servers turn away what does
// not.
//
// What waits, waits for something that it can see, and fails after [patience].
package e2e

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealift/internal/testpeer"
)

// patience is how long anything may take. It is only there so that a program
// that hangs fails its test.
const patience = 2 * time.Minute

// sealift and sealiftd are the paths of the programs.
var sealift, sealiftd string

var large = os.Getenv("SEALIFT_LARGE") == "1"

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sealift-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	sealift, sealiftd = filepath.Join(dir, "sealift"), filepath.Join(dir, "sealiftd")
	build := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "sealift/cmd/sealift", "sealift/cmd/sealiftd")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s%v\n", out, err)
		return 1
	}
	// Many tests wait for what another process waits for: more of them at a time
	// than there are processors cost nothing.
	flag.Parse()
	if !isSet("test.parallel") {
		_ = flag.Set("test.parallel", "8") // a number it takes
	}
	return m.Run()
}

func isSet(name string) (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

// knownServers is the known_servers of a sealift that runs in dir.
func knownServers(dir string) string { return filepath.Clean(dir) + ".known_servers" }

// environment is ours, without the variables that stand for flags.
func environment(more ...string) []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "SEALIFT_") {
			env = append(env, e)
		}
	}
	return append(env, more...)
}

// result is what a run of a program left.
type result struct {
	stdout, stderr string
	status         int // -1 if a signal ended it
}

// run runs a program in dir until it ends.
func run(t testing.TB, dir, program string, args ...string) result {
	t.Helper()
	return runEnv(t, dir, nil, program, args...)
}

func runEnv(t testing.TB, dir string, env []string, program string, args ...string) result {
	t.Helper()
	return start(t, dir, env, program, args...).wait()
}

// process is a program that runs. It does not outlive its test.
type process struct {
	t              testing.TB
	ctx            context.Context // ends when the program has taken too long
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
}

func start(t testing.TB, dir string, env []string, program string, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	p := &process{t: t, ctx: ctx, cmd: exec.CommandContext(ctx, program, args...)}
	variables := []string{"SEALIFT_KNOWN_SERVERS=" + knownServers(dir)} // and not the user's
	if program != sealiftd {
		variables = append(variables, testpeer.ClientVariables()...)
	}
	p.cmd.Dir, p.cmd.Env = dir, environment(append(variables, env...)...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = p.cmd.Wait()
	})
	return p
}

// wait waits for the end of the process.
func (p *process) wait() result {
	p.t.Helper()
	err := p.cmd.Wait()
	var exit *exec.ExitError
	if p.ctx.Err() != nil || err != nil && !errors.As(err, &exit) {
		p.t.Fatalf("%q: %v\n%s", p.cmd.Args, err, p.stderr.String())
	}
	return result{p.stdout.String(), p.stderr.String(), p.cmd.ProcessState.ExitCode()}
}

// succeeded makes sure of status 0.
func (r result) succeeded(t testing.TB) result {
	t.Helper()
	if r.status != 0 {
		t.Fatalf("status %d\nstdout: %s\nstderr: %s", r.status, r.stdout, r.stderr)
	}
	return r
}

// failed makes sure of status 1, and that the last line of stderr, but for a
// hint, is a fatal error which says why.
func (r result) failed(t testing.TB, why string) result {
	t.Helper()
	return r.ended(t, 1, why)
}

// later is failed with the status of sealift that says: try later.
func (r result) later(t testing.TB, why string) result {
	t.Helper()
	return r.ended(t, 75, why)
}

func (r result) ended(t testing.TB, status int, why string) result {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(r.stderr), "\n")
	if n := len(lines) - 1; n > 0 && strings.HasPrefix(lines[n], "Hint: ") {
		lines = lines[:n]
	}
	last := lines[len(lines)-1]
	if r.status != status || !strings.HasPrefix(last, "Fatal error: ") || !strings.Contains(last, why) {
		t.Fatalf("status %d, want %d and a fatal error that says %q\nstdout: %s\nstderr: %s", r.status, status, why, r.stdout, r.stderr)
	}
	return r
}

// randomBytes returns n bytes, the same for the same seed.
func randomBytes(n int, seed byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// put writes a file, and the folders that it needs.
func put(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// get reads a file.
func get(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// checkFile makes sure that the file at path is want, byte for byte.
func checkFile(t testing.TB, path string, want io.Reader) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); ; off += int64(len(a)) {
		n, errA := io.ReadFull(f, a)
		m, errB := io.ReadFull(want, b)
		if n != m || !bytes.Equal(a[:n], b[:m]) {
			t.Errorf("%s differs from what was sent, in the MiB at %d (%d and %d bytes there)", path, off, n, m)
			return
		}
		if errA != nil || errB != nil {
			return // both ended: n == m
		}
	}
}

// eventually calls done now and then until it returns true. It is for what can
// only be looked at: a file, a process.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !done(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
	}
}
