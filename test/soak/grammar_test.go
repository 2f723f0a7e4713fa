//go:build linux

package soak

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"sealift/codec"
)

// TestGrammar runs sessions of random messages: whole ones in any order, damaged
// ones, other clients' ids, pieces of any size, connections that end anywhere.
func TestGrammar(t *testing.T) {
	r := newRun(t)
	sessions := r.size(600, 20_000)
	s := r.start(r.TempDir())
	victim := s.join("victim", 0)
	var want []stored
	for i := range 5 {
		want = append(want, victim.mustUpload(fmt.Sprint("precious ", i), pattern(uint64(i), 3000), 1000))
	}
	folder := filepath.Join(s.dir, "files", victim.ID.String())
	kept := make(map[string]string)
	for path, what := range r.tree(folder) {
		kept[path] = what
	}

	s.resetPeak()
	before := s.rss()
	var wg sync.WaitGroup
	var mu sync.Mutex
	messages, replies := 0, make(map[codec.Code]int)
	const side = 16
	todo := make(chan int)
	for range side {
		wg.Go(func() {
			for i := range todo {
				g := &babbler{s: s, victim: victim, rng: rand.New(rand.NewPCG(r.seed, uint64(i)))}
				got, err := g.session()
				mu.Lock()
				messages += g.messages
				for _, code := range got {
					replies[code]++
				}
				mu.Unlock()
				if err != nil {
					r.Errorf("session %d: %v", i, err)
				}
			}
		})
	}
	for i := range sessions {
		todo <- i
	}
	close(todo)
	wg.Wait()
	s.alive()
	grown := s.grown(before, side)
	r.Logf("%d sessions of %d random messages; replies %v; memory +%d KiB", sessions, messages, replies, grown)
	if replies[codec.CodeRegistered] == 0 || replies[codec.CodeAESKey] == 0 || replies[codec.CodeFileReceived] == 0 || replies[codec.CodeAck] == 0 || replies[codec.CodeError] == 0 {
		r.Errorf("the messages are not random enough: %v", replies)
	}
	want = append(want, victim.mustUpload("afterwards", pattern(9, 100_000), 1000))
	victim.close()
	r.calm(s)
	for path, what := range r.tree(folder) {
		if kept[path] != "" && kept[path] != what {
			r.Errorf("the victim's %s was: %s; is: %s", path, kept[path], what)
		}
		delete(kept, path)
	}
	for path := range kept {
		r.Errorf("the victim's %s is gone", path)
	}
	r.checkStore(s.dir, want)
	s.finish()
}

// babbler is a client that says what comes to its mind.
type babbler struct {
	s        *server
	victim   *peer
	rng      *rand.Rand
	messages int
	given    atomic.Pointer[codec.ClientID] // by a 1600 to one of its messages
}

// session says up to 30 messages on one connection and returns the replies.
func (g *babbler) session() (got []codec.Code, err error) {
	p, err := g.s.dial(source(g.rng.IntN(200)))
	if err != nil {
		return nil, err
	}
	defer p.close()
	p.Name = fmt.Sprintf("babbler %d", g.rng.Uint64())
	ended := func(err error) error {
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
			return nil
		}
		return err
	}
	// Half of them begin as they should.
	if g.rng.IntN(2) == 0 {
		if err := p.enter(p.Name, 1+g.rng.IntN(3)); err != nil {
			if hasRefused(err) { // too many registrations
				err = nil
			}
			return nil, ended(err)
		}
		got = append(got, codec.CodeRegistered, codec.CodeAESKey)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			code, payload, err := p.Read()
			if err != nil {
				return
			}
			if code == codec.CodeRegistered {
				id := codec.ClientID(payload)
				g.given.Store(&id)
			}
			got = append(got, code)
		}
	}()
	for range 1 + g.rng.IntN(30) {
		if id := g.given.Swap(nil); id != nil {
			p.ID = *id
		}
		b := g.message(p)
		g.messages++
		for len(b) > 0 {
			n := len(b)
			if g.rng.IntN(3) == 0 {
				n = 1 + g.rng.IntN(n)
			}
			if err := p.Send(b[:n]); err != nil {
				<-done
				return got, ended(err)
			}
			b = b[n:]
		}
	}
	// Now and then it leaves without waiting.
	if g.rng.IntN(4) == 0 {
		p.close()
	} else {
		_ = p.Net.(interface{ CloseWrite() error }).CloseWrite()
	}
	<-done
	return got, nil
}
