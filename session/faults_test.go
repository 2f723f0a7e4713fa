package session_test

import (
	"testing"

	"sealift/session"
)

// The content of a transfer is cut at its byte, whatever the size of the packets, as often
// as the fault says, and what came before is written.
func TestFaultCut(t *testing.T) {
	const cut = 300_000 // a multiple of the cipher's block
	content := random(1, 1<<20)
	for _, size := range []int{1000, 65_536, 2 << 20} {
		faults, err := session.ParseFaults("cut=300000:2")
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(t, session.Config{Faults: faults})
		w.lend = nil
		p, _ := w.login("alice")
		priv, pub := pair[0]()
		for try := range 3 {
			c := w.dial()
			c.ask(p.publicKey(pub))
			p.key = c.aesKey(t, priv)
			got := c.ask(p.packets(spec, "f", content, size)...)
			if try == 2 {
				if want := received("f", content); got != want {
					t.Errorf("packets of %d, no cut left: %q, want %q", size, got, want)
				}
				continue
			}
			if got != "" || c.hangup != "fault injection" {
				t.Fatalf("packets of %d: answer %q, hung up %q", size, got, c.hangup)
			}
			for _, in := range w.files.incoming {
				if n := in.b.Len(); n > cut || n < cut-32 {
					t.Errorf("packets of %d: %d bytes are written, want %d", size, n, cut)
				}
			}
			c.close()
			w.run()
		}
		w.hangUp()
	}
}
