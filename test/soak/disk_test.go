//go:build linux

package soak

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDisk has uploads meet a disk that is full, and a limit of the size of files.
// They get 1607, leave nothing, and go on when there is room again.
func TestDisk(t *testing.T) {
	t.Parallel()
	r := newRun(t)
	dir := r.TempDir()
	full := filepath.Join(r.TempDir(), "full")
	s := r.startFaulty(role{Serve: dir, FullWhile: full})
	r.fill("a store without room", s, 1<<20, func() {
		if err := os.WriteFile(full, nil, 0o600); err != nil {
			r.Fatalf("%v", err)
		}
	}, func() { _ = os.Remove(full) })

	small := r.TempDir()
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=8m"); err != nil {
		r.Logf("no file system of 8 MiB can be mounted here: %v", err)
	} else {
		r.Cleanup(func() { _ = unix.Unmount(small, unix.MNT_DETACH) })
		s := r.start(small, "--min-free", "1MiB")
		r.fill("a file system of 8 MiB", s, 1<<20, func() {}, func() {
			if err := unix.Mount("tmpfs", small, "tmpfs", unix.MS_REMOUNT, "size=64m"); err != nil {
				r.Fatalf("%v", err)
			}
		})
	}

	limited := r.TempDir()
	const blocks = 8192 // of 512 bytes
	s = r.launch(exec.Command("sh", append([]string{"-c", fmt.Sprintf(`ulimit -S -f %d && exec "$@"`, blocks), "sh", sealiftd}, serveArgs(limited, nil)...)...), limited)
	s.ready()
	r.fill("a limit of the file size", s, 6<<20, func() {}, func() {
		pid := s.cmd.Process.Pid
		var l unix.Rlimit
		err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, nil, &l)
		if err == nil {
			l.Cur = l.Max
			err = unix.Prlimit(pid, unix.RLIMIT_FSIZE, &l, nil)
		}
		if err != nil {
			r.Fatalf("%v", err)
		}
	})
}

// fill uploads files of that size until the server refuses some, lets the cause
// end, and has them all uploaded.
func (r *run) fill(what string, s *server, size int, begin, end func()) {
	r.Helper()
	const clients = 4
	var peers []*peer
	var want []stored
	for i := range clients {
		p := s.join(fmt.Sprintf("client %d", i), i)
		want = append(want, p.mustUpload("before", pattern(uint64(i), 10_000), 1000))
		peers = append(peers, p)
	}
	begin()
	var mu sync.Mutex
	taken, turnedDown := 0, 0
	missing := make([][]string, clients)
	var wg sync.WaitGroup
	for i, p := range peers {
		wg.Go(func() {
			for n := range 4 {
				name, content := fmt.Sprint("file ", n), pattern(uint64(10*i+n), size)
				err := p.upload(name, content, 60_000)
				mu.Lock()
				switch {
				case err == nil:
					taken++
					want = append(want, p.stored(name, content))
				case hasRefused(err):
					turnedDown++
					missing[i] = append(missing[i], name)
				default:
					r.Errorf("%s: %v", what, err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	s.alive()
	if turnedDown == 0 {
		r.Errorf("%s: nothing is refused", what)
	}
	// What was refused has left nothing, what was taken is there. A row that is
	// not verified and has no incoming file is of a commit for which the registry
	// had no room: the file is in its place.
	r.until("what was refused to be removed", func() bool {
		return r.incoming(s.dir) <= r.awaited(s.dir)
	})
	r.checkStore(s.dir, want)
	end()
	for i, p := range peers {
		for _, name := range missing[i] {
			want = append(want, p.mustUpload(name, pattern(uint64(i), size), 60_000))
		}
		want = append(want, p.mustUpload("after", pattern(uint64(100+i), 10_000), 1000))
	}
	want = append(want, s.join("newcomer", 0).mustUpload("first", pattern(200, 10_000), 1000))
	r.Logf("%s: %d of %d uploads are taken, %d get 1607 and leave nothing; all succeed when it is over", what, taken, taken+turnedDown, turnedDown)
	r.checkStore(s.dir, want)
}
