//go:build linux

package soak

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	daemon "sealift/server"
)

// TestDatabase has the registry locked by another process, read-only and rubbish.
func TestDatabase(t *testing.T) {
	t.Parallel()
	r := newRun(t)
	r.locked()
	r.rubbish()
	r.readOnly()
}

func (r *run) locked() {
	r.Helper()
	hold := 7 * time.Second
	if *full {
		hold = 10 * time.Second
	}
	dir := r.TempDir()
	s := r.start(dir)
	p := s.join("client", 0)
	want := []stored{p.mustUpload("before", pattern(1, 1000), 100)}

	unlock := r.lockDatabase(dir)
	began := time.Now()
	// Longer than the server waits for a lock: a registration and an upload fail.
	newcomer := s.mustDial()
	answered := make(chan error, 1)
	go func() { answered <- newcomer.register("newcomer") }()
	err := p.upload("during", pattern(2, 1000), 100)
	took := time.Since(began)
	if !hasRefused(err) {
		r.Errorf("an upload while the database is locked: %v", err)
	}
	if err := <-answered; !hasRefused(err) {
		r.Errorf("a registration while the database is locked: %v", err)
	}
	time.Sleep(max(0, hold-time.Since(began)))
	r.until("the content of what was refused to go", func() bool { return r.incoming(dir) == 0 })
	unlock()
	want = append(want, p.mustUpload("during", pattern(2, 1000), 100))
	if err := newcomer.enter("newcomer", 1); err != nil {
		r.Errorf("a registration afterwards: %v", err)
	}

	// Not so long: they wait.
	unlock = r.lockDatabase(dir)
	go func() { answered <- p.upload("waits", pattern(3, 1000), 100) }()
	time.Sleep(time.Second)
	select {
	case err := <-answered:
		r.Errorf("an upload did not wait for the lock: %v", err)
	default:
	}
	unlock()
	if err := <-answered; err != nil {
		r.Errorf("an upload that waited for the lock: %v", err)
	}
	want = append(want, p.stored("waits", pattern(3, 1000)))
	r.Logf("database locked for %v: 1607 after %.1f s; locked for 1s: the upload waits; all goes on afterwards", hold, took.Seconds())
	p.close()
	newcomer.close()
	r.calm(s)
	r.checkStore(dir, want)
	s.finish()
}

// lockDatabase has another process lock the database, until the function that
// it returns is called.
func (r *run) lockDatabase(dir string) (unlock func()) {
	r.Helper()
	cmd := role{Lock: filepath.Join(dir, daemon.DatabaseName)}.command(r)
	in, err := cmd.StdinPipe()
	if err != nil {
		r.Fatalf("%v", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.Fatalf("%v", err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		r.Fatalf("%v", err)
	}
	r.Cleanup(func() { _ = cmd.Process.Kill() })
	if l, err := bufio.NewReader(out).ReadString('\n'); l != "locked\n" {
		r.Fatalf("locking the database: %q, %v", l, err)
	}
	return func() {
		r.Helper()
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			r.Errorf("unlocking the database: %v", err)
		}
	}
}

// rubbish starts a server on a file that is no database.
func (r *run) rubbish() {
	r.Helper()
	for what, content := range map[string][]byte{
		"noise":              pattern(1, 8192),
		"half of a database": append([]byte("SQLite format 3\x00"), pattern(2, 8192)...),
		"text":               []byte("this is where I keep my notes\n"),
	} {
		dir := r.TempDir()
		path := filepath.Join(dir, daemon.DatabaseName)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			r.Fatalf("%v", err)
		}
		complaint := r.failsToStart(dir, what)
		if !strings.Contains(complaint, "not an SQLite database") || !strings.Contains(complaint, path) {
			r.Errorf("%s: the error says %q", what, complaint)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, content) {
			r.Errorf("%s: the file has been changed: %v", what, err)
		}
		// When it is out of the way, the server starts.
		if err := os.Remove(path); err != nil {
			r.Fatalf("%v", err)
		}
		r.start(dir).kill()
	}
	r.Logf("a database that is rubbish: the server says so, does not start, and leaves it alone")
}

func (r *run) failsToStart(dir, what string) (complaint string) {
	r.Helper()
	_, complaint, status, err := program(sealiftd, serveArgs(dir, nil)...)
	if err != nil || status != 1 || !strings.Contains(complaint, "Fatal error: ") {
		r.Errorf("%s: status %d, %v, %s", what, status, err, complaint)
	}
	return complaint
}

// readOnly starts a server on a database that cannot be written to.
func (r *run) readOnly() {
	r.Helper()
	dir := r.TempDir()
	s := r.start(dir)
	p := s.join("client", 0)
	want := []stored{p.mustUpload("before", pattern(1, 1000), 100)}
	p.close()
	r.calm(s)
	s.kill()
	path := filepath.Join(dir, daemon.DatabaseName)
	writable := func() { _ = os.Chmod(path, 0o600) }
	err := os.Chmod(path, 0o400)
	if os.Geteuid() == 0 { // modes do not concern root
		if err = unix.Mount(path, path, "", unix.MS_BIND, ""); err == nil {
			r.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
			err = unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
			writable = func() {
				if err := unix.Unmount(path, 0); err != nil {
					r.Fatalf("%v", err)
				}
				_ = os.Chmod(path, 0o600)
			}
		}
	}
	if err != nil {
		r.Logf("the database cannot be made read-only here: %v", err)
		return
	}
	if complaint := r.failsToStart(dir, "read-only"); !strings.Contains(complaint, "cannot be written to") || !strings.Contains(complaint, path) {
		r.Errorf("read-only: the error says %q", complaint)
	}
	writable()
	s = r.start(dir)
	want = append(want, s.join("next", 1).mustUpload("after", pattern(2, 1000), 100))
	r.checkStore(dir, want)
	r.Logf("a database that is read-only: the server says so and does not start; it does when that is over")
}
