//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"sealift/codec"
	"sealift/crypto/cksum"
)

// growthLimit is what the memory of a server may grow by, in KiB: the budget,
// what comes on top of it for packets before their turn, and 64 KiB for each
// connection.
func growthLimit(connections int) int { return (64<<20+16<<20)>>10 + 64*connections }

// grown asserts that the server's memory stays within its bound, and returns
// how much it has grown at most since it was before.
func (s *server) grown(before, connections int) int {
	s.r.Helper()
	n := s.peak() - before
	if limit := growthLimit(connections); n > limit && !raceEnabled {
		s.r.Errorf("memory has grown by %d KiB, more than %d", n, limit)
	}
	return n
}

// tree is all that is below a directory: content and links, by path.
func (r *run) tree(dir string) map[string]string {
	r.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Type().IsRegular():
			b, err := os.ReadFile(path)
			all[path] = fmt.Sprintf("%d bytes, cksum %d", len(b), cksum.Checksum(b))
			return err
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			all[path] = "link to " + to
			return err
		}
		all[path] = "folder"
		return nil
	})
	if err != nil {
		r.Errorf("%v", err)
	}
	return all
}

// unchanged asserts that a directory is what it was.
func (r *run) unchanged(dir string, before map[string]string) {
	r.Helper()
	now := r.tree(dir)
	for path, what := range before {
		if now[path] != what {
			r.Errorf("%s was: %s; is: %s", path, what, now[path])
		}
	}
	for path, what := range now {
		if before[path] == "" {
			r.Errorf("%s has come: %s", path, what)
		}
	}
}

// grammar runs sessions of random messages: whole ones in any order, damaged
// ones, other clients' ids, pieces of any size, connections that end anywhere.
func grammar(r *run) {
	sessions := r.size(600, 20_000)
	s := r.start(r.TempDir())
	victim := s.join("victim", anyKey(0))
	var want []stored
	for i := range 5 {
		want = append(want, victim.mustUpload(fmt.Sprint("precious ", i), pattern(uint64(i), 3000), 1000))
	}
	folder := filepath.Join(s.dir, "files", victim.id.String())
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
	r.figures("%d sessions of %d random messages; replies %v; memory +%d KiB", sessions, messages, replies, grown)
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
	p.name = fmt.Sprintf("babbler %d", g.rng.Uint64())
	ended := func(err error) error {
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
			return nil
		}
		return err
	}
	// Half of them begin as they should.
	if g.rng.IntN(2) == 0 {
		if err := p.enter(p.name, anyKey(1+g.rng.IntN(3))); err != nil {
			if refused(err, codec.CodeError) { // too many registrations
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
			code, payload, err := p.read()
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
			p.id = *id
		}
		b := g.message(p)
		g.messages++
		for len(b) > 0 {
			n := len(b)
			if g.rng.IntN(3) == 0 {
				n = 1 + g.rng.IntN(n)
			}
			if err := p.write(b[:n]); err != nil {
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
		_ = p.conn.(interface{ CloseWrite() error }).CloseWrite()
	}
	<-done
	return got, nil
}
