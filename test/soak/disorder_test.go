//go:build linux

package soak

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"sealift/codec"
)

// TestDisorder has clients send the most packets there can be, the last first or
// shuffled: some at once for whom there is memory, and then more than that.
// Nobody is refused.
func TestDisorder(t *testing.T) {
	r := newRun(t)
	s := r.start(r.TempDir())
	warm := s.join("warm", 0)
	warm.mustUpload("file", pattern(1, 100_000), 1000)
	warm.close()
	s.resetPeak()
	before := s.rss()
	began := time.Now()
	var want []stored
	for round, clients := range []int{3, 9, 3} {
		files := s.disorderly(clients, round)
		r.calm(s) // so that the next ones find the memory given back
		want = append(want, files...)
		r.Logf("%d clients send %d packets each, reversed or shuffled: %d files are whole",
			clients, codec.MaxPackets, len(files))
	}
	r.Logf("%.1f s; memory +%d KiB", time.Since(began).Seconds(), s.grown(before, 9))
	r.calm(s)
	r.checkStore(s.dir, want)
	s.finish()
}

// disorderly is a round of disorder.
func (s *server) disorderly(clients, round int) (files []stored) {
	s.r.Helper()
	const packets, size = codec.MaxPackets, 80
	content := pattern(s.r.seed, packets*size-5)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range clients {
		p := s.join(fmt.Sprintf("client %d of round %d", i, round), i)
		order := s.r.rng.Perm(packets)
		wg.Go(func() {
			defer p.close()
			f := p.File("file", content)
			sent := make(chan struct{})
			go func() { // while the replies are awaited: a client that is refused leaves
				defer close(sent)
				var b []byte
				for k := range packets {
					n := packets - k
					if i%2 == 1 {
						n = order[k] + 1
					}
					b = append(b, packet(f, size, n)...)
					if len(b) > 60_000 || k == packets-1 {
						if p.Send(b) != nil {
							return
						}
						b = b[:0]
					}
				}
			}()
			err := p.finish(f)
			p.close()
			<-sent
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				s.r.Errorf("client %d: %v", i, err)
				return
			}
			files = append(files, p.stored("file", content))
		})
	}
	wg.Wait()
	return files
}
