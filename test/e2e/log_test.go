//go:build unix

package e2e

import (
	"bufio"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pipe is a pipe whose ends are closed when the test ends.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.Close()
		_ = w.Close()
	})
	return r, w
}

// chatter has a server with the log level debug log n lines: those about refusals are
// limited, and those about verdicts on nothing are not.
func (p *peer) chatter(n int) {
	p.t.Helper()
	for range n {
		p.settle()
	}
}

// goesOnWithoutLog makes sure that a server serves, logs and ends as ever.
func goesOnWithoutLog(d *daemon) {
	d.t.Helper()
	p := login(d.t, d, "n")
	p.chatter(2000) // several times what a pipe takes
	p.upload("file", []byte("content"))
	d.checkVerified(p.ID, "file", []byte("content"))
}

// A log that nobody reads holds nobody up. Who comes to read it after all is
// told how many lines are missing.
func TestLogThatNobodyReads(t *testing.T) {
	t.Parallel()
	r, w := pipe(t)
	dir := t.TempDir()
	d := launchTo(t, w, dir, nil, "serve", "--dir", dir, "--listen", "127.0.0.1:0", "--log-level", "debug")
	d.ready()
	goesOnWithoutLog(d)
	p := login(t, d, "more")
	p.chatter(8000) // more than waits
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	told := make(chan bool)
	go func() {
		lost := false
		for lines := bufio.NewScanner(r); lines.Scan(); {
			lost = lost || strings.Contains(lines.Text(), "lines of the log were lost")
		}
		told <- lost
	}()
	p.chatter(1)
	p.upload("file", []byte("content"))
	d.stop()
	if !<-told {
		t.Error("the log does not say that lines were lost")
	}
}

// SIGTERM ends a server although nobody reads its log.
func TestStopWhileNobodyReadsTheLog(t *testing.T) {
	t.Parallel()
	_, w := pipe(t)
	dir := t.TempDir()
	d := launchTo(t, w, dir, nil, "serve", "--dir", dir, "--listen", "127.0.0.1:0", "--log-level", "debug")
	d.ready()
	goesOnWithoutLog(d)
	d.stop()
}

// Nor does it matter when the reader has gone.
func TestLogWhoseReaderIsGone(t *testing.T) {
	t.Parallel()
	r, w := pipe(t)
	dir := t.TempDir()
	d := launchTo(t, w, dir, nil, "serve", "--dir", dir, "--listen", "127.0.0.1:0", "--log-level", "debug")
	d.ready()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	goesOnWithoutLog(d)
	d.stop()
}

// A server that cannot start ends although nobody reads why.
func TestFatalErrorThatNobodyReads(t *testing.T) {
	t.Parallel()
	_, w := pipe(t)
	_ = w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := w.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) { // now it is full
		t.Fatal(err)
	}
	dir := t.TempDir()
	d := launchTo(t, w, dir, nil, "serve", "--dir", dir, "--registry", "none")
	if state := d.wait(); state.ExitCode() != 1 {
		t.Errorf("sealiftd ended with %v", state)
	}
}

// SIGHUP is no reason to end.
func TestHangup(t *testing.T) {
	d := serve(t)
	p := login(t, d, "n")
	d.signal(syscall.SIGHUP)
	d.await("nothing to reload")
	p.upload("file", []byte("content"))
}
