//go:build linux

package soak

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"sealift/codec"
)

// TestFull has more clients connect than there may be.
func TestFull(t *testing.T) {
	r := newRun(t)
	const limit = 50
	tries := r.size(300, 3000)
	s := r.start(r.TempDir(), "--max-connections", strconv.Itoa(limit), "--max-connections-per-ip", strconv.Itoa(limit))
	began := time.Now()
	var peers []*peer
	for i := range limit {
		peers = append(peers, s.join(fmt.Sprintf("client %d", i), i))
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
		var code codec.Code
		p, err := s.dial("")
		if err == nil {
			defer p.close()
			code, _, err = p.Read()
		}
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil && code == codec.CodeError || hasRefused(err):
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
		if err == nil {
			defer p.close()
			err = p.enter(fmt.Sprint("next ", time.Now().UnixNano()), 0)
		}
		if err != nil && !hasRefused(err) {
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
	r.Logf("%d connections beyond %d in %.1f s: %d answered with 1607, %d closed at once; %d lines in the log about %d",
		tried+tries, limit, time.Since(began).Seconds(), answered, closed, len(lines), told)
	r.checkStore(s.dir, slices.Concat(files...))
	s.finish()
}
