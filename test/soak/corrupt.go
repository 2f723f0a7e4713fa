//go:build linux

package main

import (
	"math/rand/v2"
	"time"

	"sealift/codec"
	"sealift/crypto/cksum"
)

// corrupt flips a bit at every byte of a session, in either direction, once.
// TCP's own checksum is not there to help: the proxy writes a good one.
func corrupt(r *run) {
	s := r.start(r.TempDir(), "--register-rate", "0")
	t := r.newTrials(s)
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
	t.each(places, func(d damage, name string) {
		c, err := t.library(d, name, content, 0, time.Second)
		switch {
		case err != nil:
			t.gaveUp(reason(err))
		case d == unheard:
			t.mu.Lock()
			lost++
			t.mu.Unlock()
		default:
			t.succeeded(stored{fileName{c.Identity().ID, "file"}, smallSize, sum})
		}
	})
	r.figures("a bit flipped in %d of %d bytes, in %.1f s: %d clients succeed, %d of them with a 1029 turned 1031, the others say %v",
		len(places), upAll+downAll, time.Since(began).Seconds(), len(t.want)+lost, lost, t.fatal)
	t.calm(s)
	for name, f := range r.checkStore(s.dir, t.want) {
		if name.path != "file" || f.FileName != "file" || f.Cksum != sum || f.Size != smallSize {
			r.Errorf("%s (%q) is verified, with %d bytes and cksum %d, and no client meant that", f.PathName(), f.FileName, f.Size, f.Cksum)
		}
	}
	s.finish()
}
