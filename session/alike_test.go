package session_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"sealift/codec"
	"sealift/session"
)

// foldingWorld is a world whose disk does not tell upper from lower case.
func foldingWorld(t testing.TB) *world {
	files := newContents(new(faults))
	files.folds = strings.ToLower
	w := newWorld(t, session.Config{Files: files})
	files.faults = w.files.faults
	w.files = files
	return w
}

// TestAlikeNames: on a disk that takes two names for one, a name is refused under
// which another file of the client is stored, or waits for its verdict. The same
// name, a folder that is spelt otherwise, and the files of others are no obstacle.
func TestAlikeNames(t *testing.T) {
	content := random(1, 3000)
	for _, stored := range []bool{true, false} {
		for _, d := range dialects {
			w := foldingWorld(t)
			p, c := w.known("alice"), w.dial()
			send := func(name string) string {
				return c.ask(p.packets(d, name, content, 500)...)
			}
			if got := send("Docs/Report"); got != received("Docs/Report", content) {
				t.Fatal(got)
			}
			if stored {
				if got := c.ask(p.ok("Docs/Report")); got != "1604" {
					t.Fatal(got)
				}
			}
			for _, name := range []string{"Docs/report", "docs/Report", `DOCS\x\..\REPORT`, "C:/docs/report"} {
				if got := send(name); got != "1607" {
					t.Errorf("%s, stored %v: %q: %q, want one 1607", d, stored, name, got)
				}
			}
			for _, name := range []string{"docs/other", "Docs/Report", `Docs\Report`} {
				if got := send(name); got != received(name, content) {
					t.Errorf("%s, stored %v: %q: %q", d, stored, name, got)
				}
			}
			if got := c.ask(p.ok(`Docs\Report`)); got != "1604" {
				t.Error(got)
			}
			w.verified(p, "Docs/Report", content)
			q, e := w.known("bob"), w.dial()
			if got := e.ask(q.packets(d, "docs/report", content, 500)...); got != received("docs/report", content) {
				t.Errorf("another client: %q", got)
			}
			// Once nothing of that name waits any more, another spelling may come.
			if got := c.ask(p.verdict(codec.CodeAbort, "docs/other")); got != "1604" {
				t.Error(got)
			}
			if got := send("DOCS/OTHER"); got != received("DOCS/OTHER", content) {
				t.Errorf("after an abort: %q", got)
			}
			w.hangUp()
		}
	}
}

// TestAlikeUnderWay: of two transfers at one time whose names the disk takes for
// one, one is refused, on whatever connections they are and whatever happens in
// which order. One that is cut off or fails leaves the name to the others.
func TestAlikeUnderWay(t *testing.T) {
	one, two := random(1, 3000), random(2, 2000)
	for seed := range uint64(300) {
		w := foldingWorld(t)
		w.shuffle(rand.New(rand.NewPCG(seed, 5)))
		p, c := w.known("alice"), w.dial()
		d := c
		if seed%3 > 0 {
			d = w.dial()
		}
		c.send(join(p.packets(spec, "A", one, 500), p.ok("A"))...)
		d.send(join(p.packets(spec, "a", two, 500), p.ok("a"))...)
		w.run()
		a, b := w.row(p.id, "A", true), w.row(p.id, "a", true)
		if (a == nil) == (b == nil) {
			t.Fatalf("seed %d: A is %+v, a is %+v; replies %q, %q", seed, a, b, c.replies, d.replies)
		}
		if n := len(w.rows()); n != 1 {
			t.Fatalf("seed %d: %d files", seed, n)
		}
		w.hangUp()
	}

	w := foldingWorld(t)
	p, c, d := w.known("alice"), w.dial(), w.dial()
	packets := p.packets(spec, "A", one, 500)
	if got := c.ask(packets[:2]...); got != "" {
		t.Fatal(got)
	}
	for range 2 {
		if got := d.ask(p.packets(spec, "a", two, 500)...); got != "1607" {
			t.Fatalf("beside one under way: %q", got)
		}
	}
	c.close()
	w.run()
	if got := d.ask(join(p.packets(spec, "a", two, 500), p.ok("a"))...); got != received("a", two)+", 1604" {
		t.Errorf("after that was cut off: %q", got)
	}
	broken := p.packets(spec, "B", one, 500)
	broken[1][23+4]++ // Orig File Size
	if got := d.ask(broken...); got != "1607" {
		t.Error(got)
	}
	if got := d.ask(join(p.packets(spec, "b", two, 500), p.ok("b"))...); got != received("b", two)+", 1604" {
		t.Errorf("after one that failed: %q", got)
	}
	w.hangUp()
}

// TestAlikeClosed: a connection that ends while the registry is asked leaves
// nothing behind that keeps a name from others.
func TestAlikeClosed(t *testing.T) {
	content := random(1, 1000)
	for steps := range 40 {
		w := foldingWorld(t)
		p, c := w.known("alice"), w.dial()
		c.send(p.packets(spec, "A", content, 300)...)
		for range steps {
			w.step()
		}
		c.close()
		w.run()
		d := w.dial()
		got := d.ask(join(p.packets(spec, "a", content, 300), p.ok("a"))...)
		waits := w.row(p.id, "A", false) != nil
		if want := map[bool]string{true: "1607, 1607", false: received("a", content) + ", 1604"}[waits]; got != want {
			t.Errorf("closed after %d steps, A waits: %v: %q", steps, waits, got)
		}
		w.hangUp()
	}
}

// TestAlikeRegistryFails: a registry that cannot be asked is no answer.
func TestAlikeRegistryFails(t *testing.T) {
	w := foldingWorld(t)
	content := random(1, 1000)
	p, c := w.known("alice"), w.dial()
	w.reg.faults.failOn = "Apply *storage.FindAlike"
	for _, want := range []string{"1607", received("A", content)} {
		if got := c.ask(p.packets(spec, "A", content, 300)...); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	w.hangUp()
}
