package session_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/crypto/tlskey"
	"sealift/session"
	"sealift/storage"
)

// partial is the partial file of p under a path, or nil.
func (w *world) partial(p *peer, path string) *storage.Partial {
	return w.reg.partial(storage.Place{ID: p.id, Path: path})
}

// cut has p upload a part of a file, and loses the connection.
func (w *world) cut(p *peer, name string, content []byte) []byte {
	w.t.Helper()
	w.cutAfter(w.relogin(p), p.packets(spec, name, content, 1024), 5)
	row := w.partial(p, name)
	if row == nil {
		w.t.Fatal("nothing is kept")
	}
	return content[:row.Length]
}

// TestSegments: a file in parts, each with a 1032 of its own. Its 1603s have the size of the part
// and the checksum of all so far. A 1029 before the last gets 1607.
func TestSegments(t *testing.T) {
	content := random(1, 10_000)
	w := newCutWorld(t)
	p, c := w.login("alice")
	for from := 0; from < len(content); {
		if got, want := c.ask(p.question("f", len(content)), p.question("f", len(content))), continued("f", content[:from]); got != want+", "+want {
			t.Fatalf("a 1032 gets %q, want %q", got, want)
		}
		to := min(from+3000, len(content))
		want := segment("f", to-from, content[:to])
		if got := c.ask(p.packets(dialects[from/3000], "f", content[from:to], 1008)...); got != want {
			t.Fatalf("a part in %v gets %q, want %q", dialects[from/3000], got, want)
		}
		if to < len(content) {
			row := w.partial(p, "f")
			if row == nil || row.Length != int64(to) {
				t.Fatalf("after its 1603 kept is %+v", row)
			}
			if got := c.ask(p.ok("f")); got != "1607" {
				t.Errorf("a 1029 too soon gets %q", got)
			}
		}
		from = to
	}
	if got := c.ask(p.ok("f")); got != "1604" {
		t.Errorf("the 1029 gets %q", got)
	}
	w.verified(p, "f", content)
	w.hangUp()
	w.counted()
}

// TestBackToTheOffset: a 1030 undoes what came since the 1608, during the transfer, after the 1603 of
// a part, and after that of the last; as do content that does not decrypt, and a first packet again.
func TestBackToTheOffset(t *testing.T) {
	content := random(1, 10_000)
	for what, undo := range map[string]func(p *peer, rest []byte) (say [][]byte, want string){
		"1030 in the middle": func(p *peer, rest []byte) ([][]byte, string) {
			return append(p.packets(spec, "f", rest, 512)[:5], p.verdict(codec.CodeCRCBad, "f")), ""
		},
		"1030 after a part": func(p *peer, rest []byte) ([][]byte, string) {
			return append(p.packets(spec, "f", rest[:1000], 512), p.verdict(codec.CodeCRCBad, "f")),
				segment("f", 1000, content[:len(content)-len(rest)+1000])
		},
		"1030 after the last": func(p *peer, rest []byte) ([][]byte, string) {
			return append(p.packets(spec, "f", rest, 512), p.verdict(codec.CodeCRCBad, "f")), segment("f", len(rest), content)
		},
		"first packet again": func(p *peer, rest []byte) ([][]byte, string) {
			return p.packets(spec, "f", rest, 512)[:5], ""
		},
		"wrong content": func(p *peer, rest []byte) ([][]byte, string) {
			q := *p
			q.key[0] ^= 1
			return q.packets(spec, "f", rest, 512), "1607"
		},
		"more than Total Size": func(p *peer, rest []byte) ([][]byte, string) {
			return p.packets(spec, "f", append(rest[:len(rest):len(rest)], 0), 512), "1607"
		},
		"more than Total Size, per packet": func(p *peer, rest []byte) ([][]byte, string) {
			return p.packets(perPacket, "f", append(rest[:len(rest):len(rest)], 0), 512), "1607"
		},
	} {
		w := newCutWorld(t)
		p := w.known("alice")
		prefix := w.cut(p, "f", content)
		c := w.relogin(p)
		rest := content[len(prefix):]
		for range 3 {
			c.ask(p.question("f", len(content)))
			say, want := undo(p, rest)
			if got := c.ask(say...); got != want {
				t.Errorf("%s gets %q, want %q", what, got, want)
			}
			if row := w.partial(p, "f"); what != "first packet again" && (row == nil || row.Length != int64(len(prefix))) {
				t.Errorf("%s: kept is %+v, and was %d bytes", what, row, len(prefix))
			}
			want = segment("f", len(rest), content)
			if got := c.ask(p.packets(spec, "f", rest, 700)...); got != want {
				t.Errorf("%s, and then the rest gets %q, want %q", what, got, want)
			}
			c.ask(p.verdict(codec.CodeCRCBad, "f"))
		}
		if got := c.ask(append(p.packets(spec, "f", rest, 700), p.ok("f"))...); !strings.HasSuffix(got, "1604") {
			t.Errorf("%s: in the end %q", what, got)
		}
		w.verified(p, "f", content)
		w.hangUp()
		w.counted()
	}
}

// TestGivenUp: a 1031 removes the transfer, the file that waits and the partial one. A verified
// one stays.
func TestGivenUp(t *testing.T) {
	content, old := random(1, 10_000), random(2, 500)
	for _, asked := range []bool{false, true} {
		for _, sent := range []int{0, 4, 100} {
			w := newCutWorld(t)
			p, c := w.login("alice")
			c.ask(append(p.packets(spec, "f", old, 100), p.ok("f"))...)
			prefix := w.cut(p, "f", content)
			c = w.relogin(p)
			rest := content
			if asked {
				c.ask(p.question("f", len(content)))
				rest = content[len(prefix):]
			}
			packets := p.packets(spec, "f", rest, 512)
			c.send(packets[:min(sent, len(packets))]...)
			if got := c.ask(p.verdict(codec.CodeAbort, "f")); !strings.HasSuffix(got, "1604") {
				t.Errorf("a 1031 gets %q", got)
			}
			if w.partial(p, "f") != nil || w.row(p.id, "f", false) != nil || len(w.files.incoming) > 0 {
				t.Errorf("asked %v, %d packets: something is left", asked, sent)
			}
			if got := c.ask(p.question("f", len(content))); got != continued("f", nil) {
				t.Errorf("and then a 1032 gets %q", got)
			}
			w.verified(p, "f", old)
			w.hangUp()
			w.counted()
		}
	}
}

// TestHostileQuestions: 1032s that no honest client sends get 1607, and change nothing.
func TestHostileQuestions(t *testing.T) {
	content := random(1, 10_000)
	w := newCutWorld(t)
	p := w.known("alice")
	prefix := w.cut(p, "f", content)
	other := w.known("mallory")
	c := w.relogin(other)
	question := func(id codec.ClientID, name string, total uint64) []byte {
		return codec.Continue{FileName: []byte(name), TotalSize: total}.Append(nil, id)
	}
	for what, m := range map[string][]byte{
		"another's id": question(p.id, "f", 10_000),
		"no path":      question(other.id, "..", 10_000),
		"too deep":     question(other.id, strings.Repeat("d/", 17)+"f", 10_000),
		"too large":    question(other.id, "f", codec.MaxFileSize+1),
		"2^63":         question(other.id, "f", 1<<63),
		"2^64 - 1":     question(other.id, "f", math.MaxUint64),
	} {
		if got := c.ask(m); got != "1607" {
			t.Errorf("%s gets %q", what, got)
		}
	}
	for _, name := range []string{"f", "../" + p.id.String() + "/f", "/../" + p.id.String() + "/f"} { // in its own folder
		if got := c.ask(question(other.id, name, 10_000)); got != continued(name, nil) {
			t.Errorf("of its own file %q", got)
		}
	}
	packets := other.packets(spec, "f", content, 1024)
	if got := c.ask(packets[0], packets[1], question(other.id, "f", 10_000), packets[2]); got != "1607" {
		t.Errorf("a 1032 between two packets gets %q", got)
	}
	if got, want := c.ask(append(packets[3:], other.ok("f"))...), received("f", content)+", 1604"; got != want {
		t.Errorf("and the transfer %q, want %q", got, want)
	}
	for n := range 200 { // each is remembered, up to a point
		name := fmt.Sprint("n", n)
		if got := c.ask(question(other.id, name, 10_000)); got != continued(name, nil) {
			t.Fatal(got)
		}
	}
	if n := c.s.Continues(); n > 64 {
		t.Errorf("%d names are remembered", n)
	}
	if got, want := w.relogin(p).ask(p.question("f", 10_000)), continued("f", prefix); got != want {
		t.Errorf("the victim gets %q, want %q", got, want)
	}
	w.hangUp()
	w.counted()
}

// TestReadOnce: what a killed server wrote behind the last checkpoint is read at the first
// 1032, and recorded: the next reads nothing. After another boot nothing of it counts, and it stays.
func TestReadOnce(t *testing.T) {
	content := random(1, 10_000)
	for _, boot := range []string{"boot", "another"} {
		w := newCutWorld(t)
		p := w.known("alice")
		w.cut(p, "f", content)
		row := *w.partial(p, "f")
		behind := w.files.incoming[row.Incoming].b.Len()
		row.Length, row.State, row.Boot = 0, 0, boot // as the first record, and all else was written
		w.must(&storage.PutPartial{Partial: row})
		want := continued("f", content[:behind])
		if boot != "boot" {
			want = continued("f", nil)
		}
		for n := range 3 {
			c := w.relogin(p)
			w.reg.faults.calls = 0
			w.files.opened = 0
			if got := c.ask(p.question("f", 10_000)); got != want {
				t.Errorf("%s: a 1032 gets %q, want %q", boot, got, want)
			}
			if reads := w.files.opened; reads > 0 && (n > 0 || boot != "boot") {
				t.Errorf("%s: the content was read at 1032 no. %d", boot, n+1)
			}
		}
		if w.partial(p, "f") == nil {
			t.Errorf("%s: it is gone", boot)
		}
		w.hangUp()
	}
}

// TestPaddingWasMissing: a partial file that has all its bytes awaits its verdict after a 1032.
func TestPaddingWasMissing(t *testing.T) {
	content := random(1, 4096)
	w := newCutWorld(t)
	p, c := w.login("alice")
	packets := p.packets(spec, "f", content, 1024) // the fifth has the padding alone
	w.cutAfter(c, packets, 4)
	c = w.relogin(p)
	if got, want := c.ask(p.question("f", 4096), p.ok("f")), continued("f", content)+", 1604"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	w.verified(p, "f", content)
	w.hangUp()
	w.counted()
}

// TestVerifiedIsTold: of a verified file a 1608 speaks only over a connection with the key that the
// client is pinned to, and not after a 1031.
func TestVerifiedIsTold(t *testing.T) {
	content := random(1, 5000)
	priv, pub := pair[0]()
	for _, tc := range []struct {
		what   string
		ch     session.Channel
		pinned tlskey.Fingerprint
		want   bool
	}{
		{"plain", session.Channel{}, tlskey.Fingerprint{}, false},
		{"over TLS, without a key", overTLS(tlskey.Fingerprint{}), tlskey.Fingerprint{}, false},
		{"over TLS, not pinned", overTLS(ownKey), tlskey.Fingerprint{}, false},
		{"pinned", overTLS(ownKey), ownKey, true},
	} {
		w := newCutWorld(t)
		p, c := w.login("alice")
		c.ask(append(p.packets(spec, "f", content, 1000), p.ok("f"))...)
		if !tc.pinned.IsZero() {
			w.pin(p, tc.pinned)
		}
		c = w.dialOver(tc.ch)
		if got := c.ask(p.publicKey(pub)); got != "1602" {
			t.Fatal(tc.what, got)
		}
		p.key = c.aesKey(t, priv)
		want := continued("f", nil)
		if tc.want {
			want = continued("f", content)
		}
		if got := c.ask(p.question("f", len(content))); got != want {
			t.Errorf("%s: %q, want %q", tc.what, got, want)
		}
		if got := c.ask(p.question("f", len(content)+1)); got != continued("f", nil) {
			t.Errorf("%s, of another size: %q", tc.what, got)
		}
		if tc.want {
			w.pin(p, tlskey.Fingerprint{}) // by another process
			w.recheck()
			w.run()
			if got := c.ask(p.question("f", len(content))); got != continued("f", nil) {
				t.Errorf("%s, and not any more: %q", tc.what, got)
			}
			w.pin(p, tc.pinned)
			c.ask(p.question("f", len(content)))
			if got := c.ask(p.ok("f"), p.verdict(codec.CodeAbort, "f"), p.question("f", len(content))); got != "1604, 1604, "+continued("f", nil) {
				t.Errorf("%s, 1029, 1031: %q", tc.what, got)
			}
			w.verified(p, "f", content)
		}
		w.hangUp()
		w.counted()
	}
}

// TestNotKept: what came on a connection that was bound by the id alone is not kept, and nobody asks there
// what there is. What a client ended, and what got 1607, is not kept either.
func TestNotKept(t *testing.T) {
	content := random(1, 10_000)
	w := newCutWorld(t)
	p := w.known("alice")
	c := w.dial()
	packets := p.packets(spec, "f", content, 1024)
	w.cutAfter(c, packets, 5)
	w.nothingKept("a resumed connection")
	c = w.dial()
	c.ask(packets[0])
	if got := c.ask(p.question("g", 10_000)); got != "1607" {
		t.Errorf("a 1032 on a resumed connection gets %q", got)
	}
	c.close()
	c = w.relogin(p)
	packets = p.packets(spec, "f", content, 1024)
	c.ask(packets[:5]...)
	if w.partial(p, "f") == nil {
		t.Error("a transfer of 5 KiB is not on record")
	}
	c.ask(p.verdict(codec.CodeCRCBad, "f"))
	w.nothingKept("1030")
	c.ask(packets[:5]...)
	c.ask(p.verdict(codec.CodeAbort, "f"))
	w.nothingKept("1031")
	c.ask(packets[:5]...)
	packets[5][len(packets[5])-1-500] ^= 1
	q := *p
	q.key[0] ^= 1
	if got := c.ask(append(packets[5:8:8], q.packets(spec, "f", content, 1024)[8:]...)...); got != "1607" {
		t.Errorf("damaged content gets %q", got)
	}
	w.nothingKept("1607")
	w.hangUp()
	w.counted()
}

// TestDroppedAtRest: maintenance drops a partial file that somebody deleted while a connection may go on
// with it. The content goes when the connection does.
func TestDroppedAtRest(t *testing.T) {
	content := random(1, 10_000)
	w := newCutWorld(t)
	p := w.known("alice")
	prefix := w.cut(p, "f", content)
	c := w.relogin(p)
	if got, want := c.ask(p.question("f", len(content))), continued("f", prefix); got != want {
		t.Fatalf("a 1032 gets %q, want %q", got, want)
	}
	row := w.partial(p, "f")
	if !w.svc.Alive(row.Incoming) {
		t.Error("it is not alive")
	}
	w.must(&storage.DropPartial{Outcome: storage.Outcome{By: storage.Server}, ID: p.id, Path: "f", Incoming: row.Incoming})
	c.close()
	w.run()
	w.nothingKept("the end of the connection")
	w.hangUp()
	w.counted()
}

func (w *world) nothingKept(after string) {
	w.t.Helper()
	for at := range w.reg.partials {
		if w.reg.partial(at) != nil {
			w.t.Errorf("after %s %s is on record", after, at.Path)
		}
	}
	if len(w.files.incoming) > 0 {
		w.t.Errorf("after %s %d incoming files are left", after, len(w.files.incoming))
	}
}

// TestContinuedByTwoInEveryOrder: two connections ask for the rest of one file at once and send it, in every order in which
// things can happen. One of them at least gets its 1604, the other that or 1607s, and the file is whole.
func TestContinuedByTwoInEveryOrder(t *testing.T) {
	content := random(1, 6000)
	var p *peer
	var a, b *conn
	schedules := every(t, func(w *world) {
		w.svc.KeepFrom = 1000
		w.svc.CheckpointEvery = 20_000
		w.svc.LendFrom(1 << 20)
		p = w.known("alice")
		prefix := w.cut(p, "f", content)
		a = w.relogin(p)
		old := *p
		b = w.relogin(p)
		rest := make(map[*conn][]byte)
		for c, q := range map[*conn]*peer{a: &old, b: p} {
			c.send(q.question("f", len(content)))
			rest[c] = q.packets(spec, "f", content[len(prefix):], 4096)[0]
		}
		w.onSend = func(c *conn, reply string) {
			if reply == continued("f", prefix) {
				c.send(rest[c])
			}
		}
	}, func(w *world) {
		want := segment("f", len(content)-5120, content)
		got := strings.Join(append(a.replies, b.replies...), ", ")
		if !strings.Contains(got, want) || strings.Count(got, "1608") != 2 {
			t.Errorf("%q", got)
		}
		f := w.row(p.id, "f", false)
		if f == nil || f.Size != int64(len(content)) {
			t.Errorf("on record is %+v after %q", f, got)
			return
		}
		if in := w.files.incoming[f.Incoming]; in == nil || cksum.Checksum(in.b.Bytes()) != cksum.Checksum(content) {
			t.Errorf("what is there is another file after %q", got)
		}
	})
	t.Log(schedules, "schedules")
}

// TestWholeAfterALostSegment: a connection that sent a part of a file, and lost that to another
// connection, sends the name anew, as a whole. Its verdict is about what it sent.
func TestWholeAfterALostSegment(t *testing.T) {
	old, content := random(1, 9000), random(2, 5000)
	for _, code := range []codec.Code{codec.CodeCRCOK, codec.CodeCRCBad, codec.CodeAbort} {
		w := newCutWorld(t)
		p, b := w.login("alice")
		first := *p
		a := w.relogin(&first)
		want := continued("f", nil) + ", " + segment("f", 4000, old[:4000])
		if got := a.ask(append([][]byte{p.question("f", len(old))}, first.packets(spec, "f", old[:4000], 1024)...)...); got != want {
			t.Fatalf("the segment gets %q, want %q", got, want)
		}
		want = continued("f", old[:4000]) + ", " + segment("f", 5000, old) + ", 1604"
		if got := b.ask(append([][]byte{p.question("f", len(old))}, append(p.packets(spec, "f", old[4000:], 1024), p.ok("f"))...)...); got != want {
			t.Fatalf("the rest gets %q, want %q", got, want)
		}
		want = map[codec.Code]string{codec.CodeCRCOK: ", 1604", codec.CodeAbort: ", 1604"}[code]
		if got := a.ask(append(first.packets(spec, "f", content, 1024), p.verdict(code, "f"))...); got != received("f", content)+want {
			t.Errorf("a new version and its %d get %q, want %q", code, got, received("f", content)+want)
		}
		w.verified(p, "f", map[bool][]byte{true: content, false: old}[code == codec.CodeCRCOK])
		if got := a.ask(append(first.packets(spec, "f", content, 1024), p.ok("f"))...); got != received("f", content)+", 1604" {
			t.Errorf("after a %d the file gets %q", code, got)
		}
		w.hangUp()
		w.counted()
	}
}
