package session_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sealift/codec"
	"sealift/crypto/aescbc"
	"sealift/session"
)

// eavesdropper knows an id and what went over the wire under it, and wants to
// know a byte of it. Each of his guesses is a file that decrypts if it is right.
type eavesdropper struct {
	p        *peer // of whom he has the id, and not the key
	recorded []byte
}

// eavesdrop has a client upload something, and records it.
func (w *world) eavesdrop() *eavesdropper {
	p := w.known("victim")
	return &eavesdropper{p, p.encrypt(random(77, 100))}
}

// guess is the nth of 256 guesses at the last byte of the second block.
func (e *eavesdropper) guess(name string, n byte) []byte {
	body := append(make([]byte, 15), n)
	body = append(body, e.recorded[aescbc.BlockSize:2*aescbc.BlockSize]...)
	m := codec.SendFile{ContentSize: 32, OrigSize: 31, Packet: 1, Total: 1, FileName: []byte(name)}
	return e.p.packet(m, body)
}

// right is the guess that decrypts.
func (e *eavesdropper) right() byte {
	plain := make([]byte, aescbc.BlockSize)
	d := aescbc.NewDecrypter(&e.p.key)
	d.CryptBlocks(plain, e.recorded[aescbc.BlockSize:2*aescbc.BlockSize])
	return plain[aescbc.BlockSize-1] ^ 1
}

// told is how many connections have learnt that their content does not decrypt:
// what others get, they get for any content.
func (w *world) told() (n int) {
	for _, c := range w.conns {
		if strings.Contains(strings.Join(c.replies, ""), "1607") && strings.Contains(c.hangup, "decrypt") {
			n++
		}
	}
	return n
}

// nothingElse checks that of the files guessed under these names only those that
// had their 1603 are there, also when the victim has a new key and everybody can
// go on with it.
func (e *eavesdropper) nothingElse(w *world, names []string) {
	w.t.Helper()
	had := make(map[string]bool)
	for _, c := range w.conns {
		for _, r := range c.replies {
			if f := strings.Fields(r); f[0] == "1603" {
				had[f[1]] = true
			}
		}
	}
	w.choose = first
	if got := w.dial().ask(e.p.reconnect()); got != "1605" {
		w.t.Fatal(got)
	}
	for _, name := range names {
		want := "1607"
		if had[name] {
			want = "1604"
		}
		if got := w.dial().ask(e.p.ok(name)); got != want {
			w.t.Errorf("1029 for guess %s, which was answered: %v: got %q", name, had[name], got)
		}
	}
}

// TestPaddingOracle: whoever knows an id and a recorded ciphertext, and has as
// many connections as he likes, learns of one wrong guess for each key exchange
// of the client, and of no other: one after the other, all at once, all on one
// connection, or as packets that are encrypted one by one.
func TestPaddingOracle(t *testing.T) {
	t.Run("one after the other", func(t *testing.T) {
		w := newWorld(t, session.Config{})
		e := w.eavesdrop()
		var names []string
		for i := range 256 {
			name := fmt.Sprint("f", i)
			names = append(names, name)
			if n := e.right() + 1 + byte(i); i < 255 { // the right one last
				w.dial().ask(e.guess(name, n))
			} else if got := w.dial().ask(e.guess(name, n)); got != "1607" {
				t.Errorf("the right guess gets %q", got)
			}
		}
		if n := w.told(); n != 1 {
			t.Errorf("%d answers", n)
		}
		if len(w.client(e.p.id).AESKey) != 0 {
			t.Error("the key is still on record")
		}
		e.nothingElse(w, names)
		w.hangUp()
	})
	t.Run("all at once", func(t *testing.T) {
		luck := 0
		for seed := range uint64(12) {
			w := newWorld(t, session.Config{})
			e := w.eavesdrop()
			r := rand.New(rand.NewPCG(seed, 9))
			w.shuffle(r)
			var names []string
			var cs []*conn
			for i := range 256 {
				c, name := w.dial(), fmt.Sprint("f", i)
				names, cs = append(names, name), append(cs, c)
				m := e.guess(name, byte(i))
				if seed%2 == 0 { // bound and waiting for the last byte
					c.in = m[:len(m)-1]
				} else {
					c.in = m
				}
			}
			w.run()
			if seed%2 == 0 {
				for i, c := range cs {
					m := e.guess(names[i], byte(i))
					c.send(m[len(m)-1:])
				}
				w.run()
			}
			if n := w.told(); n != 1 {
				t.Errorf("seed %d: %d answers", seed, n)
			}
			for i, c := range cs {
				switch got := strings.Join(c.replies, ", "); {
				case got == "", got == "1607":
				case strings.HasPrefix(got, "1603") && byte(i) == e.right():
					luck++
				default:
					t.Errorf("seed %d: guess %d gets %q", seed, i, got)
				}
			}
			e.nothingElse(w, names)
			w.hangUp()
		}
		if luck > 2 { // it came before the first wrong one
			t.Errorf("the right guess was answered %d of 12 times", luck)
		}
	})
	t.Run("pipelined", func(t *testing.T) {
		w := newWorld(t, session.Config{})
		e := w.eavesdrop()
		c := w.dial()
		var names []string
		for i := range 256 {
			name := fmt.Sprint("f", i)
			names = append(names, name)
			c.send(e.guess(name, e.right()+1+byte(i)))
		}
		w.run()
		if !slices.Equal(c.replies, []string{"1607"}) || c.hangup == "" {
			t.Errorf("got %q, hangup %q", c.replies, c.hangup)
		}
		e.nothingElse(w, names)
		w.hangUp()
	})
	t.Run("packet by packet", func(t *testing.T) {
		w := newWorld(t, session.Config{})
		e := w.eavesdrop()
		for i := range 2 {
			c := w.dial()
			for n := range 256 {
				m := codec.SendFile{ContentSize: 32, OrigSize: 31, Packet: uint16(n + 1), Total: 256, FileName: []byte("f")}
				body := e.guess("", e.right()+1+byte(n))[codec.RequestHeaderSize+codec.SendFileFieldsSize:]
				c.send(e.p.packet(m, body))
			}
			w.run()
			if !slices.Equal(c.replies, []string{"1607"}) || c.hangup == "" != (i == 1) {
				t.Errorf("%d: got %q, hangup %q", i, c.replies, c.hangup)
			}
		}
		if n := w.told(); n != 1 {
			t.Errorf("%d answers", n)
		}
		w.hangUp()
	})
	t.Run("under every schedule", func(t *testing.T) {
		for _, guesses := range [][2]byte{{1, 2}, {0, 1}} { // past the right one
			var e *eavesdropper
			n := every(t, func(w *world) {
				e = w.eavesdrop()
				var ends [2][]byte
				for i, g := range guesses { // bound, and waiting for the last byte
					m := e.guess(fmt.Sprint("f", i), e.right()+g)
					w.dial().ask(m[:len(m)-1])
					ends[i] = m[len(m)-1:]
				}
				for i, c := range w.conns {
					c.send(ends[i])
				}
			}, func(w *world) {
				if n := w.told(); n != 1 {
					w.t.Errorf("%d answers", n)
				}
				e.nothingElse(w, []string{"f0", "f1"})
			})
			t.Log(n, "schedules")
		}
	})
}

// TestOracleSparesTheClient: a connection with keys of its own goes on after
// content that does not decrypt, and after what others do under the client's id;
// and a key that is newer than the one that did not fit stays on record.
func TestOracleSparesTheClient(t *testing.T) {
	w := newWorld(t, session.Config{})
	content := random(1, 3000)
	p, c := w.login("alice")
	bad := p.packets(single, "f", content, 0)[0]
	bad[len(bad)-1] ^= 1
	serves := func(what string, c *conn, key [32]byte) {
		t.Helper()
		q := *p
		q.key = key
		if got := c.ask(append(q.packets(spec, "f", content, 1000), q.ok("f"))...); got != received("f", content)+", 1604" || c.hangup != "" {
			t.Errorf("%s: got %q, hangup %q", what, got, c.hangup)
		}
	}
	if got := c.ask(bad); got != "1607" {
		t.Fatal(got)
	}
	serves("after a 1607 of its own", c, p.key)
	resumed := w.dial()
	serves("resumed", resumed, p.key)

	other := w.dial()
	if got := other.ask(p.ok("f")); got != "1604" { // bound, by the first key
		t.Fatal(got)
	}
	priv, _ := pair[0]()
	again := w.dial()
	if got := again.ask(p.reconnect()); got != "1605" {
		t.Fatal(got)
	}
	newer := again.aesKey(t, priv)
	if got := other.ask(bad); got != "1607" || other.hangup == "" {
		t.Errorf("got %q, hangup %q", got, other.hangup)
	}
	serves("the connection with the key that was spoilt", c, p.key)
	serves("the connection with the newer key", again, newer)
	serves("resumed with the newer key", w.dial(), newer)
	if got := resumed.ask(p.packets(single, "g", content, 0)...); got != "" || resumed.hangup == "" {
		t.Errorf("resumed with the spoilt key: got %q, hangup %q", got, resumed.hangup)
	}
	w.hangUp()
}

// TestKeyNotForgotten: the registry fails to forget a key. Nobody goes on with it
// all the same, and it is forgotten when somebody tries.
func TestKeyNotForgotten(t *testing.T) {
	w := newWorld(t, session.Config{})
	e := w.eavesdrop()
	w.reg.faults.failOn = "Apply *storage.SetAESKey"
	if got := w.dial().ask(e.guess("f", e.right()+1)); got != "1607" || w.reg.faults.hit == "" {
		t.Fatal(got)
	}
	for range 2 {
		c := w.dial()
		if got := c.ask(e.guess("f", e.right())); got != "1607" || c.s.State() != "fresh" {
			t.Errorf("got %q in state %s", got, c.s.State())
		}
	}
	if len(w.client(e.p.id).AESKey) != 0 {
		t.Error("the key is still on record")
	}
	w.hangUp()
	if n := w.svc.Resumed(); n != 0 {
		t.Errorf("%d clients are remembered", n)
	}
}
