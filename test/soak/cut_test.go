//go:build linux

package soak

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealift/client"
	"sealift/crypto/cksum"
)

// TestCut ends a client's connection after every byte, once or each time.
func TestCut(t *testing.T) {
	r := newRun(t)
	s := r.start(r.TempDir(), "--register-rate", "0")
	clients := r.newTrials(s)
	small := pattern(r.seed, smallSize)
	places := positions(r.step(23))
	rng := rand.New(rand.NewPCG(r.seed, 3))
	for i := range places {
		places[i].reset = rng.IntN(2) == 0
		places[i].all = rng.IntN(8) == 0
	}
	clients.each(places, func(d damage, name string) {
		c, err := clients.library(d, name, small, 0, patience)
		switch {
		case err != nil:
			clients.gaveUp(reason(err))
		case d.all && d.up && d.at < upKey: // no connection lasts for a 1026
			clients.Errorf("the client says that it has stored its file, and every connection was cut after byte %d", d.at)
		default:
			clients.succeeded(stored{fileName{c.Identity().ID, "file"}, smallSize, cksum.Checksum(small)})
		}
	})
	r.Logf("cut after %d of %d bytes: %d clients succeed, the others say %v", len(places), upAll+downAll, len(clients.want), clients.fatal)

	large := pattern(r.seed+1, 3<<20)
	var cuts []damage
	for range r.size(12, 120) {
		cuts = append(cuts, damage{up: true, at: rng.IntN(3<<20 + 10_000), reset: rng.IntN(2) == 0})
	}
	before := len(clients.want)
	clients.each(cuts, func(d damage, name string) {
		c, err := clients.library(d, name, large, 10_000+d.at%60_000, patience)
		if err != nil {
			clients.Errorf("a large file cut once, after byte %d: %v", d.at, err)
			return
		}
		clients.succeeded(stored{fileName{c.Identity().ID, "file"}, int64(len(large)), cksum.Checksum(large)})
	})
	r.Logf("%d uploads of 3 MiB cut at random: %d succeed", len(cuts), len(clients.want)-before)
	clients.programs(rng)
	clients.check()
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
	t.Logf("%d runs of sealift cut at random: %d succeed, the others say Fatal error", len(cuts), len(t.want)-before)
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
