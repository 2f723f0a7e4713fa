//go:build linux

package soak

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"sealift/codec"
)

// TestBeyond sends a file that no single transfer can carry, 6 GiB in full size, from a
// sparse source, and cuts it once where more is there than a transfer can carry. Both programs stay small.
func TestBeyond(t *testing.T) {
	r := newRun(t)
	size := int64(160 << 20)
	if *full {
		size = 6 << 30
	}
	if raceEnabled {
		size = 40 << 20
	}
	dir := r.TempDir()
	s := r.start(dir, "--max-file-size", strconv.FormatInt(max(size, codec.MaxFileSize), 10))
	m := r.meter(s.addr)
	u := r.uploads(1 << 20)
	if err := os.Truncate(u.path, size); err != nil {
		r.Fatalf("%v", err)
	}
	d := &disturb{after: size / 4 * 3, reset: true, server: s}
	m.next(d)
	began := time.Now()
	p := u.begin(m.addr())
	client := 0
	for ended := false; !ended; { // what it had is gone when it has ended
		if kib, ok := statusOf(p.cmd.Process.Pid, "VmHWM"); ok {
			client = kib
		}
		select {
		case <-p.exited:
			ended = true
		case <-time.After(5 * time.Millisecond):
		}
	}
	if p.status() != 0 {
		r.Fatalf("status %d: %s", p.status(), p.output.String())
	}
	server := s.peak()
	r.Logf("%d MiB in %.1f s: the server had at most %.1f MiB, the client %.1f; %.3f of the file were sent",
		size>>20, time.Since(began).Seconds(), float64(server)/1024, float64(client)/1024, float64(m.up.Load())/float64(size))
	if server > 48<<10 && !raceEnabled {
		r.Errorf("the server had %d KiB", server)
	}
	if client > 32<<10 && !raceEnabled {
		r.Errorf("the client had %d KiB", client)
	}
	select {
	case <-d.reached:
	default:
		r.Errorf("the connection was not cut")
	}
	if got := m.up.Load(); got > size+size/20+8<<20 {
		r.Errorf("the server got %d bytes for a file of %d", got, size)
	}
	r.same(filepath.Join(dir, "files", u.id().String(), "file"), u.path)
	r.verify(dir)
	s.finish()
}
