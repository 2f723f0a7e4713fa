//go:build linux

package soak

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// TestCrowd has many clients connect, and then all of them register and upload.
func TestCrowd(t *testing.T) {
	r := newRun(t)
	n := r.size(1500, 10_000)
	s := r.start(r.TempDir(), "--max-connections", strconv.Itoa(n+1))
	base := pattern(r.seed, 64<<10+n)
	began := time.Now()
	peers := make([]*peer, n)
	for i := range peers {
		p, err := s.dial(source(i))
		if err != nil {
			r.Fatalf("connection %d: %v: %s", i, err, s.tail())
		}
		defer p.close()
		peers[i] = p
	}
	connected := time.Since(began)
	want := make([]stored, n)
	took := make([]time.Duration, n)
	s.resetPeak()
	before := s.rss()
	began = time.Now()
	var wg sync.WaitGroup
	for i, p := range peers {
		wg.Go(func() {
			content := base[i : i+64<<10]
			err := p.enter(fmt.Sprintf("client %d", i), i)
			if err == nil {
				err = p.upload("file", content, 10_000)
			}
			if err != nil {
				r.Errorf("client %d: %v", i, err)
			}
			took[i] = time.Since(began)
			want[i] = p.stored("file", content)
		})
	}
	wg.Wait()
	all := time.Since(began)
	grown := s.peak() - before
	slices.Sort(took)
	r.Logf("%d clients connect in %.1f s, and register and upload 64 KiB in %.1f s (%.0f/s), the median one after %.1f s; memory +%d MiB",
		n, connected.Seconds(), all.Seconds(), float64(n)/all.Seconds(), took[n/2].Seconds(), grown>>10)
	for _, p := range peers {
		p.close()
	}
	if good := r.checkStore(s.dir, want); len(good) != n {
		r.Errorf("%d files are verified, not %d", len(good), n)
	}
	if r.Failed() {
		r.Log(s.tail())
	}
	s.finish()
}
