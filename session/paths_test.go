package session_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"sealift/session"
)

// TestTwoNamesOfOneFile: two names that lead to the same path are the same file.
// Both transfers may be under way at a time; each gets its 1603, and the file is
// the one that is verified last. A 1029 never verifies the other's content.
func TestTwoNamesOfOneFile(t *testing.T) {
	one, two := random(1, 3000), random(2, 2000)
	const a, b = "f", `src\..\..\f`
	for _, mixed := range []bool{true, false} {
		w := newWorld(t, session.Config{})
		p, c := w.known("alice"), w.dial()
		first, second := p.packets(spec, a, one, 500), p.packets(spec, b, two, 500)
		messages := join(first, second)
		if mixed {
			messages = join(first[:3], second[:2], first[3:], second[2:])
		}
		if got, want := c.ask(messages...), received(a, one)+", "+received(b, two); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
		if got := c.ask(p.ok(a)); got != "1607" { // the second took the place of the first
			t.Errorf("1029 for the first: %q", got)
		}
		if got := c.ask(p.ok(b)); got != "1604" {
			t.Errorf("1029 for the second: %q", got)
		}
		w.verified(p, "f", two)
		if got := c.ask(join(first, p.ok(a))...); got != received(a, one)+", 1604" {
			t.Errorf("the first again: %q", got)
		}
		w.verified(p, "f", one)
		if n := len(w.rows()); n != 1 {
			t.Errorf("%d files", n)
		}
		w.hangUp()
	}

	// Neither is lost at any interleaving.
	for seed := range uint64(200) {
		w := newWorld(t, session.Config{})
		w.shuffle(rand.New(rand.NewPCG(seed, 11)))
		p, c := w.known("alice"), w.dial()
		d := w.dial()
		c.send(join(p.packets(spec, a, one, 500), p.ok(a))...)
		d.send(join(p.packets(spec, b, two, 500), p.ok(b))...)
		w.run()
		got := fmt.Sprint(c.replies, d.replies)
		if f := w.row(p.id, "f", true); f == nil {
			t.Fatalf("seed %d: no file is verified after %s", seed, got)
		}
		stored := w.files.stored[place(p.id, "f")]
		if !bytes.Equal(stored, one) && !bytes.Equal(stored, two) {
			t.Fatalf("seed %d: the file is neither", seed)
		}
		w.hangUp()
	}
}
