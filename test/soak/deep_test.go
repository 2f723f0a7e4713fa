//go:build linux

package soak

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestDeep has 128 clients store empty files in ever new folders, 16 deep: each
// verdict makes and syncs them all. Another client's small files go on.
func TestDeep(t *testing.T) {
	r := newRun(t)
	const clients = 128
	uploads := r.size(8, 40)
	s := r.start(r.TempDir(), "--max-connections-per-ip", "1000")
	honest := s.join("honest", 0)
	content := pattern(r.seed, 10_000)
	var want, theirs []stored
	took := func(name string) (each []time.Duration) {
		for i := range uploads {
			began := time.Now()
			want = append(want, honest.mustUpload(fmt.Sprint(name, " ", i), content, 10_000))
			each = append(each, time.Since(began))
		}
		slices.Sort(each)
		return each
	}
	alone := took("alone")

	stop := make(chan struct{})
	var wg, begun sync.WaitGroup
	var mu sync.Mutex
	for i := range clients {
		p := s.join(fmt.Sprintf("deep %d", i), i)
		begun.Add(1)
		wg.Go(func() {
			defer p.close()
			first := sync.OnceFunc(begun.Done)
			defer first()
			for n := 0; ; n++ {
				name := fmt.Sprintf("%d/%sf", n, strings.Repeat("d/", 15))
				if err := p.upload(name, nil, 100); err != nil {
					if !hasRefused(err) {
						r.Errorf("client %d: %v: %s", i, err, s.tail())
					}
					return
				}
				mu.Lock()
				theirs = append(theirs, p.stored(name, nil))
				mu.Unlock()
				first()
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	begun.Wait()
	beside := took("beside")
	close(stop)
	wg.Wait()
	r.checkStore(s.dir, append(want, theirs...))
	r.Logf("%d files in 16 folders each; another client's small file takes %.0f ms, at most %.0f; alone %.0f, at most %.0f",
		len(theirs), ms(beside[uploads/2]), ms(beside[uploads-1]), ms(alone[uploads/2]), ms(alone[uploads-1]))
}
