//go:build linux

package soak

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestPressure has 64 clients send as fast as they can to a storage that is slow.
// What the server cannot pass on must stay in the clients' kernels, and a
// client that only asks something must not wait behind it.
func TestPressure(t *testing.T) {
	r := newRun(t)
	const clients = 64
	const budget = 16 << 20
	each := r.size(4<<20, 16<<20)
	speed := int64(r.size(60e6, 100e6))

	s := r.startFaulty(role{
		Serve: r.TempDir(), MemoryBudget: budget, BytesPerSecond: speed,
	})
	var peers []*peer
	for i := range clients {
		p := s.join(fmt.Sprintf("sender %d", i), i)
		p.mustUpload("warm", pattern(0, 10_000), 1000)
		peers = append(peers, p)
	}
	asker := s.join("asker", 0)
	asker.mustUpload("warm", pattern(0, 1<<20), 64<<10)
	for range 500 { // the collector has seen it all
		if err := asker.Rejoin(); err != nil {
			r.Fatalf("%v", err)
		}
	}

	s.resetPeak()
	before := s.rss()
	base := pattern(r.seed, each+clients)
	began := time.Now()
	want := make([]stored, clients)
	var wg sync.WaitGroup
	for i, p := range peers {
		wg.Go(func() {
			content := base[i : i+each]
			size := 1000 + rand.IntN(100_000)
			size = max(size, each/60_000)
			if err := p.upload("file", content, size); err != nil {
				r.Errorf("client %d: %v", i, err)
			}
			want[i] = p.stored("file", content)
		})
	}
	sent := make(chan struct{})
	go func() {
		wg.Wait()
		close(sent)
	}()
	pings := asker.ping(sent)
	took := time.Since(began)
	grown := s.peak() - before

	slices.Sort(pings)
	median, p99 := pings[len(pings)/2], pings[len(pings)*99/100]
	r.Logf("%d MiB in %.1f s (%.0f MB/s) at %d MB/s of storage; memory +%d KiB of %d; %d pings: median %.2f ms, p99 %.2f ms",
		clients*each>>20, took.Seconds(), float64(clients*each)/took.Seconds()/1e6, speed/1e6,
		grown, (budget+clients*64<<10)>>10, len(pings), ms(median), ms(p99))
	if limit := (budget + clients*64<<10) >> 10; grown > limit && !raceEnabled {
		r.Errorf("memory has grown by %d KiB, more than %d", grown, limit)
	}
	// A ping that waits behind the uploads is answered when they are done, so
	// there are next to none. How long one takes says something only on a machine
	// that does nothing else.
	if least := 20; len(pings) < least {
		r.Errorf("%d pings are answered while the clients send, fewer than %d", len(pings), least)
	}
	if limit := 20 * time.Millisecond; *full && !raceEnabled && p99 > limit {
		r.Errorf("one ping in a hundred takes %v, more than %v", p99, limit)
	}
	asker.close()
	for _, p := range peers {
		p.close()
	}
	r.checkStore(s.dir, want)
	s.finish()
}

// ping measures round trips of a 1027 until done is closed.
func (p *peer) ping(done <-chan struct{}) (took []time.Duration) {
	p.r.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		began := time.Now()
		if err := p.Rejoin(); err != nil {
			p.r.Errorf("ping: %v", err)
			return append(took, time.Since(began))
		}
		took = append(took, time.Since(began))
		select {
		case <-done:
			return took
		case <-tick.C:
		}
	}
}
