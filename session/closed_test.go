package session_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"sealift/session"
)

// TestClosedAtAnyPoint closes the connection after each step of a session that
// uploads two files, one of them verified ahead of its 1603, and then goes on
// with another connection, as the client does that sends its last message again.
func TestClosedAtAnyPoint(t *testing.T) {
	one, two := random(1, 300), random(2, 60_000)
	for _, tc := range []struct {
		what    string
		portion func(n int) int
		seeds   uint64
		every   int // a step
	}{
		{"in order", func(n int) int { return min(n, 3000) }, 0, 1},
		{"byte by byte", func(n int) int { return 1 + n/3000*3000 }, 0, 29},
		{"scheduled", nil, 4, 1},
	} {
		t.Run(tc.what, func(t *testing.T) {
			t.Parallel()
			for seed := range max(1, tc.seeds) {
				for at := 0; ; at += tc.every {
					if closedAt(t, at, seed, tc.portion, one, two) {
						break
					}
					if t.Failed() {
						t.Fatal("closed after step", at, "with seed", seed)
					}
				}
			}
		})
	}
}

// closedAt closes the connection after that many steps. It returns true if there
// were not that many.
func closedAt(t *testing.T, at int, seed uint64, portion func(int) int, one, two []byte) (over bool) {
	w := newWorld(t, session.Config{})
	r := rand.New(rand.NewPCG(seed, 3))
	if portion == nil {
		w.shuffle(r)
	} else {
		w.portion = portion
	}
	w.hold = func(int) bool { return false } // what comes early goes to scratch room
	p, c := w.known("alice"), w.dial()
	c.send(p.packets(spec, "one", one, 100)...)
	c.send(p.ok("one"))
	c.send(shuffled.put(p.packets(perPacket, "two", two, 5000), r)...)
	c.send(p.ok("two"))
	for range at {
		if !w.step() {
			over = true
		}
	}
	seen := fmt.Sprint(c.replies)
	c.close()
	w.run()
	w.clean()
	verified := 0
	for _, f := range w.rows() {
		if f.Verified {
			verified++
		}
	}
	if n := strings.Count(seen, " 1604"); n > verified {
		t.Errorf("%d files verified, and there were %d 1604", verified, n)
	}

	w.choose, w.stingy = first, nil
	w.portion = func(n int) int { return n }
	c = w.dial()
	for name, content := range map[string][]byte{"one": one, "two": two} {
		got := c.ask(p.ok(name))
		if got == "1607" {
			if w.row(p.id, name, false) != nil || w.row(p.id, name, true) != nil {
				t.Errorf("%s is complete, and cannot be verified; before: %s", name, seen)
			}
			got = c.ask(append(p.packets(spec, name, content, 30_000), p.ok(name))...)
			if want := received(name, content) + ", 1604"; got != want {
				t.Errorf("%s again: %q, want %q; before: %s", name, got, want, seen)
			}
		} else if got != "1604" {
			t.Errorf("%s verified: %q; before: %s", name, got, seen)
		}
		w.verified(p, name, content)
	}
	w.hangUp()
	w.counted()
	return over
}

// TestClosedDuringHandshake closes the connection after each step of a
// registration and of a reconnection. The name or the id stay usable.
func TestClosedDuringHandshake(t *testing.T) {
	_, pub := pair[0]()
	for at := 0; ; at++ {
		w := newWorld(t, session.Config{})
		w.portion = func(n int) int { return min(n, 100) }
		p := w.known("alice")
		c := w.dial()
		c.send(p.reconnect(), p.publicKey(pub), p.reconnect())
		d := w.dial()
		d.send((&peer{name: "bob"}).register())
		over := false
		for range at {
			over = !w.step()
		}
		w.hangUp()
		if got := w.dial().ask(p.reconnect()); got != "1605" {
			t.Errorf("closed after %d steps: 1027 gets %q", at, got)
		}
		if got := w.dial().ask((&peer{name: "bob"}).register()); got != "1600" && got != "1601" {
			t.Errorf("closed after %d steps: 1025 gets %q", at, got)
		}
		w.hangUp()
		if over {
			break
		}
	}
}
