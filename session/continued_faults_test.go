package session_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestKeptInSpiteOfFaults: what is kept of a file, and was promised by a 1608, stays when the
// stores fail once while more of it comes and the connection is lost. Only a sync that fails
// takes it away.
func TestKeptInSpiteOfFaults(t *testing.T) {
	content := random(1, 10_000)
	for _, steps := range []int{0, 1, 2, 3, 5, 1000} { // before the connection is lost
		hits := make(map[string]bool)
		for n, hit := 1, true; hit; n++ {
			w := newCutWorld(t)
			w.leaves = true // what cannot be removed goes at the next start
			p := w.known("alice")
			prefix := w.cut(p, "f", content)
			c := w.relogin(p)
			if got, want := c.ask(p.question("f", len(content))), continued("f", prefix); got != want {
				t.Fatalf("a 1032 gets %q, want %q", got, want)
			}
			faults := w.reg.faults
			faults.failAt = faults.calls + n
			c.send(p.packets(spec, "f", content[len(prefix):], 512)[:6]...)
			for range steps {
				w.step()
			}
			c.close()
			w.run()
			hit = faults.hit != ""
			hits[faults.hit] = true
			faults.failAt = 0
			c = w.relogin(p)
			got := c.ask(p.question("f", len(content)))
			var offset int
			if _, err := fmt.Sscanf(got, "1608 f %d", &offset); err != nil || offset < len(prefix) && !strings.HasPrefix(faults.hit, "Flush") {
				t.Errorf("%d steps, then the connection is lost, and %s fails: a 1032 gets %q, and %d bytes were kept", steps, faults.hit, got, len(prefix))
			}
			w.hangUp()
		}
		t.Log(steps, hits)
	}
}

// TestKeptInSpiteOfA1606: a 1027 for somebody else ends what is under way on the connection, and what
// was kept of it before stays.
func TestKeptInSpiteOfA1606(t *testing.T) {
	content := random(1, 10_000)
	w := newCutWorld(t)
	p := w.known("alice")
	prefix := w.cut(p, "f", content)
	c := w.relogin(p)
	c.ask(append([][]byte{p.question("f", len(content))}, p.packets(spec, "f", content[len(prefix):], 512)[:2]...)...)
	stranger := *p
	stranger.name = "mallory"
	if got := c.ask(stranger.reconnect()); !strings.HasSuffix(got, "1606") {
		t.Fatalf("a 1027 for somebody else gets %q", got)
	}
	c = w.relogin(p)
	var offset int
	if _, err := fmt.Sscanf(c.ask(p.question("f", len(content))), "1608 f %d", &offset); err != nil || offset < len(prefix) {
		t.Errorf("%d bytes are there, and %d were kept: %v", offset, len(prefix), err)
	}
	w.hangUp()
	w.counted()
}
