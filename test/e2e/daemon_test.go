//go:build unix

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sealift/codec"
	"sealift/internal/testpeer"
)

// daemon is a sealiftd that serves a directory. When its test ends it is
// stopped, and has to end with status 0 and without having logged an error.
type daemon struct {
	t      testing.TB
	dir    string // what --dir says
	addr   string // where it listens
	log    *logBuffer
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has ended

	expected string // what an error in the log may be about
}

// serve starts a sealiftd in a new directory, on a free port of the loopback.
func serve(t testing.TB, args ...string) *daemon {
	t.Helper()
	return serveIn(t, t.TempDir(), args...)
}

func serveIn(t testing.TB, dir string, args ...string) *daemon {
	t.Helper()
	d := launch(t, dir, nil, append([]string{"serve", "--dir", dir, "--listen", "127.0.0.1:0"}, args...)...)
	d.ready()
	return d
}

// twin serves another new directory, with the TLS key of d: to clients it is the same
// server, which has lost what it had.
func (d *daemon) twin() *daemon {
	d.t.Helper()
	dir := d.t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "tls"), os.DirFS(filepath.Join(d.dir, "tls"))); err != nil {
		d.t.Fatal(err)
	}
	return serveIn(d.t, dir)
}

// introduce has a sealift that runs in dir know the server by its TLS key, at an address
// that leads to it: there is no first contact then, which is a connection of its own.
func (d *daemon) introduce(dir, addr string) {
	d.t.Helper()
	if !testpeer.OverTLS() {
		return
	}
	text, err := os.ReadFile(knownServers(dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.t.Fatal(err)
	}
	put(d.t, knownServers(dir), fmt.Appendf(text, "%s tls=%s\n", addr, d.fingerprint()))
}

// launch starts a sealiftd with an address file, and does not wait for it.
func launch(t testing.TB, dir string, env []string, args ...string) *daemon {
	t.Helper()
	return launchTo(t, nil, dir, env, args...)
}

// launchTo is launch with another standard error, unless that is nil.
func launchTo(t testing.TB, stderr *os.File, dir string, env []string, args ...string) *daemon {
	t.Helper()
	d := &daemon{t: t, dir: dir, log: newLogBuffer(), exited: make(chan struct{})}
	_ = os.Remove(d.addrFile())
	d.cmd = exec.Command(sealiftd, append(args, "--addr-file", d.addrFile())...)
	d.cmd.Dir, d.cmd.Env, d.cmd.Stderr = dir, environment(append(testpeer.ServerVariables(), env...)...), d.log
	if stderr != nil {
		d.cmd.Stderr = stderr
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = d.cmd.Wait()
		close(d.exited)
	}()
	t.Cleanup(func() {
		if d.running() {
			d.stop()
		}
		for line := range strings.Lines(d.log.String()) {
			bad := strings.Contains(line, `"level":"error"`) || strings.Contains(line, "panic")
			if bad && (d.expected == "" || !strings.Contains(line, d.expected)) {
				t.Errorf("sealiftd logged: %s", line)
			}
		}
		if t.Failed() {
			t.Logf("sealiftd in %s:\n%s", dir, tail(d.log.String(), 40))
		}
	})
	return d
}

// transferInfo is the text of a transfer.info: to a server at addr, as the user, a file.
func transferInfo(addr, user, file string) []byte {
	if testpeer.OverTLS() {
		addr = "tls://" + addr
	}
	return []byte(addr + "\n" + user + "\n" + file + "\n")
}

func (d *daemon) addrFile() string { return filepath.Join(d.dir, "addr") }

// ready waits until the server accepts connections.
func (d *daemon) ready() {
	d.t.Helper()
	eventually(d.t, "sealiftd listens", func() bool {
		b, err := os.ReadFile(d.addrFile())
		if errors.Is(err, fs.ErrNotExist) {
			if !d.running() {
				d.t.Fatalf("sealiftd ended:\n%s", d.log)
			}
			return false
		}
		d.addr = strings.TrimSpace(string(b))
		return true
	})
}

func (d *daemon) running() bool {
	select {
	case <-d.exited:
		return false
	default:
		return true
	}
}

func (d *daemon) signal(s os.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		d.t.Fatalf("%v: %v", s, err)
	}
}

// wait waits for the end of the process.
func (d *daemon) wait() *os.ProcessState {
	d.t.Helper()
	select {
	case <-d.exited:
	case <-time.After(patience):
		_ = d.cmd.Process.Signal(syscall.SIGQUIT) // writes where it hangs
		<-d.exited
		d.t.Fatalf("sealiftd did not end:\n%s", d.log)
	}
	return d.cmd.ProcessState
}

// stop ends the server in good order.
func (d *daemon) stop() {
	d.t.Helper()
	d.signal(syscall.SIGTERM)
	if state := d.wait(); state.ExitCode() != 0 {
		d.t.Errorf("sealiftd ended with %v after SIGTERM", state)
	}
}

// kill ends the server as kill -9 does.
func (d *daemon) kill() {
	d.t.Helper()
	d.signal(syscall.SIGKILL)
	d.wait()
}

// stored is where the server keeps a client's file.
func (d *daemon) stored(id codec.ClientID, path string) string {
	return filepath.Join(d.dir, "files", id.String(), filepath.FromSlash(path))
}

// fileRow is a line of "sealiftd files --json", and of "verify --json".
type fileRow struct {
	Client   string    `json:"client"`
	FileName string    `json:"file_name"`
	Path     string    `json:"path"`
	Verified bool      `json:"verified"`
	Missing  bool      `json:"missing"`
	Size     int64     `json:"size_bytes"`
	Cksum    uint32    `json:"cksum"`
	Received time.Time `json:"received"`

	Taken   *time.Time `json:"taken"`
	Deleted bool       `json:"deleted"`

	OK    bool   `json:"ok"`    // of verify
	Error string `json:"error"` // of verify
}

// clientRow is a line of "sealiftd clients --json".
type clientRow struct {
	ID       string     `json:"id"`
	Name     string     `json:"name"`
	Key      bool       `json:"public_key"`
	TLSKey   string     `json:"tls_key"` // that it is pinned to
	LastSeen *time.Time `json:"last_seen"`
	Disabled bool       `json:"disabled"`
	Added    bool       `json:"added"`
}

// rows reads one JSON object a line.
func rows[T any](t testing.TB, text string) (all []T) {
	t.Helper()
	for dec := json.NewDecoder(strings.NewReader(text)); ; {
		var row T
		err := dec.Decode(&row)
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatalf("%v in %q", err, text)
		}
		all = append(all, row)
	}
}

// files is what "sealiftd files" lists.
func (d *daemon) files() []fileRow {
	d.t.Helper()
	return rows[fileRow](d.t, run(d.t, d.dir, sealiftd, "files", "--json", "--dir", d.dir).succeeded(d.t).stdout)
}

// clients is what "sealiftd clients" lists.
func (d *daemon) clients() []clientRow {
	d.t.Helper()
	return rows[clientRow](d.t, run(d.t, d.dir, sealiftd, "clients", "--json", "--dir", d.dir).succeeded(d.t).stdout)
}

// checkVerified makes sure that the registry has the client's file at path once,
// verified, that "sealiftd verify" finds no fault, and that it holds content.
func (d *daemon) checkVerified(id codec.ClientID, path string, content []byte) {
	d.t.Helper()
	found := 0
	for _, row := range d.files() {
		if row.Client != id.String() || row.Path != "files/"+id.String()+"/"+path {
			continue
		}
		found++
		if !row.Verified || row.Size != int64(len(content)) {
			d.t.Errorf("%s: %+v, want it verified, with %d bytes", path, row, len(content))
		}
	}
	if found != 1 {
		d.t.Errorf("%s is in the registry %d times", path, found)
	}
	run(d.t, d.dir, sealiftd, "verify", "--dir", d.dir).succeeded(d.t)
	checkFile(d.t, d.stored(id, path), bytes.NewReader(content))
}

// logBuffer is what a process writes to its standard error.
type logBuffer struct {
	mu   sync.Mutex
	cond sync.Cond
	text []byte
}

func newLogBuffer() *logBuffer {
	b := new(logBuffer)
	b.cond.L = &b.mu
	return b
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p...)
	b.cond.Broadcast()
	return len(p), nil
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.text)
}

// await waits until the server has logged message, and returns that line.
func (d *daemon) await(message string) string {
	d.t.Helper()
	late := time.AfterFunc(patience, func() {
		d.log.mu.Lock()
		defer d.log.mu.Unlock()
		d.log.cond.Broadcast()
	})
	defer late.Stop()
	end := time.Now().Add(patience)
	d.log.mu.Lock()
	defer d.log.mu.Unlock()
	for {
		for line := range strings.Lines(string(d.log.text)) {
			if strings.Contains(line, message) {
				return line
			}
		}
		if time.Now().After(end) {
			d.t.Fatalf("sealiftd did not log %q", message)
		}
		d.log.cond.Wait()
	}
}

// tail returns the last n lines.
func tail(text string, n int) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}
