//go:build linux

package soak

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestDescriptors has many more clients connect than the server may have files
// open: an accept that fails for want of a descriptor must not happen, for it
// would end the server.
func TestDescriptors(t *testing.T) {
	r := newRun(t)
	const limit, tries = 256, 2000
	dir := r.TempDir()
	s := r.launch(exec.Command("sh", append([]string{"-c", fmt.Sprintf(`ulimit -n %d && exec "$@"`, limit), "sh", sealiftd}, serveArgs(dir, nil)...)...), dir)
	s.ready()
	began := time.Now()
	served, turnedDown := s.rush(tries, "first")
	most := s.descriptors()
	s.alive()
	if len(served) < limit/4 {
		r.Errorf("only %d connections are served", len(served))
	}
	// All at once, so that files want descriptors too.
	var mu sync.Mutex
	var want []stored
	upload := func(peers []*peer, name string) {
		var wg sync.WaitGroup
		for i, p := range peers {
			wg.Go(func() {
				content := pattern(uint64(i), 300_000)
				if err := p.upload(name, content, 10_000); err != nil {
					r.Errorf("client %d: %v: %s", i, err, s.tail())
					return
				}
				mu.Lock()
				want = append(want, p.stored(name, content))
				mu.Unlock()
			})
		}
		wg.Wait()
		s.alive()
	}
	upload(served, "one")
	left := len(served) / 2
	for _, p := range served[:left] {
		p.close()
	}
	var late []*peer
	r.until("those who left to make room", func() bool {
		more, _ := s.rush(left-len(late), fmt.Sprint("late ", len(late), time.Now().UnixNano()))
		late = append(late, more...)
		return len(late) >= left
	})
	upload(append(late, served[left:]...), "two")
	r.Logf("%d connections and %d descriptors, in %.1f s: %d are served, %d turned down; %d descriptors in use; %d leave, and %d others are taken",
		tries, limit, time.Since(began).Seconds(), len(served), turnedDown, most, left, len(late))
	for _, p := range append(late, served...) {
		p.close()
	}
	r.calm(s)
	r.checkStore(dir, want)
	s.finish()
}

// rush has n clients connect and register at the same time, and returns those
// that are served; the others must be turned down cleanly.
func (s *server) rush(n int, name string) (served []*peer, turnedDown int) {
	s.r.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			p, err := s.dial(source(i))
			if err == nil {
				err = p.enter(fmt.Sprintf("%s %d", name, i), i)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				served = append(served, p)
				return
			case hasRefused(err) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE):
				turnedDown++
			default:
				s.r.Errorf("client %d: %v", i, err)
			}
			if p != nil {
				p.close()
			}
		})
	}
	wg.Wait()
	return served, turnedDown
}
