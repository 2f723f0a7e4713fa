//go:build linux

package soak

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"testing"
	"time"

	"sealift/codec"
)

// TestDrain sends SIGTERM to a server with uploads under way: those that go on
// finish, those that do not are cut, and nothing new begins.
func TestDrain(t *testing.T) {
	t.Parallel()
	r := newRun(t)
	const uploads, stalled = 100, 10
	timeout := 8 * time.Second
	s := r.start(r.TempDir(), "--drain-timeout", timeout.String())
	silent := s.join("silent", 0)
	content := pattern(r.seed, 50_000)
	const size = 5000
	peers := make([]*peer, uploads)
	var wg sync.WaitGroup
	send := func(i, from, to int) {
		p := peers[i]
		f := p.File("file", content)
		for n := from; n <= to; n++ {
			if err := p.Send(packet(f, size, n)); err != nil {
				r.Errorf("client %d: %v", i, err)
				return
			}
		}
	}
	for i := range peers {
		peers[i] = s.join(fmt.Sprintf("client %d", i), i)
		wg.Go(func() { send(i, 1, 5) })
	}
	wg.Wait()
	r.until("the uploads to be under way", func() bool { return r.incoming(s.dir) == uploads })

	s.signal(syscall.SIGTERM)
	began := time.Now()
	s.await(func(l line) bool { return l.Msg == "draining" })
	// Nothing new: no connection, no upload, and those who do nothing are let go.
	if p, err := s.dial(""); err == nil {
		if err := p.register("too late"); !hasRefused(err) && !hungUp(err) {
			r.Errorf("a registration while the server goes down: %v", err)
		}
		p.close()
	} else if !errors.Is(err, syscall.ECONNREFUSED) && !hasRefused(err) {
		r.Errorf("a connection while the server goes down: %v", err)
	}
	if _, _, err := silent.Read(); !hungUp(err) {
		r.Errorf("a connection with nothing under way: %v", err)
	}
	if err := peers[0].Send(peers[0].packet("another", content[:10], 100, 1)); err != nil {
		r.Errorf("%v", err)
	}
	if _, err := peers[0].Want(codec.CodeError); err != nil {
		r.Errorf("an upload that begins while the server goes down: %v", err)
	}

	want := make([]stored, uploads-stalled)
	for i := range want {
		wg.Go(func() {
			send(i, 6, 11)
			if err := peers[i].finish(peers[i].File("file", content)); err != nil {
				r.Errorf("client %d, under way when the server goes down: %v", i, err)
			}
			want[i] = peers[i].stored("file", content)
			if _, _, err := peers[i].Read(); !hungUp(err) {
				r.Errorf("client %d, afterwards: %v", i, err)
			}
		})
	}
	wg.Wait()
	finished := time.Since(began)
	for _, p := range peers[uploads-stalled:] {
		if code, _, err := p.Read(); err == nil {
			r.Errorf("an upload that stands still gets %v", code)
		}
	}
	status := s.wait()
	took := time.Since(began)
	if status != 0 {
		r.Errorf("status %d: %s", status, s.tail())
	}
	if n := r.incoming(s.dir); n > 0 {
		r.Errorf("%d incoming files are left", n)
	}
	r.checkStore(s.dir, want)
	r.Logf("SIGTERM with %d uploads under way: %d finish within %.2f s, %d that stand still are cut after %.1f s, status %d",
		uploads, len(want), finished.Seconds(), stalled, took.Seconds(), status)
	r.secondSignal()
}

// hungUp reports whether the server has ended the connection.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// secondSignal ends a server that would wait for long.
func (r *run) secondSignal() {
	r.Helper()
	s := r.start(r.TempDir(), "--drain-timeout", "1h")
	p := s.join("client", 0)
	content := pattern(1, 1000)
	if err := p.Send(p.packet("file", content, 100, 1)); err != nil {
		r.Fatalf("%v", err)
	}
	r.until("the upload to be under way", func() bool { return r.incoming(s.dir) == 1 })
	s.signal(syscall.SIGTERM)
	s.await(func(l line) bool { return l.Msg == "draining" })
	began := time.Now()
	s.signal(syscall.SIGTERM)
	s.wait()
	r.Logf("a second SIGTERM ends the server after %.0f ms", ms(time.Since(began)))
	r.start(s.dir).kill()
	if n := r.incoming(s.dir); n > 0 {
		r.Errorf("%d incoming files are left after the next start", n)
	}
}
