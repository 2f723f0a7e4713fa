//go:build linux

package soak

import (
	"math/rand/v2"
	"testing"
	"time"

	"sealift/codec"
	"sealift/crypto/cksum"
)

// TestCorrupt flips a bit at every byte of a session, in either direction, once.
// TCP's own checksum is not there to help: the proxy writes a good one.
func TestCorrupt(t *testing.T) {
	r := newRun(t)
	s := r.start(r.TempDir(), "--register-rate", "0")
	clients := r.newTrials(s)
	content := pattern(r.seed, smallSize)
	sum := cksum.Checksum(content)
	places := positions(r.step(13))
	rng := rand.New(rand.NewPCG(r.seed, 4))
	for i := range places {
		places[i].flip = 1 << rng.IntN(8)
	}
	// A 1029 becomes a 1031: the server removes the file and answers with the
	// same 1604. No client can tell; the protocol has no authentication.
	unheard := damage{up: true, at: upAll - upVerdict + 17, flip: byte(codec.CodeCRCOK ^ codec.CodeAbort)}
	places = append(places, unheard)

	began := time.Now()
	lost := 0
	clients.each(places, func(d damage, name string) {
		c, err := clients.library(d, name, content, 0, time.Second)
		switch {
		case err != nil:
			clients.gaveUp(reason(err))
		case d == unheard:
			clients.mu.Lock()
			lost++
			clients.mu.Unlock()
		default:
			clients.succeeded(stored{fileName{c.Identity().ID, "file"}, smallSize, sum})
		}
	})
	r.Logf("a bit flipped in %d of %d bytes, in %.1f s: %d clients succeed, %d of them with a 1029 turned 1031, the others say %v",
		len(places), upAll+downAll, time.Since(began).Seconds(), len(clients.want)+lost, lost, clients.fatal)
	clients.calm(s)
	for name, f := range r.checkStore(s.dir, clients.want) {
		if name.path != "file" || f.FileName != "file" || f.Cksum != sum || f.Size != smallSize {
			r.Errorf("%s (%q) is verified, with %d bytes and cksum %d, and no client meant that", f.PathName(), f.FileName, f.Size, f.Cksum)
		}
	}
	s.finish()
}
