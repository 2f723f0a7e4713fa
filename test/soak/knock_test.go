//go:build linux

package soak

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestKnock has clients connect when that is hard for the server: when it has no
// descriptor left, when it goes down, and when another takes its port.
func TestKnock(t *testing.T) {
	r := newRun(t)
	r.noDescriptor()
	r.terminated()
	r.onePort()
}

// noDescriptor takes the server's free descriptors away from outside, while
// clients connect and one that has registered begins more and more files.
func (r *run) noDescriptor() {
	r.Helper()
	s := r.start(r.TempDir())
	p := s.join("registered", 0)
	content := pattern(r.seed, 100_000)
	var limit unix.Rlimit
	if err := unix.Prlimit(s.cmd.Process.Pid, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		r.Fatalf("%v", err)
	}
	set := func(most uint64) {
		r.Helper()
		l := unix.Rlimit{Cur: most, Max: limit.Max}
		if err := unix.Prlimit(s.cmd.Process.Pid, unix.RLIMIT_NOFILE, &l, nil); err != nil {
			r.Fatalf("%v", err)
		}
	}
	set(uint64(s.descriptors()))
	rounds, refusals := r.size(5, 50), 0
	for i := range rounds {
		served, turnedDown := s.rush(1, fmt.Sprint("rush ", i))
		refusals += turnedDown
		for _, q := range served {
			q.close()
		}
		switch err := p.upload(fmt.Sprint("file ", i), content, 10_000); {
		case err == nil, hasRefused(err):
		default:
			r.Fatalf("an upload for which there is no descriptor: %v: %s", err, s.tail())
		}
		s.alive()
	}
	set(limit.Cur)
	want := []stored{p.mustUpload("after", content, 10_000)}
	// The server may still be waiting, with the descriptor that it keeps for
	// refusals, for one to refuse.
	r.until("a newcomer to be served", func() bool {
		served, _ := s.rush(1, "newcomer")
		for _, q := range served {
			defer q.close()
			want = append(want, q.mustUpload("first", content, 10_000))
		}
		return len(served) == 1
	})
	s.alive()
	r.checkStore(s.dir, want)
	r.Logf("no descriptor left: %d of %d connections are turned down; all is well when there are some again", refusals, rounds)
}

// terminated sends SIGTERM while clients connect as fast as they can.
func (r *run) terminated() {
	r.Helper()
	const knocking = 6
	s := r.start(r.TempDir(), "--drain-timeout", "1s", "--loops", "8", "--max-connections-per-ip", "100000")
	var began, wg sync.WaitGroup
	began.Add(knocking)
	for range knocking {
		wg.Go(func() {
			once := sync.OnceFunc(began.Done)
			defer once()
			for {
				nc, err := net.Dial("tcp", s.addr)
				if errors.Is(err, syscall.ECONNREFUSED) {
					return
				}
				if err == nil {
					_ = nc.Close()
				}
				once()
			}
		})
	}
	began.Wait()
	at := time.Now()
	s.signal(syscall.SIGTERM)
	status := s.wait()
	wg.Wait()
	if status != 0 {
		r.Errorf("status %d: %s", status, s.tail())
	}
	r.Logf("SIGTERM while %d clients connect without end: status %d after %.1f s", knocking, status, time.Since(at).Seconds())
}

// onePort starts two servers on one port at one moment. One of them serves.
func (r *run) onePort() {
	r.Helper()
	rounds := r.size(5, 50)
	for range rounds {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			r.Fatalf("%v", err)
		}
		addr := ln.Addr().String()
		_ = ln.Close()
		var servers [2]*server
		for i := range servers {
			dir := r.TempDir()
			servers[i] = r.launch(exec.Command(sealiftd, "serve", "--dir", dir, "--listen", addr, "--log-format", "json"), dir)
		}
		serving := 0
		for _, s := range servers {
			if l, ok := s.await(func(l line) bool { return l.Msg == "listening" }); ok {
				serving++
				s.addr = l.Addr
				if err := s.join("client", 0).upload("file", []byte("content"), 100); err != nil {
					r.Errorf("%v", err)
				}
				continue
			}
			if status := s.wait(); status != 1 || !strings.Contains(s.tail(), "address already in use") {
				r.Errorf("a server whose port another has ends with status %d: %s", status, s.tail())
			}
		}
		if serving != 1 {
			r.Errorf("%d servers serve on one port", serving)
		}
		for _, s := range servers {
			s.kill()
		}
	}
	r.Logf("two servers on one port at one moment, %d times: one serves, the other says that the address is in use", rounds)
}
