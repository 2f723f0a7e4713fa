package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

// A service manager is told when the server reads its settings again, with the time at
// which it began, and when it goes by them: systemctl reload waits for that.
func TestServiceManagerOfAReload(t *testing.T) {
	dir := t.TempDir()
	n := newNotifications(t, dir)
	config := filepath.Join(dir, "sealiftd.yaml")
	put(t, config, []byte("max-file-size: 1000\n"))
	d := launch(t, dir, []string{"NOTIFY_SOCKET=" + filepath.Join(dir, "notify")}, "--dir", dir, "--listen", "127.0.0.1:0", "--config", config)
	if told := n.next(); told != "READY=1" {
		t.Fatalf("told %q first", told)
	}
	d.ready()
	p := login(t, d, "n")
	d.expected = "the settings cannot be used"
	for _, step := range []struct {
		text  string
		limit int
	}{{"max-file-size: 10\n", 10}, {"max-file-size: 20\n", 20}, {"rubbish\n", 20}} {
		put(t, config, []byte(step.text))
		began := monotonic(t)
		d.signal(syscall.SIGHUP)
		told, at, _ := strings.Cut(n.next(), "\nMONOTONIC_USEC=")
		if usec, err := strconv.ParseInt(at, 10, 64); told != "RELOADING=1" || err != nil || usec < began || usec > monotonic(t) {
			t.Errorf("told %q at %q, after a signal at %d", told, at, began)
		}
		if told := n.next(); told != "READY=1" {
			t.Errorf("told %q at the end", told)
		}
		p.upload("f", make([]byte, step.limit))
		p.refuses(p.File("too large", make([]byte, step.limit+1)))
	}
	d.signal(syscall.SIGTERM)
	if told := n.next(); told != "STOPPING=1" {
		t.Errorf("told %q at the end", told)
	}
	d.wait()
}

// monotonic is the time that systemd goes by, in microseconds.
func monotonic(t *testing.T) int64 {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	return ts.Nano() / 1000
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
