package session_test

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"sealift/codec"
	"sealift/session"
	"sealift/storage"
	"sealift/storage/memory"
)

// TestRegisterTogether: of two clients that register one name at the same
// instant, one gets a 1600 and the other a 1601, whatever happens first.
func TestRegisterTogether(t *testing.T) {
	every(t, func(w *world) {
		p := &peer{name: "alice"}
		a, b := w.dial(), w.dial()
		a.send(p.register())
		b.send(p.register())
	}, func(w *world) {
		got := []string{w.conns[0].replies[0], w.conns[1].replies[0]}
		slices.Sort(got)
		if !slices.Equal(got, []string{"1600", "1601"}) {
			w.t.Errorf("got %q", got)
		}
	})
}

// TestSession is what the documents describe, from registration to a verified
// file and back again on another connection.
func TestSession(t *testing.T) {
	w := newWorld(t, session.Config{})
	priv, pub := pair[0]()
	p, c := &peer{name: "Michael Jackson"}, w.dial()
	if got := c.ask(p.register()); got != "1600" {
		t.Fatal(got)
	}
	p.id = codec.ClientID(c.raw[0][7:])
	if got := c.ask(p.publicKey(pub)); got != "1602" {
		t.Fatal(got)
	}
	checkWire(t, c.raw[1], wire1602, p.id)
	p.key = c.aesKey(t, priv)
	content := random(1, 10_000)
	if got := c.ask(p.packets(spec, `C:\specs\New.docx`, content, 1024)...); got != received(`C:\specs\New.docx`, content) {
		t.Fatal(got)
	}
	if got := c.ask(p.ok(`C:\specs\New.docx`)); got != "1604" {
		t.Fatal(got)
	}
	w.verified(p, "specs/New.docx", content)
	c.close()

	w.now = w.now.Add(time.Hour)
	c = w.dial()
	if got := c.ask(p.reconnect()); got != "1605" {
		t.Fatal(got)
	}
	old := p.key
	if p.key = c.aesKey(t, priv); p.key == old {
		t.Error("the 1605 carries the key of the 1602")
	}
	client := w.client(p.id)
	if client.Name != p.name || !bytes.Equal(client.PublicKey, pub) || !bytes.Equal(client.AESKey, p.key[:]) || !client.LastSeen.Equal(w.now) {
		t.Errorf("on record is %+v", client)
	}
	if got := c.ask(append(p.packets(single, "b", nil, 0), p.ok("b"))...); got != received("b", nil)+", 1604" {
		t.Fatal(got)
	}
	w.verified(p, "b", nil)
	w.hangUp()
}

func (w *world) client(id codec.ClientID) (found storage.Client) {
	_ = w.reg.Clients(context.Background(), func(c storage.Client) error {
		if c.ID == id {
			found = c
		}
		return nil
	})
	return found
}

// TestKeyPolicy: a public key stays unless the server is told otherwise.
func TestKeyPolicy(t *testing.T) {
	_, pub := pair[0]()
	priv2, pub2 := pair[1]()
	for policy, want := range map[session.KeyPolicy]string{session.PinKey: "1607", session.ReplaceKey: "1602"} {
		w := newWorld(t, session.Config{Limits: session.Limits{KeyPolicy: policy}})
		p := w.known("alice")
		c := w.dial()
		if got := c.ask(p.publicKey(pub2)); got != want {
			t.Errorf("policy %d: another key gets %s", policy, got)
		}
		kept := pub
		if want == "1602" {
			kept = pub2
			if key := c.aesKey(t, priv2); !bytes.Equal(w.client(p.id).AESKey, key[:]) {
				t.Error("another AES key was sent than is on record")
			}
		}
		if !bytes.Equal(w.client(p.id).PublicKey, kept) {
			t.Errorf("policy %d: the wrong key is on record", policy)
		}
		// The other way, a 1027, goes to the owner of the key on record.
		if got := w.dial().ask(p.reconnect()); got != "1605" {
			t.Error(got)
		}
		w.hangUp()
	}
}

// TestRejectedID: some clients answer a 1606 with a 1026 under the id in it.
func TestRejectedID(t *testing.T) {
	priv, pub := pair[0]()
	w := newWorld(t, session.Config{})
	w.known("alice")
	p, c := &peer{name: "bob", id: uuid4(codec.ClientID{9, 9})}, w.dial()
	if got := c.ask(p.publicKey(pub)); got != "1607" {
		t.Fatal("before the 1606:", got)
	}
	if got := c.ask(p.reconnect()); got != "1606" {
		t.Fatal(got)
	}
	other := &peer{name: "bob", id: uuid4(codec.ClientID{9, 8})}
	if got := c.ask(other.publicKey(pub)); got != "1607" {
		t.Error("under another id than that of the 1606:", got)
	}
	taken := &peer{name: "alice", id: p.id}
	if got := c.ask(taken.publicKey(pub)); got != "1607" {
		t.Error("with a name that is taken:", got)
	}
	if w.client(p.id).Name != "" {
		t.Error("registered all the same")
	}
	if got := w.dial().ask(p.publicKey(pub)); got != "1607" {
		t.Error("on another connection:", got)
	}
	if got := c.ask(p.publicKey(pub)); got != "1602" {
		t.Fatal(got)
	}
	p.key = c.aesKey(t, priv)
	content := random(1, 500)
	if got := c.ask(append(p.packets(spec, "f", content, 100), p.ok("f"))...); got != received("f", content)+", 1604" {
		t.Fatal(got)
	}
	w.verified(p, "f", content)
	// A client that has no id has none to be registered under.
	nobody := &peer{name: "carol"}
	c = w.dial()
	if got := c.ask(nobody.reconnect(), nobody.publicKey(pub)); got != "1606, 1607" {
		t.Error(got)
	}
	w.hangUp()
}

// TestRejectedIDWithFiles: an id that has stored files is nobody's to take, also
// where no record of its client is left.
func TestRejectedIDWithFiles(t *testing.T) {
	_, pub := pair[0]()
	w := newWorld(t, session.Config{})
	lost := w.enroll(&peer{id: uuid4(codec.ClientID{9}), name: "alice"})
	content := random(1, 500)
	c := w.dial()
	if got := c.ask(append(lost.packets(spec, "f", content, 100), lost.ok("f"))...); got != received("f", content)+", 1604" {
		t.Fatal(got)
	}
	w.reg.Registry = memory.New() // the database was lost
	mallory := &peer{name: "mallory", id: lost.id}
	if got := w.dial().ask(mallory.reconnect(), mallory.publicKey(pub)); got != "1606, 1607" {
		t.Errorf("under the id of a client that has files: %s", got)
	}
	if got := w.client(lost.id).Name; got != "" {
		t.Errorf("registered %q under it", got)
	}
	c = w.dial()
	w.files.faults.failOn = "Has"
	other := &peer{name: "bob", id: uuid4(codec.ClientID{9, 9})}
	if got := c.ask(other.reconnect(), other.publicKey(pub)); got != "1606, 1607" {
		t.Errorf("where the store cannot say: %s", got)
	}
	if got := c.ask(other.publicKey(pub)); got != "1602" {
		t.Errorf("under an id that has none, later: %s", got)
	}
	w.hangUp()
}

// TestKeylessClientGoes: a client that is forgotten while its connection is open
// cannot go on, and the name is free for the next who registers.
func TestKeylessClientGoes(t *testing.T) {
	_, pub := pair[0]()
	w := newWorld(t, session.Config{})
	p, c := &peer{name: "alice"}, w.dial()
	if got := c.ask(p.register()); got != "1600" {
		t.Fatal(got)
	}
	p.id = codec.ClientID(c.raw[0][7:])
	drop := &storage.DropKeyless{ID: p.id, Before: w.now.Add(time.Hour)}
	if err := w.reg.Apply(t.Context(), []storage.Operation{drop}); err != nil || drop.Err != nil {
		t.Fatal(err, drop.Err)
	}
	if got := c.ask(p.publicKey(pub)); got != "1607" {
		t.Errorf("a 1026 of a client that is gone gets %s", got)
	}
	if got := w.dial().ask((&peer{name: "alice"}).register()); got != "1600" {
		t.Errorf("the next one of that name gets %s", got)
	}
	w.hangUp()
}

// TestNotUnderAnotherID: what a client began does not go on under the id that
// its connection takes next. Anyone who knows a client's id and name can have a
// 1605 for it, and must not bring files into its folder with a key of his own.
func TestNotUnderAnotherID(t *testing.T) {
	content := random(1, 50_000)
	for _, at := range []int{1, 25, 50} { // packets before the change, of 51
		w := newWorld(t, session.Config{})
		victim, p := w.known("victim"), w.known("mallory")
		c := w.dial()
		packets := p.packets(spec, "f", content, 1000)
		c.ask(packets[:at]...)
		wrong := &peer{id: p.id, name: "nobody"}
		if got := c.ask(wrong.reconnect(), victim.reconnect()); got != "1606, 1605" {
			t.Fatal(got)
		}
		rest := *p
		rest.id = victim.id
		c.ask(append(rest.packets(spec, "f", content, 1000)[at:], rest.ok("f"))...)
		for _, f := range w.rows() {
			t.Errorf("after %d packets: a file of %v", at, f.ID)
		}
		w.hangUp()
	}
}

// TestFreshKeys: every 1602 and 1605 carries an AES key of its own, which is
// the one on record.
func TestFreshKeys(t *testing.T) {
	w := newWorld(t, session.Config{})
	priv, pub := pair[0]()
	p := w.known("alice")
	seen := map[[32]byte]bool{p.key: true}
	for range 3 {
		c := w.dial()
		if got := c.ask(p.reconnect()); got != "1605" {
			t.Fatal(got)
		}
		for range 2 {
			key := c.aesKey(t, priv)
			if seen[key] {
				t.Error("an AES key was used twice")
			}
			seen[key] = true
			if !bytes.Equal(w.client(p.id).AESKey, key[:]) {
				t.Error("another AES key was sent than is on record")
			}
			if got := c.ask(p.publicKey(pub)); got != "1602" {
				t.Fatal(got)
			}
		}
		c.close()
	}
	w.hangUp()
}

// TestLastSeen: also a connection that only sends file content is seen.
func TestLastSeen(t *testing.T) {
	w := newWorld(t, session.Config{})
	p := w.known("alice")
	c := w.dial()
	packets := p.packets(spec, "f", random(1, 1000), 500)
	c.ask(packets[0])
	w.now = w.now.Add(time.Minute)
	c.ask(packets[1])
	last := w.now
	w.now = w.now.Add(time.Minute)
	w.hangUp()
	if got := w.client(p.id).LastSeen; !got.Equal(last) {
		t.Errorf("last seen %v, want %v", got, last)
	}
}
