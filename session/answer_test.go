package session_test

import (
	"testing"

	"sealift/codec"
	"sealift/session"
	"sealift/storage"
)

// TestAnswers: what a 1029 is answered when versions of a file come and go. one
// is verified unless a case begins otherwise; mine is the connection that sent
// two and has its 1603, other is one of the same client, and late has just been
// opened.
func TestAnswers(t *testing.T) {
	one, two, three := random(1, 100), random(2, 200), random(3, 300)
	type scene struct {
		*world
		p           *peer
		mine, other *conn
	}
	upload := func(p *peer, content []byte) [][]byte { return p.packets(single, "f", content, 0) }
	bring := func(s *scene, c *conn, content []byte) {
		s.t.Helper()
		if got := c.ask(upload(s.p, content)...); got != received("f", content) {
			s.t.Fatal("upload:", got)
		}
	}
	drop := func(s *scene) { // as maintenance does
		f := s.row(s.p.id, "f", false)
		op := &storage.DropFile{ID: f.ID, Path: f.Path, Incoming: f.Incoming}
		s.must(op)
		s.svc.Exclusive(f.ID, f.Path, func() { s.svc.Dropped(f, op.Marked) })
		if err := s.files.Discard(s.t.Context(), f.Uploaded()); err != nil {
			s.t.Fatal(err)
		}
	}
	tests := []struct {
		name       string
		fresh      bool // nothing is verified yet
		happens    func(s *scene)
		mine, late string // answers
		verified   []byte // in the end
	}{
		{"nothing", false, func(*scene) {}, "1604", "1604", two},
		{"1030 from another", false, func(s *scene) { s.other.ask(s.p.verdict(codec.CodeCRCBad, "f")) }, "1607", "1607", one},
		{"1031 from another", false, func(s *scene) { s.other.ask(s.p.verdict(codec.CodeAbort, "f")) }, "1607", "1607", one},
		{"its own 1030", false, func(s *scene) { s.mine.ask(s.p.verdict(codec.CodeCRCBad, "f")) }, "1607", "1607", one},
		{"it expires", false, drop, "1607", "1607", one},
		{"its content is gone", false, func(s *scene) {
			if err := s.files.Discard(s.t.Context(), s.row(s.p.id, "f", false).Uploaded()); err != nil {
				s.t.Fatal(err)
			}
		}, "1607", "1607", one},
		{"another is uploaded", false, func(s *scene) { bring(s, s.other, three) }, "1607", "1607", one},
		{"another is uploaded and verified", false, func(s *scene) {
			bring(s, s.other, three)
			s.other.ask(s.p.ok("f"))
		}, "1607", "1604", three},
		{"another is uploaded and dropped", false, func(s *scene) {
			bring(s, s.other, three)
			s.other.ask(s.p.verdict(codec.CodeAbort, "f"))
		}, "1607", "1607", one},
		{"it is verified", false, func(s *scene) { s.mine.ask(s.p.ok("f")) }, "1604", "1604", two},
		{"it is verified, then another", false, func(s *scene) {
			s.mine.ask(s.p.ok("f"))
			bring(s, s.other, three)
			s.other.ask(s.p.ok("f"))
		}, "1607", "1604", three},
		{"it is verified, and another is dropped", false, func(s *scene) {
			s.mine.ask(s.p.ok("f"))
			bring(s, s.other, three)
			s.other.ask(s.p.verdict(codec.CodeAbort, "f"))
		}, "1604", "1607", two},
		{"it is verified, and its file is removed", false, func(s *scene) {
			s.mine.ask(s.p.ok("f"))
			delete(s.files.stored, place(s.p.id, "f"))
		}, "1607", "1607", nil},
		{"it is verified, and its file is cut short", false, func(s *scene) {
			s.mine.ask(s.p.ok("f"))
			s.files.stored[place(s.p.id, "f")] = two[:50]
		}, "1607", "1607", nil},
		{"it is verified, and marked as missing", false, func(s *scene) {
			s.mine.ask(s.p.ok("f"))
			s.must(&storage.MarkFile{ID: s.p.id, Path: "f", Incoming: s.row(s.p.id, "f", true).Incoming, Missing: true})
		}, "1607", "1607", two},

		{"nothing, and it is the first", true, func(*scene) {}, "1604", "1604", two},
		{"the first is replaced", true, func(s *scene) { bring(s, s.other, three) }, "1607", "1607", nil},
		{"the first is dropped", true, func(s *scene) { s.other.ask(s.p.verdict(codec.CodeCRCBad, "f")) }, "1607", "1607", nil},
		{"the first is dropped, and another comes", true, func(s *scene) {
			s.other.ask(s.p.verdict(codec.CodeCRCBad, "f"))
			bring(s, s.other, three)
		}, "1607", "1607", nil},
		{"the first expires, and another comes", true, func(s *scene) {
			drop(s)
			bring(s, s.other, three)
		}, "1607", "1607", nil},
		{"the first is dropped, and another is verified", true, func(s *scene) {
			s.other.ask(s.p.verdict(codec.CodeCRCBad, "f"))
			bring(s, s.other, three)
			s.other.ask(s.p.ok("f"))
		}, "1607", "1604", three},
	}
	for _, tt := range tests {
		for _, asks := range []string{"mine", "late"} {
			t.Run(tt.name+", "+asks, func(t *testing.T) {
				w := newWorld(t, session.Config{})
				s := &scene{world: w, p: w.known("alice"), mine: w.dial(), other: w.dial()}
				if !tt.fresh {
					first := w.dial()
					bring(s, first, one)
					first.ask(s.p.ok("f"))
					first.close()
				}
				bring(s, s.mine, two)
				tt.happens(s)
				c, want := s.mine, tt.mine
				if asks == "late" {
					s.mine.close()
					c, want = w.dial(), tt.late
				}
				for range 3 { // a client asks again
					if got := c.ask(s.p.ok("f")); got != want {
						t.Errorf("got %s, want %s", got, want)
					}
				}
				if tt.verified != nil {
					w.verified(s.p, "f", tt.verified)
				}
				// The whole file again always helps.
				if got := c.ask(append(upload(s.p, two), s.p.ok("f"))...); got != received("f", two)+", 1604" {
					t.Errorf("sent again: %s", got)
				}
				w.verified(s.p, "f", two)
			})
		}
	}
}

// A mark without a row is kept for so many paths, and no more.
func TestLapsedIsBounded(t *testing.T) {
	w := newWorld(t, session.Config{})
	for i := range 3 * session.MaxLapsed {
		w.svc.Dropped(&storage.File{Path: string(rune(i))}, false)
	}
	if n := w.svc.LapsedPaths(); n != session.MaxLapsed {
		t.Errorf("%d paths are remembered, want %d", n, session.MaxLapsed)
	}
}
