package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// notifications is the socket that a service manager listens on.
type notifications struct {
	t    *testing.T
	conn *net.UnixConn
}

func newNotifications(t *testing.T, dir string) *notifications {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &notifications{t, conn}
}

// next is what the manager is told next.
func (n *notifications) next() string {
	n.t.Helper()
	_ = n.conn.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 4096)
	m, err := n.conn.Read(buf)
	if err != nil {
		n.t.Fatal(err)
	}
	return string(buf[:m])
}

// A service manager is told when the server accepts connections, again and again that
// it answers, and that it stops.
func TestServiceManager(t *testing.T) {
	dir := t.TempDir()
	n := newNotifications(t, dir)
	env := []string{"NOTIFY_SOCKET=" + filepath.Join(dir, "notify"), "WATCHDOG_USEC=200000"}
	p := start(t, dir, env, sealiftd, "--listen", "127.0.0.1:0", "--addr-file", "addr")
	told := n.next()
	for told == "WATCHDOG=1" { // loops may answer before anybody is accepted
		told = n.next()
	}
	if told != "READY=1" {
		t.Fatalf("told %q first", told)
	}
	if _, err := os.Stat(filepath.Join(dir, "addr")); err != nil {
		t.Error("ready before it accepts: ", err)
	}
	for range 3 {
		if told := n.next(); told != "WATCHDOG=1" {
			t.Errorf("told %q, want a feed of the watchdog", told)
		}
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for told = n.next(); told == "WATCHDOG=1"; told = n.next() {
	}
	if told != "STOPPING=1" {
		t.Errorf("told %q at the end", told)
	}
	if r := p.wait(); r.status != 0 {
		t.Errorf("%d: %s", r.status, r.stderr)
	}
}

// A server takes the socket that its service manager has opened, and clients that came
// before it was started.
func TestPassedSocket(t *testing.T) {
	dir := t.TempDir()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_ = l.Close() // f is the only one that has it
	early, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer early.Close()
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" --dir "$1"`, sealiftd, dir)
	cmd.Env, cmd.ExtraFiles = environment(), []*os.File{f}
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, log.String())
		}
	}()
	put := filepath.Join(dir, "a file")
	if err := os.WriteFile(put, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := run(t, dir, sealift, "send", "--server", l.Addr().String(), "--name", "alice", put); r.status != 0 {
		t.Errorf("%d: %s%s", r.status, r.stdout, r.stderr)
	}
	_ = early.SetDeadline(time.Now().Add(patience))
	if _, err := early.Write(make([]byte, 23)); err != nil { // no request of the protocol
		t.Fatal(err)
	}
	if _, err := early.Read(make([]byte, 7)); err != nil {
		t.Errorf("the client that came first got no answer: %v", err)
	}
}
