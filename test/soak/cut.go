//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sealift/client"
	"sealift/codec"
	"sealift/crypto/cksum"
)

// Lengths of the messages of a session with one file in one packet.
const (
	upRegister  = codec.RequestHeaderSize + codec.NameSize
	upKey       = codec.RequestHeaderSize + codec.NameSize + codec.PublicKeySize
	upFile      = codec.RequestHeaderSize + codec.SendFileFieldsSize + smallCipher
	upVerdict   = codec.RequestHeaderSize + codec.NameSize
	upAll       = upRegister + upKey + upFile + upVerdict
	downID      = codec.ResponseHeaderSize + codec.IDSize
	downKey     = codec.ResponseHeaderSize + codec.IDSize + codec.WrappedKeySize
	downFile    = codec.ResponseHeaderSize + codec.IDSize + 4 + codec.NameSize + 4
	downAll     = downID + downKey + downFile + downID
	smallSize   = 40 // bytes of the file
	smallCipher = 48
)

// positions are the places of a whole session, register to 1604, where damage
// is done: all of them, or those near the ends of messages and every step-th of
// the others.
func positions(step int) (places []damage) {
	add := func(up bool, all int, ends ...int) {
		near := func(at int) bool {
			for _, e := range ends {
				if at >= e-1 && at <= e {
					return true
				}
			}
			return false
		}
		for at := range all {
			if at%step == 0 || near(at) {
				places = append(places, damage{up: up, at: at})
			}
		}
	}
	add(true, upAll, upRegister, upRegister+upKey, upAll-upVerdict)
	add(false, downAll, downID, downID+downKey, downAll-downID)
	return places
}

// trials runs clients behind proxies and collects what they say.
type trials struct {
	*run
	s     *server
	mu    sync.Mutex
	want  []stored
	fatal map[string]int // the clients that gave up, by their reasons
	next  atomic.Int64
}

func (r *run) newTrials(s *server) *trials { return &trials{run: r, s: s, fatal: make(map[string]int)} }

// each runs try for every damage, a few at a time.
func (t *trials) each(all []damage, try func(d damage, name string)) {
	var wg sync.WaitGroup
	todo := make(chan damage)
	for range 8 {
		wg.Go(func() {
			for d := range todo {
				try(d, fmt.Sprintf("client %d", t.next.Add(1)))
			}
		})
	}
	for _, d := range all {
		todo <- d
	}
	close(todo)
	wg.Wait()
}

func (t *trials) succeeded(f stored) {
	t.mu.Lock()
	t.want = append(t.want, f)
	t.mu.Unlock()
}

func (t *trials) gaveUp(reason string) {
	t.mu.Lock()
	t.fatal[reason]++
	t.mu.Unlock()
}

// library sends a file with the client library, and returns what it says. The
// proxy has done its damage if it has come to the place.
func (t *trials) library(d damage, name string, content []byte, packet int, reply time.Duration) (*client.Client, error) {
	p, err := t.s.proxied(d)
	if err != nil {
		t.Errorf("%v", err)
		return nil, err
	}
	defer p.close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := client.Dial(ctx, client.Options{
		Server: p.addr(), Name: name, PacketSize: packet, ReplyTimeout: reply,
		Backoff: func(int) time.Duration { return time.Millisecond },
	})
	if err == nil {
		defer c.Close()
		if _, err = c.Login(ctx); err == nil {
			_, err = c.Send(ctx, "file", bytes.NewReader(content), int64(len(content)))
		}
	}
	if ctx.Err() != nil {
		t.Errorf("damage %+v: the client hangs", d)
	}
	if e := (*client.Error)(nil); err != nil && !errors.As(err, &e) {
		t.Errorf("damage %+v: %v, which is none of the client's errors", d, err)
	}
	return c, err
}

// reason is the sentinel of an error of the client.
func reason(err error) string {
	for _, e := range []error{client.ErrNameTaken, client.ErrServer, client.ErrKey, client.ErrChecksum, client.ErrRejected, client.ErrConnection, client.ErrReply} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	return err.Error()
}

// cut ends a client's connection after every byte, once or each time.
func cut(r *run) {
	s := r.start(r.TempDir(), "--register-rate", "0")
	t := r.newTrials(s)
	small := pattern(r.seed, smallSize)
	places := positions(r.step(23))
	rng := rand.New(rand.NewPCG(r.seed, 3))
	for i := range places {
		places[i].reset = rng.IntN(2) == 0
		places[i].all = rng.IntN(8) == 0
	}
	t.each(places, func(d damage, name string) {
		c, err := t.library(d, name, small, 0, patience)
		switch {
		case err != nil:
			t.gaveUp(reason(err))
		case d.all && d.up && d.at < upKey: // no connection lasts for a 1026
			t.Errorf("the client says that it has stored its file, and every connection was cut after byte %d", d.at)
		default:
			t.succeeded(stored{fileName{c.Identity().ID, "file"}, smallSize, cksum.Checksum(small)})
		}
	})
	r.figures("cut after %d of %d bytes: %d clients succeed, the others say %v", len(places), upAll+downAll, len(t.want), t.fatal)

	large := pattern(r.seed+1, 3<<20)
	var cuts []damage
	for range r.size(12, 120) {
		cuts = append(cuts, damage{up: true, at: rng.IntN(3<<20 + 10_000), reset: rng.IntN(2) == 0})
	}
	before := len(t.want)
	t.each(cuts, func(d damage, name string) {
		c, err := t.library(d, name, large, 10_000+d.at%60_000, patience)
		if err != nil {
			t.Errorf("a large file cut once, after byte %d: %v", d.at, err)
			return
		}
		t.succeeded(stored{fileName{c.Identity().ID, "file"}, int64(len(large)), cksum.Checksum(large)})
	})
	r.figures("%d uploads of 3 MiB cut at random: %d succeed", len(cuts), len(t.want)-before)
	t.programs(rng)
	t.check()
	s.finish()
}

// programs does the same with the program, at random places.
func (t *trials) programs(rng *rand.Rand) {
	dir := t.TempDir()
	content := pattern(t.seed+2, smallSize)
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatalf("%v", err)
	}
	var cuts []damage
	for range t.size(8, 80) {
		d := damage{up: rng.IntN(2) == 0, at: rng.IntN(downAll), reset: rng.IntN(2) == 0}
		if d.up {
			d.at = rng.IntN(upAll)
		}
		cuts = append(cuts, d)
	}
	before := len(t.want)
	t.each(cuts, func(d damage, name string) {
		p, err := t.s.proxied(d)
		if err != nil {
			t.Errorf("%v", err)
			return
		}
		defer p.close()
		me := filepath.Join(dir, name+".info")
		_, complaint, status, err := program(sealift, "send", "--dialect", "spec", "--server", p.addr(), "--name", "program "+name, "--identity", me, path)
		switch {
		case err == nil && status == 0:
			id, err := client.IdentityFile(me).Load()
			if err != nil || id == nil {
				t.Errorf("%s: %v", me, err)
				return
			}
			t.succeeded(stored{fileName{id.ID, "file"}, smallSize, cksum.Checksum(content)})
		case err != nil || status != 1 || !strings.Contains(complaint, "Fatal error: "):
			t.Errorf("sealift, cut %+v: %v, status %d, %q", d, err, status, complaint)
		}
	})
	t.figures("%d runs of sealift cut at random: %d succeed, the others say Fatal error", len(cuts), len(t.want)-before)
}

// check asserts that every client that says so has its file in the store, and
// nothing else under its name.
func (t *trials) check() {
	t.calm(t.s)
	t.checkStore(t.s.dir, t.want)
	rows := make(map[fileName]int)
	for _, f := range t.records(t.s.dir) {
		rows[fileName{f.ID, f.Path}]++
	}
	for _, w := range t.want {
		if n := rows[w.fileName]; n != 1 {
			t.Errorf("%d files of %v are recorded as %q", n, w.id, w.path)
		}
	}
}

// calm waits until the server has put away what its clients have left.
func (r *run) calm(s *server) {
	r.Helper()
	r.until("the server to have nothing to do", func() bool {
		awaited := r.awaited(s.dir)
		return s.descriptors() <= r.atRest().descriptors+awaited && r.incoming(s.dir) == awaited
	})
}

// awaited is how many files wait for their verdict in that store. The server may
// hold a descriptor of each.
func (r *run) awaited(dir string) (n int) {
	r.Helper()
	for _, f := range r.records(dir) {
		if !f.Verified {
			n++
		}
	}
	return n
}
