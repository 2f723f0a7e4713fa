//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"sealift/codec"
)

// source is an address on loopback for client i, as if it sat on a machine
// with few others.
func source(i int) string { return fmt.Sprintf("127.0.%d.%d", 1+i/250%4, 1+i%250) }

// idle holds connections that say nothing.
func idle(r *run) {
	n := r.size(10_000, 10_000)
	s := r.start(r.TempDir(), "--max-connections", strconv.Itoa(n+100))
	c := s.join("somebody", anyKey(0))
	c.mustUpload("a", pattern(1, 100_000), 1000)

	descriptors, before := s.descriptors(), s.rss()
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
	r.until("the connections to be accepted", func() bool { return s.descriptors() >= descriptors+n })
	took := time.Since(began)
	after := s.rss()
	c.mustUpload("b", pattern(2, 100_000), 1000)
	if err := peers[n-1].enter("the last one", anyKey(1)); err != nil {
		r.Errorf("the last connection: %v", err)
	}
	each := float64(after-before) / float64(n)
	r.figures("%d idle connections in %.1f s: %d KiB more, %.2f KiB each", n, took.Seconds(), after-before, each)
	if each >= 4 && !raceEnabled {
		r.Errorf("an idle connection takes %.2f KiB, not under 4", each)
	}
	c.close()
	for _, p := range peers {
		p.close()
	}
	s.finish()
}

// crowd has many clients connect, and then all of them register and upload.
func crowd(r *run) {
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
			err := p.enter(fmt.Sprintf("client %d", i), anyKey(i))
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
	r.figures("%d clients connect in %.1f s, and register and upload 64 KiB in %.1f s (%.0f/s), the median one after %.1f s; memory +%d MiB",
		n, connected.Seconds(), all.Seconds(), float64(n)/all.Seconds(), took[n/2].Seconds(), grown>>10)
	for _, p := range peers {
		p.close()
	}
	if good := r.checkStore(s.dir, want); len(good) != n {
		r.Errorf("%d files are verified, not %d", len(good), n)
	}
	s.finish()
}

// full has more clients connect than there may be.
func full(r *run) {
	const limit = 50
	tries := r.size(300, 3000)
	s := r.start(r.TempDir(), "--max-connections", strconv.Itoa(limit), "--max-connections-per-ip", strconv.Itoa(limit))
	began := time.Now()
	var peers []*peer
	for i := range limit {
		peers = append(peers, s.join(fmt.Sprintf("client %d", i), anyKey(i)))
	}
	stop := make(chan struct{})
	files := make([][]stored, limit)
	var wg sync.WaitGroup
	for i, p := range peers {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				name, content := fmt.Sprint("file ", n%10), pattern(uint64(i*1000+n%10), 5000)
				if err := p.upload(name, content, 1000); err != nil {
					r.Errorf("client %d is disturbed: %v", i, err)
					return
				}
				if n < 10 {
					files[i] = append(files[i], p.stored(name, content))
				}
			}
		})
	}

	answered, closed := 0, 0
	var mu sync.Mutex
	try := func() {
		p, err := s.dial("")
		if err != nil {
			r.Errorf("%v", err)
			return
		}
		defer p.close()
		code, _, err := p.read()
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil && code == codec.CodeError:
			answered++
		case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET):
			closed++
		default:
			r.Errorf("a connection beyond the limit: %v %v", code, err)
		}
	}
	tried := 0
	isRefused := func(l line) bool { return l.Msg == "connections refused" }
	for ; tried < tries || s.count(isRefused) < 3; tried++ {
		try()
	}
	if closed > 0 {
		r.Errorf("%d of %d connections were closed without their 1607", closed, tried)
	}
	var burst sync.WaitGroup
	for range tries {
		burst.Go(try)
	}
	burst.Wait()
	close(stop)
	wg.Wait()
	for _, p := range peers {
		p.close()
	}
	s.r.until("room", func() bool {
		p, err := s.dial("")
		if err != nil {
			r.Fatalf("%v", err)
		}
		defer p.close()
		if err = p.enter(fmt.Sprint("next ", time.Now().UnixNano()), anyKey(0)); err != nil && !refused(err, codec.CodeError) {
			r.Fatalf("%v", err)
		}
		return err == nil
	})
	var lines []line
	told := 0
	r.until("the log to have all refusals", func() bool {
		lines, told = s.all(isRefused), 0
		for _, l := range lines {
			told += l.Count
		}
		return told >= tried+tries
	})
	for i := 1; i < len(lines); i++ {
		if apart := lines[i].Time.Sub(lines[i-1].Time); apart < 900*time.Millisecond {
			r.Errorf("the log tells of refusals %v after it did so before", apart)
		}
	}
	r.figures("%d connections beyond %d in %.1f s: %d answered with 1607, %d closed at once; %d lines in the log about %d",
		tried+tries, limit, time.Since(began).Seconds(), answered, closed, len(lines), told)
	r.checkStore(s.dir, slices.Concat(files...))
	s.finish()
}

// hog has one address take all the connections that it can get, with a byte now
// and then: others are served all the same.
func hog(r *run) {
	const limit = 40
	s := r.start(r.TempDir(), "--max-connections", strconv.Itoa(limit))
	taken, turnedDown := 0, 0
	for i := range 2 * limit {
		p, err := s.dial("127.0.0.1")
		if err != nil {
			r.Fatalf("connection %d: %v", i, err)
		}
		defer p.close()
		_ = p.write([]byte{byte(i)})
		// Who is refused is told at once: the server answers the next one after it.
		if taken < limit*3/4+1 {
			taken++
			continue
		}
		if code, _, err := p.read(); err != nil || code != codec.CodeError {
			r.Errorf("connection %d of the address: %v %v", i+1, code, err)
		}
		turnedDown++
	}
	var want []stored
	for i := range limit - taken {
		p, err := s.dial(source(i))
		if err == nil {
			defer p.close()
			err = p.enter(fmt.Sprint("client ", i), anyKey(i))
		}
		if err == nil {
			want = append(want, p.mustUpload("file", pattern(uint64(i), 10_000), 1000))
		} else {
			r.Errorf("another address: %v", err)
		}
	}
	r.figures("of %d connections an address gets %d, and %d get 1607; %d other addresses are served", limit, taken, turnedDown, len(want))
	r.checkStore(s.dir, want)
}
