package session_test

import "testing"

// TestViewOfSegments: of a file that comes in segments the view tells how far the whole has
// come, from the first segment on.
func TestViewOfSegments(t *testing.T) {
	content := random(1, 10_000)
	w := newCutWorld(t)
	p, c := w.login("alice")
	view := func(bytes int64) {
		t.Helper()
		v := c.s.View(nil)
		if len(v.Transfers) != 1 || v.Transfers[0].Bytes != bytes || v.Transfers[0].Total != 10_000 {
			t.Errorf("%+v, want %d of 10000 bytes", v.Transfers, bytes)
		}
	}
	if got := c.ask(p.question("f", len(content))); got != continued("f", nil) {
		t.Fatal(got)
	}
	packets := p.packets(spec, "f", content[:6000], 1024)
	c.ask(packets[:2]...)
	view(2048)
	if got := c.ask(packets[2:]...); got != segment("f", 6000, content[:6000]) {
		t.Fatal(got)
	}
	if got := c.ask(p.question("f", len(content))); got != continued("f", content[:6000]) {
		t.Fatal(got)
	}
	c.ask(p.packets(spec, "f", content[6000:], 1024)[:1]...)
	view(6000 + 1024)
	w.hangUp()
	w.counted()
}
