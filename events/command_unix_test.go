//go:build unix

package events_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"sealift/events"
	"sealift/storage"
)

// shell is a target that runs a script with sh, in a folder of its own.
func shell(t *testing.T, script string) (c *events.Command, dir string, logged *observer.ObservedLogs) {
	t.Helper()
	core, logged := observer.New(zap.DebugLevel)
	dir = t.TempDir()
	return &events.Command{Args: []string{"sh", "-c", script}, Dir: dir, Source: "/sealift/test", Log: zap.New(core)}, dir, logged
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func tellWell(t *testing.T, c *events.Command, e *storage.Event) {
	t.Helper()
	if err := c.Tell(t.Context(), e); err != nil {
		t.Fatal(err)
	}
}

// A program gets all of an event, whatever its names have in them, and nothing of another.
func TestCommandGetsEvent(t *testing.T) {
	t.Setenv("SEALIFT_EVENT_PATH", "of another event")
	t.Setenv("SEALIFT_EVENT_OTHER", "x")
	t.Setenv("NOTIFY_SOCKET", "/run/x")
	t.Setenv("INHERITED", "yes")
	c, dir, _ := shell(t, `cat > told; env -0 > env; pwd > pwd`)
	e := hostile()
	tellWell(t, c, e)
	wantMessage(t, []byte(read(t, dir, "told")), e)
	env := make(map[string]string)
	for v := range strings.SplitSeq(read(t, dir, "env"), "\x00") {
		name, value, _ := strings.Cut(v, "=")
		if _, twice := env[name]; twice {
			t.Errorf("%s is there twice", name)
		}
		env[name] = value
	}
	id := e.Client.String()
	want := map[string]string{
		"ID": "EVENT1", "KIND": "verified", "WHY": "found_again", "TIME": "2026-03-04T05:06:07Z", "ATTEMPT": "3",
		"CLIENT_ID": id, "CLIENT_NAME": e.ClientName, "FILE_NAME": e.FileName, "PATH": e.Path, "STORED": "files/" + id + "/" + e.Path,
		"SIZE": "1099511627776", "CKSUM": "4294967295", "VERSION": "k1",
	}
	for name, value := range want {
		if got := env["SEALIFT_EVENT_"+name]; got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
	for name := range env {
		if _, ok := want[strings.TrimPrefix(name, "SEALIFT_EVENT_")]; strings.HasPrefix(name, "SEALIFT_EVENT_") && !ok || name == "NOTIFY_SOCKET" {
			t.Errorf("%s=%s is inherited", name, env[name])
		}
	}
	if env["INHERITED"] != "yes" {
		t.Error("the environment is not inherited")
	}
	resolved, err := filepath.EvalSymlinks(dir)
	if got := strings.TrimSpace(read(t, dir, "pwd")); err != nil || got != resolved && got != dir {
		t.Errorf("it ran in %s, want %s", got, dir)
	}

	tellWell(t, c, &storage.Event{ID: "E2", Kind: storage.EventRegistered, Happened: e.Happened, Client: clientID(1), ClientName: "ben"})
	if env := "\x00" + read(t, dir, "env"); !strings.Contains(env, "\x00SEALIFT_EVENT_PATH=\x00") || !strings.Contains(env, "\x00SEALIFT_EVENT_SIZE=\x00") {
		t.Error("an event about no file says something of one")
	}
}

// Status 0 accepts, any other status and any signal do not. Nobody has to read the event.
func TestCommandStatus(t *testing.T) {
	for script, accepted := range map[string]bool{
		"exit 0": true, "exit 1": false, "exit 75": false, "kill -9 $$": false, "exec 0<&-; exit 0": true,
	} {
		c, _, _ := shell(t, script)
		if err := c.Tell(t.Context(), hostile()); (err == nil) != accepted {
			t.Errorf("%s: %v", script, err)
		}
	}
	c, _, _ := shell(t, "")
	c.Args = []string{filepath.Join(t.TempDir(), "none")}
	if err := c.Tell(t.Context(), hostile()); err == nil {
		t.Error("a program that is not there has accepted an event")
	}
}

// gone waits for the end of a process.
func gone(t *testing.T, pid string) {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(pid))
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if ended(n) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d is still there", n)
		}
	}
}

// ended reports whether a process is not there, or is a zombie that somebody else has to
// wait for.
func ended(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && bytes.Contains(stat, []byte(") Z "))
}

// When a program has ended, or its time is over, so have its children: those too that hold
// its output open.
func TestCommandLeavesChildren(t *testing.T) {
	c, dir, _ := shell(t, `sleep 1000 & echo $! > child; echo well`)
	tellWell(t, c, hostile())
	gone(t, read(t, dir, "child"))

	c, dir, _ = shell(t, `(trap '' TERM; sleep 1000 & echo $! > child; echo $$ > parent; mv parent ready; wait) & wait`)
	ctx, cancel := context.WithCancelCause(t.Context())
	late := errors.New("its time is over")
	done := make(chan error, 1)
	go func() { done <- c.Tell(ctx, hostile()) }()
	for {
		if _, err := os.Stat(filepath.Join(dir, "ready")); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel(late)
	if err := <-done; !errors.Is(err, late) {
		t.Errorf("%v, want %v", err, late)
	}
	gone(t, read(t, dir, "child"))
	gone(t, read(t, dir, "ready"))
}

// A program that leaves its group and holds its output is not waited for.
func TestCommandLeavesDaemon(t *testing.T) {
	c, dir, _ := shell(t, `setsid sh -c 'echo $$ > pid; mv pid daemon; exec sleep 1000' & while ! test -e daemon; do :; done; echo well`)
	tellWell(t, c, hostile())
	pid, err := strconv.Atoi(strings.TrimSpace(read(t, dir, "daemon")))
	if err != nil {
		t.Fatal(err)
	}
	if ended(pid) {
		t.Error("a program that has left the group was killed")
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
}

// What a program prints goes to the log, up to a bound, and does not hold it up.
func TestCommandOutput(t *testing.T) {
	c, _, logged := shell(t, `echo to out; echo to err >&2; head -c 300000 /dev/zero | tr '\0' x; printf '\377'; exit 3`)
	if err := c.Tell(t.Context(), hostile()); err == nil {
		t.Error("status 3 was taken for success")
	}
	lines := logged.FilterMessage("the event command failed").All()
	if len(lines) != 1 {
		t.Fatalf("lines %+v", logged.All())
	}
	said, _ := lines[0].ContextMap()["output"].(string)
	if !strings.HasPrefix(said, "to out\nto err\nxxx") || !strings.HasSuffix(said, "bytes more)") || len(said) > 1100 {
		t.Errorf("output of %d bytes: %.40q", len(said), said)
	}
	c, _, logged = shell(t, `echo fine`)
	tellWell(t, c, hostile())
	if n := logged.FilterLevelExact(zap.DebugLevel).Len(); n != 1 || logged.Len() != 1 {
		t.Errorf("after success: %+v", logged.All())
	}
}
