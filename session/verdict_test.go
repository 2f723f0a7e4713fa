package session_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/session"
	"sealift/storage"
)

// TestVerdicts goes through what a client may say about a file and when.
func TestVerdicts(t *testing.T) {
	w := newWorld(t, session.Config{})
	p := w.known("alice")
	c := w.dial()
	one, two := random(1, 1000), random(2, 2000)
	step := func(what, want string, messages ...[]byte) {
		t.Helper()
		if got := c.ask(messages...); got != want {
			t.Fatalf("%s: got %q, want %q", what, got, want)
		}
	}
	again, abort := p.verdict(codec.CodeCRCBad, "f"), p.verdict(codec.CodeAbort, "f")
	step("1029 without a file", "1607", p.ok("f"))
	step("upload", received("f", one), p.packets(spec, "f", one, 100)...)
	step("1029", "1604", p.ok("f"))
	w.verified(p, "f", one)
	step("1029 again", "1604", p.ok("f"))
	step("1029 under another name for the path", "1604", p.ok(`.\\f`))

	step("upload again", received("f", two), p.packets(spec, "f", two, 100)...)
	w.verified(p, "f", one) // until two is verified
	step("1030", "", again)
	w.verified(p, "f", one)
	if len(w.files.incoming) != 0 {
		t.Error("1030 leaves the file that it is about")
	}
	step("1029 after 1030", "1607", p.ok("f")) // of one or of two? two is gone
	step("upload again", received("f", one), p.packets(spec, "f", one, 100)...)
	step("1029", "1604", p.ok("f"))
	w.verified(p, "f", one)
	step("in the middle", "", p.packets(spec, "f", two, 100)[:9]...)
	step("1029 in the middle", "1607", p.ok("f"))
	step("the rest", received("f", two), p.packets(spec, "f", two, 100)[9:]...)
	step("1031", "1604", abort)
	step("1031 again", "1604", abort)
	w.verified(p, "f", one)

	step("in the middle", "", p.packets(spec, "f", two, 100)[:9]...)
	step("1030 in the middle", "", again)
	step("1029 after that", "1607", p.ok("f")) // it had a 1031 before
	w.verified(p, "f", one)
	step("in the middle", "", p.packets(spec, "f", two, 100)[:9]...)
	step("1031 in the middle", "1604", abort)
	if len(w.files.incoming) != 0 || c.s.Uploads() != 0 {
		t.Error("1031 leaves a transfer under way")
	}
	step("upload with three mismatches", received("f", two)+", "+received("f", two)+", "+received("f", two)+", 1604",
		join(p.packets(spec, "f", two, 100), again, p.packets(spec, "f", two, 100), again, p.packets(spec, "f", two, 100), p.ok("f"))...)
	w.verified(p, "f", two)
	for _, bad := range []string{"..", `a\..`, "/", "C:/", `a\..\..`} {
		for _, code := range []codec.Code{codec.CodeCRCOK, codec.CodeCRCBad, codec.CodeAbort} {
			step("verdict on "+bad, "1607", p.verdict(code, bad))
		}
	}
	w.hangUp()
}

// join puts messages and lists of messages into one list.
func join(parts ...any) (all [][]byte) {
	for _, p := range parts {
		switch p := p.(type) {
		case []byte:
			all = append(all, p)
		case [][]byte:
			all = append(all, p...)
		}
	}
	return all
}

// TestVerdictOnNewConnection: the connection dropped after the 1603, and the
// client sends its last message again on a new one, or sends 1030 or 1031.
func TestVerdictOnNewConnection(t *testing.T) {
	content := random(1, 1000)
	for code, want := range map[codec.Code]string{codec.CodeCRCOK: "1604", codec.CodeCRCBad: "", codec.CodeAbort: "1604"} {
		for _, reconnect := range []bool{false, true} {
			w := newWorld(t, session.Config{})
			p, c := w.known("alice"), w.dial()
			if got := c.ask(p.packets(spec, "f", content, 100)...); got != received("f", content) {
				t.Fatal(got)
			}
			c.close()
			c = w.dial()
			if reconnect {
				c.ask(p.reconnect())
			}
			if got := c.ask(p.verdict(code, "f")); got != want {
				t.Errorf("%v: got %q", code, got)
			}
			if code == codec.CodeCRCOK {
				w.verified(p, "f", content)
			} else if len(w.rows()) != 0 {
				t.Errorf("%v leaves %v", code, w.rows())
			}
			if got := c.ask(p.ok("nothing")); got != "1607" {
				t.Error(got)
			}
			w.hangUp()
		}
	}
}

// rivals are two connections of one client that bring different files to one
// path. Whenever one of them gets a 1604 for its 1029, its own file must be the
// verified one.
type rivals struct {
	w       *world
	p       *peer
	a, b    *conn
	content map[*conn][]byte
}

func rivalsIn(w *world) *rivals {
	r := &rivals{w: w, p: w.known("alice"), a: w.dial(), b: w.dial()}
	r.content = map[*conn][]byte{r.a: random(1, 40), r.b: random(2, 60)}
	w.onSend = func(c *conn, reply string) {
		if reply != "1604" {
			return
		}
		f := w.row(r.p.id, "f", true)
		if f == nil || f.Cksum != cksum.Checksum(r.content[c]) {
			w.t.Errorf("1604 for a file that is not the verified one")
		}
	}
	return r
}

func (r *rivals) upload(c *conn) [][]byte { return r.p.packets(single, "f", r.content[c], 0) }

// prepare runs what clients sent before the schedules begin to differ.
func (r *rivals) prepare() {
	choose := r.w.choose
	r.w.choose = first
	r.w.run()
	r.w.choose = choose
}

// final checks that what is verified is one of the files, and whole.
func (r *rivals) final(of *conn) {
	r.w.t.Helper()
	r.w.verified(r.p, "f", r.content[of])
}

func TestRivals(t *testing.T) {
	var r *rivals
	both := func(w *world) {
		r = rivalsIn(w)
		r.a.send(r.upload(r.a)...)
		r.prepare()
		r.b.send(r.upload(r.b)...)
		r.prepare()
		r.a.replies, r.b.replies = nil, nil
	}
	one := func(w *world) {
		r = rivalsIn(w)
		r.a.send(r.upload(r.a)...)
		r.prepare()
		r.a.replies = nil
	}
	expect := func(c *conn, wants ...string) {
		t.Helper()
		got := strings.Join(c.replies, ", ")
		for _, want := range wants {
			if got == want {
				return
			}
		}
		t.Errorf("got %q, want one of %q", got, wants)
	}
	t.Run("both verify", func(t *testing.T) {
		n := every(t, func(w *world) {
			both(w)
			r.a.send(r.p.ok("f"))
			r.b.send(r.p.ok("f"))
		}, func(w *world) {
			expect(r.a, "1607")
			expect(r.b, "1604")
			r.final(r.b)
		})
		t.Log(n, "schedules")
	})
	t.Run("one gives up, the other verifies", func(t *testing.T) {
		n := every(t, func(w *world) {
			both(w)
			w.onSend = nil
			r.a.send(r.p.verdict(codec.CodeAbort, "f"))
			r.b.send(r.p.ok("f"))
		}, func(w *world) {
			expect(r.a, "1604")
			expect(r.b, "1604")
			r.final(r.b)
		})
		t.Log(n, "schedules")
	})
	t.Run("one verifies while the other uploads", func(t *testing.T) {
		seen := make(map[string]bool)
		n := every(t, func(w *world) {
			one(w)
			r.a.send(r.p.ok("f"))
			r.b.send(join(r.upload(r.b), r.p.ok("f"))...)
		}, func(w *world) {
			expect(r.a, "1604", "1607")
			seen[r.a.replies[0]] = true
			expect(r.b, received("f", r.content[r.b])+", 1604")
			r.final(r.b)
		})
		t.Log(n, "schedules")
		if len(seen) != 2 {
			t.Error("these are not all schedules")
		}
	})
	t.Run("one says mismatch while the other uploads", func(t *testing.T) {
		n := every(t, func(w *world) {
			one(w)
			r.a.send(r.p.verdict(codec.CodeCRCBad, "f"))
			r.b.send(join(r.upload(r.b), r.p.ok("f"))...)
		}, func(w *world) {
			expect(r.a, "")
			expect(r.b, received("f", r.content[r.b])+", 1604")
			r.final(r.b)
		})
		t.Log(n, "schedules")
	})
	t.Run("both upload and verify", func(t *testing.T) {
		n := every(t, func(w *world) {
			r = rivalsIn(w)
			r.a.send(join(r.upload(r.a), r.p.ok("f"))...)
			r.b.send(join(r.upload(r.b), r.p.ok("f"))...)
		}, func(w *world) {
			for _, c := range []*conn{r.a, r.b} {
				expect(c, received("f", r.content[c])+", 1604", received("f", r.content[c])+", 1607")
			}
			f := w.row(r.p.id, "f", true)
			if f == nil {
				t.Fatal("nothing is verified")
			}
			if f.Cksum == cksum.Checksum(r.content[r.a]) {
				r.final(r.a)
			} else {
				r.final(r.b)
			}
		})
		t.Log(n, "schedules")
	})
	t.Run("verified again while the other's awaits its verdict", func(t *testing.T) {
		every(t, func(w *world) {
			r = rivalsIn(w)
			r.a.send(join(r.upload(r.a), r.p.ok("f"))...)
			r.prepare()
			r.a.replies = nil
			r.a.send(r.p.ok("f"))
			r.b.send(r.upload(r.b)...)
		}, func(w *world) {
			expect(r.a, "1604")
			r.final(r.a)
			w.onSend = nil
			if got := r.b.ask(r.p.verdict(codec.CodeAbort, "f")); got != "1604" {
				t.Error(got)
			}
			r.final(r.a)
		})
	})
}

// TestCommitFails: the store fails while a file is made durable. The client gets
// a 1607, sends its 1029 again, and gets its 1604. After a sync that failed,
// nothing can be said of the content any more, and it sends the file again.
func TestCommitFails(t *testing.T) {
	content := random(1, 1000)
	for nth := 1; ; nth++ {
		for _, panics := range []bool{false, true} {
			w := newWorld(t, session.Config{})
			p, c := w.known("alice"), w.dial()
			if got := c.ask(p.packets(spec, "f", content, 100)...); got != received("f", content) {
				t.Fatal(got)
			}
			f := w.reg.faults
			f.failAt = f.calls + nth
			if panics {
				f.fail = func() error { panic(errInjected) }
			}
			got := c.ask(p.ok("f"))
			if f.hit == "" {
				if nth < 4 {
					t.Fatal("only", nth, "calls")
				}
				return
			}
			if got != "1607" {
				t.Errorf("%s fails: 1029 gets %q", f.hit, got)
			}
			if f.lost() {
				for range 3 {
					if got := c.ask(p.ok("f")); got != "1607" {
						t.Errorf("%s failed: 1029 again gets %q", f.hit, got)
					}
				}
				c.ask(p.packets(spec, "f", content, 100)...)
			}
			if got := c.ask(p.ok("f")); got != "1604" {
				t.Errorf("%s failed: 1029 again gets %q", f.hit, got)
			}
			w.verified(p, "f", content)
			w.hangUp()
		}
	}
}

// TestHalfCommitted: a commit fails before the file is in its place, after that,
// or when the registry is to say so. Whatever comes next, what is verified is
// what is in the place.
func TestHalfCommitted(t *testing.T) {
	one, two, three := random(1, 1000), random(2, 2000), random(3, 3000)
	next := map[string]struct {
		want     string
		messages func(p *peer) [][]byte
	}{
		"1029":          {"1604", func(p *peer) [][]byte { return [][]byte{p.ok("f")} }},
		"1030":          {"", func(p *peer) [][]byte { return [][]byte{p.verdict(codec.CodeCRCBad, "f")} }},
		"1031":          {"1604", func(p *peer) [][]byte { return [][]byte{p.verdict(codec.CodeAbort, "f")} }},
		"1028":          {received("f", three), func(p *peer) [][]byte { return p.packets(single, "f", three, 0) }},
		"1028 and 1031": {received("f", three) + ", 1604", func(p *peer) [][]byte { return join(p.packets(single, "f", three, 0), p.verdict(codec.CodeAbort, "f")) }},
		"1028 and 1029": {received("f", three) + ", 1604", func(p *peer) [][]byte { return join(p.packets(single, "f", three, 0), p.ok("f")) }},
	}
	for _, fails := range []string{"Commit", "Commit, the sync", "Commit, after the rename", "Apply *storage.VerifyFile"} {
		for what, next := range next {
			for _, sameConnection := range []bool{true, false} {
				w := newWorld(t, session.Config{})
				p, c := w.known("alice"), w.dial()
				c.ask(append(p.packets(single, "f", one, 0), p.ok("f"))...)
				c.ask(p.packets(single, "f", two, 0)...)
				f := w.reg.faults
				f.failOn = fails
				if got := c.ask(p.ok("f")); got != "1607" || f.hit == "" {
					t.Fatal(got, f.hit)
				}
				if !sameConnection {
					c.close()
					c = w.dial()
				}
				// After a sync that failed, the 1029 cannot be answered with 1604.
				want, lost := next.want, strings.Contains(fails, ", ")
				if lost && what == "1029" {
					want = "1607"
				}
				if got := c.ask(next.messages(p)...); got != want {
					t.Errorf("%s failed: %s gets %q", fails, what, got)
				}
				final := two
				switch {
				case what == "1028 and 1029":
					final = three
				case fails == "Commit" && what != "1029", fails == "Commit, the sync":
					final = one
				}
				w.verified(p, "f", final)
				if row := w.row(p.id, "f", true); row.Missing != (fails == "Commit, after the rename" && what != "1028 and 1029") {
					t.Errorf("%s failed: after %s, Missing is %v", fails, what, row.Missing)
				}
				if n := w.svc.Unrecorded(); n != 0 {
					t.Errorf("%s failed: after %s %d files wait to be recorded", fails, what, n)
				}
				w.hangUp()
			}
		}
	}
}

// TestHalfCommittedAndPanics: a commit moves the file and does not come to its
// end, nor does the attempt to find out about it. Nothing is decided before one
// does: the registry must not say that the old file is still in the place.
func TestHalfCommittedAndPanics(t *testing.T) {
	one, two := random(1, 1000), random(2, 2000)
	w := newWorld(t, session.Config{})
	p, c := w.known("alice"), w.dial()
	c.ask(append(p.packets(single, "f", one, 0), p.ok("f"))...)
	c.ask(p.packets(single, "f", two, 0)...)
	f, again := w.reg.faults, p.verdict(codec.CodeCRCBad, "f")
	f.fail = func() error { panic(errInjected) }
	f.failOn = "Commit, after the rename"
	if got := c.ask(p.ok("f")); got != "1607" {
		t.Fatal(got)
	}
	f.failOn = "Commit"
	if got := c.ask(again); got != "1607" || f.hit != "Commit" {
		t.Errorf("1030 gets %q, and the call that panicked is %s", got, f.hit)
	}
	if got := c.ask(again); got != "" {
		t.Errorf("1030 again gets %q", got)
	}
	w.verified(p, "f", two)
	w.hangUp()
}

// TestAfterFailedCommit: a 1029 whose commit failed does not, when it is sent
// again, verify what another connection has brought meanwhile.
func TestAfterFailedCommit(t *testing.T) {
	w := newWorld(t, session.Config{})
	r := rivalsIn(w)
	r.a.ask(r.upload(r.a)...)
	w.reg.faults.failAt = w.reg.faults.calls + 2
	if got := r.a.ask(r.p.ok("f")); got != "1607" {
		t.Fatal(got)
	}
	r.b.ask(r.upload(r.b)...)
	if got := r.a.ask(r.p.ok("f")); got != "1607" {
		t.Error("got", got)
	}
	if got := r.b.ask(r.p.ok("f")); got != "1604" {
		t.Error("got", got)
	}
	r.final(r.b)
	w.hangUp()
}

// TestExclusive: a session leaves a file alone while maintenance has its path.
func TestExclusive(t *testing.T) {
	w := newWorld(t, session.Config{})
	p, c := w.known("alice"), w.dial()
	content := random(1, 100)
	c.ask(p.packets(single, "f", content, 0)...)
	c.replies = nil
	c.send(p.ok("f"))
	w.svc.Exclusive(p.id, "f", func() {
		for w.step() {
		}
		if len(c.replies) != 0 {
			t.Error("a verdict while the path was taken:", c.replies)
		}
		row := w.row(p.id, "f", false)
		w.must(&storage.DropFile{ID: p.id, Path: "f", Incoming: row.Incoming})
		if err := w.files.Discard(context.Background(), row.Uploaded()); err != nil {
			t.Fatal(err)
		}
	})
	if got := c.ask(); got != "1607" {
		t.Errorf("got %q", got)
	}

	c.ask(p.packets(single, "f", content, 0)...)
	c.send(p.packets(single, "f", content[:50], 0)...)
	w.svc.Exclusive(p.id, "f", func() {
		for w.step() {
		}
		c.close() // with a file that waits for its record
		for w.step() {
		}
	})
	w.run()
	w.clean()
	if f := w.row(p.id, "f", false); f == nil || f.Size != 100 {
		t.Error("the file before the one that was cut off is gone")
	}
	w.hangUp()
}

// TestVerdictAfterExpiry: maintenance has removed the file that awaited its
// verdict, from the registry and the store, as it does with those that nobody
// judged.
func TestVerdictAfterExpiry(t *testing.T) {
	for code, want := range map[codec.Code]string{codec.CodeCRCOK: "1607", codec.CodeCRCBad: "", codec.CodeAbort: "1604"} {
		for _, after := range []time.Duration{0, time.Hour} {
			w := newWorld(t, session.Config{})
			p, c := w.known("alice"), w.dial()
			old, content := random(1, 10), random(2, 1000)
			c.ask(join(p.packets(single, "f", old, 0), p.ok("f"))...)
			c.ask(p.packets(spec, "f", content, 100)...)
			f := w.row(p.id, "f", false)
			drop := &storage.DropFile{ID: p.id, Path: "f", Incoming: f.Incoming}
			if err := w.reg.Apply(t.Context(), []storage.Operation{drop}); err != nil {
				t.Fatal(err)
			}
			if after == 0 { // else the store's turn is still to come
				if err := w.files.Discard(t.Context(), f.Uploaded()); err != nil {
					t.Fatal(err)
				}
			}
			w.now = w.now.Add(after)
			if got := c.ask(p.verdict(code, "f")); got != want {
				t.Errorf("%v after %v: got %q, want %q", code, after, got, want)
			}
			if err := w.files.Discard(t.Context(), f.Uploaded()); err != nil {
				t.Fatal(err)
			}
			w.verified(p, "f", old)
			if got := c.ask(join(p.packets(spec, "f", content, 100), p.ok("f"))...); got != received("f", content)+", 1604" {
				t.Errorf("%v after %v: got %q for the file sent again", code, after, got)
			}
			w.verified(p, "f", content)
			w.hangUp()
		}
	}
}

// TestNotOnRecord: a connection knows a file from its 1603, whose content is there, and
// somebody has taken the record of it away. It gets no 1604.
func TestNotOnRecord(t *testing.T) {
	w := newWorld(t, session.Config{})
	p, c := w.known("alice"), w.dial()
	content := random(1, 1000)
	c.ask(p.packets(spec, "f", content, 100)...)
	w.must(&storage.DropFile{ID: p.id, Path: "f", Incoming: w.row(p.id, "f", false).Incoming})
	for range 3 {
		if got := c.ask(p.ok("f")); got != "1607" {
			t.Errorf("1029 gets %q", got)
		}
	}
	if n := w.svc.Unrecorded(); n != 0 {
		t.Errorf("%d files wait to be recorded", n)
	}
	if n := w.svc.Unverified(p.id); n != 0 {
		t.Errorf("%d bytes count as unverified", n)
	}
	if got := c.ask(append(p.packets(spec, "f", content, 100), p.ok("f"))...); got != received("f", content)+", 1604" {
		t.Errorf("sent again: %q", got)
	}
	w.verified(p, "f", content)
	w.hangUp()
}
