package session_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"sealift/codec"
	"sealift/session"
	"sealift/storage"
)

// counted checks, when no transfer is under way, that what counts of each client
// is what the registry says that awaits a verdict.
func (w *world) counted() {
	w.t.Helper()
	want := make(map[codec.ClientID]int64)
	err := w.reg.Clients(w.t.Context(), func(c storage.Client) error {
		want[c.ID] = 0
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range w.rows() {
		if !f.Verified && w.cluster == nil { // several servers count transfers under way alone
			want[f.ID] += session.Occupies(f.Size)
		}
	}
	for id, n := range want {
		for _, svc := range w.services() {
			if got := svc.Unverified(id); got != n {
				w.t.Errorf("%d bytes count as unverified, want %d", got, n)
			}
		}
	}
}

// TestMaxUnverified: what a client has without a verdict is bounded, be it in
// files or under way, on one connection or on many, in order or not. Others have
// a bound of their own, and verdicts and the end of connections make room.
func TestMaxUnverified(t *testing.T) {
	const most = 100 << 10
	content := random(1, 30_000) // counts 32 KiB
	for _, d := range dialects {
		for _, o := range []order{inOrder, reversed} {
			for _, memory := range []bool{true, false} {
				for _, direct := range []bool{true, false} {
					w := newWorld(t, session.Config{Limits: session.Limits{MaxUnverified: most}})
					w.hold = func(n int) bool { return memory || n <= 8 } // the numbers of what is refused
					w.direct = func() bool { return direct }
					p := w.known("alice")
					send := func(c *conn, name string) [][]byte {
						return o.put(p.packets(d, name, content, 5000), rand.New(rand.NewPCG(1, 1)))
					}
					step := func(what, want string, c *conn, messages ...[]byte) {
						t.Helper()
						if got := c.ask(messages...); got != want {
							t.Fatalf("%s, %s, memory %v, direct %v: %s: got %q, want %q", d, o, memory, direct, what, got, want)
						}
					}
					a, b := w.dial(), w.dial()
					step("one", received("f1", content), a, send(a, "f1")...)
					step("two", received("f2", content), b, send(b, "f2")...)
					step("three", received("f3", content), b, send(b, "f3")...)
					step("four", "1607", a, send(a, "f4")...)
					step("four again, on another connection", "1607", w.dial(), send(a, "f4")...)
					step("1029", "1604", b, p.ok("f2"))
					step("four after a 1029", received("f4", content), a, send(a, "f4")...)
					step("five", "1607", b, send(b, "f5")...)
					step("1030", "", a, p.verdict(codec.CodeCRCBad, "f4"))
					step("1031", "1604", a, p.verdict(codec.CodeAbort, "f1"))
					step("1031 for nothing", "1604", a, p.verdict(codec.CodeAbort, "f1"))
					for range 5 {
						step("the same again", received("f3", content), b, send(b, "f3")...)
					}
					if d != single {
						under := send(a, "f6")
						step("under way", "", a, under[:len(under)-1]...)
						step("six", received("f7", content), b, send(b, "f7")...)
						step("seven", "1607", b, send(b, "f8")...)
						a.close()
						w.run()
						step("seven after the end of a connection", received("f8", content), b, send(b, "f8")...)
					}
					q := w.known("bob")
					c := w.dial()
					step("another client", received("f", content), c, q.packets(d, "f", content, 5000)...)
					w.counted()
					w.hangUp()
					w.counted()
				}
			}
		}
	}
}

// TestManyEmptyFiles: files without content count, too.
func TestManyEmptyFiles(t *testing.T) {
	w := newWorld(t, session.Config{Limits: session.Limits{MaxUnverified: 40 << 10}})
	p, c := w.known("alice"), w.dial()
	for i := range 12 {
		name := fmt.Sprint("f", i)
		got := c.ask(p.packets(single, name, nil, 0)...)
		if want := received(name, nil); i < 10 && got != want || i >= 10 && got != "1607" {
			t.Errorf("file %d gets %q", i, got)
		}
	}
	w.counted()
	for i := range 10 {
		c.ask(p.ok(fmt.Sprint("f", i)))
	}
	if got := c.ask(p.packets(single, "f", nil, 0)...); got != received("f", nil) {
		t.Error(got)
	}
	w.hangUp()
	w.counted()
}

// TestRoomForFourFiles: unless told otherwise, four of the largest files may
// await their verdict, however small the largest is.
func TestRoomForFourFiles(t *testing.T) {
	for _, largest := range []int{1, 1000, 4096, 5000} {
		w := newWorld(t, session.Config{Limits: session.Limits{MaxFileSize: int64(largest)}})
		p, c := w.known("alice"), w.dial()
		content := random(1, largest)
		for i := range 4 {
			name := fmt.Sprint("f", i)
			if got := c.ask(p.packets(single, name, content, 0)...); got != received(name, content) {
				t.Errorf("at most %d bytes: file %d gets %q", largest, i, got)
			}
		}
		w.hangUp()
	}
}

// TestUnverifiedIsCountedRight: whatever fails while files are uploaded, replaced
// and thrown away, what counts is what is there.
func TestUnverifiedIsCountedRight(t *testing.T) {
	one, two := random(1, 5000), random(2, 40_000)
	for nth := 1; ; nth++ {
		w := newWorld(t, session.Config{})
		p, c := w.known("alice"), w.dial()
		f := w.reg.faults
		f.failAt = nth
		for _, messages := range [][][]byte{
			p.packets(spec, "a", one, 1000),
			reversed.put(p.packets(perPacket, "b", two, 4096), nil),
			p.packets(spec, "a", two, 9000),
			p.packets(spec, "b", one, 1000),
			{p.verdict(codec.CodeCRCBad, "a")},
			{p.verdict(codec.CodeAbort, "b")},
			p.packets(spec, "c", two, 9000),
			p.packets(spec, "d", two, 9000)[:3],
			p.packets(spec, "d", one, 1000),
		} {
			c.ask(messages...)
		}
		c.close()
		w.run()
		w.counted()
		if t.Failed() {
			t.Fatalf("%s failed (call %d)", f.hit, nth)
		}
		if f.hit == "" {
			if len(w.rows()) != 2 || nth < 30 {
				t.Fatalf("%d files, %d calls", len(w.rows()), nth)
			}
			return
		}
	}
}

// TestFinishedByMaintenance: the registry fails when a commit is to be recorded, and
// the client does not come back. Maintenance finds the file in its place and records
// it, and then it does not count.
func TestFinishedByMaintenance(t *testing.T) {
	w := newWorld(t, session.Config{})
	p, c := w.known("alice"), w.dial()
	content := random(1, 5000)
	c.ask(p.packets(spec, "f", content, 1000)...)
	c.ask(p.packets(spec, "g", content, 1000)...)
	w.reg.faults.failOn = "Apply *storage.VerifyFile"
	if got := c.ask(p.ok("f")); got != "1607" {
		t.Fatal(got)
	}
	c.close()
	f := w.row(p.id, "f", false)
	w.svc.Exclusive(p.id, "f", func() {
		w.must(&storage.VerifyFile{ID: p.id, Path: "f", Incoming: f.Incoming})
		w.svc.Finished(f)
	})
	w.counted()
	if n := w.svc.Unrecorded(); n != 0 {
		t.Errorf("%d files wait to be recorded", n)
	}
	if got := w.dial().ask(p.ok("f")); got != "1604" {
		t.Errorf("1029 gets %q", got)
	}
	w.counted()
	w.verified(p, "f", content)
	w.hangUp()
}
