package session_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sealift/codec"
	"sealift/crypto/tlskey"
	"sealift/session"
)

// intrusions are what comes over a plain connection while a client is being pinned.
var intrusions = map[string]func(p *peer) [][]byte{
	"1026":             func(p *peer) [][]byte { pub := ownerPair().Public; return [][]byte{p.publicKey(pub[:])} },
	"1027":             func(p *peer) [][]byte { return [][]byte{p.reconnect()} },
	"1028":             func(p *peer) [][]byte { return p.packets(single, "f", []byte("new"), 0) },
	"1028, of several": func(p *peer) [][]byte { return p.packets(spec, "f", []byte("new and longer"), 16) },
	"1029":             func(p *peer) [][]byte { return [][]byte{p.ok(oldFile)} },
	"1031":             func(p *peer) [][]byte { return [][]byte{p.verdict(codec.CodeAbort, oldFile)} },
}

// many is every for scenarios with too many schedules to try each: it tries a thousand
// at random.
func many(t *testing.T, set, check func(w *world)) {
	t.Helper()
	schedules := uint64(1000)
	if testing.Short() {
		schedules = 300
	}
	for seed := range schedules {
		w := newWorld(t, session.Config{})
		w.plain = true
		set(w)
		w.choose = rand.New(rand.NewPCG(seed, 14)).IntN
		w.run()
		check(w)
		w.choose = first
		w.hangUp()
		if t.Failed() {
			t.Fatalf("with seed %d", seed)
		}
	}
}

// after checks what must be true of a plain connection c of p, who is pinned, when
// nothing is under way: it has ended, or is nobody's, what it was told is so, and what
// is on record is what is stored.
func (w *world) after(p *peer, c *conn) {
	w.t.Helper()
	w.pinnedTo(p, ownKey)
	if c.s.State() != "fresh" && c.hangup == "" {
		w.t.Errorf("the plain connection goes on, %s", c.s.State())
	}
	if n := w.svc.Unrecorded(); n != 0 {
		w.t.Errorf("%d commits are not recorded", n)
	}
	for _, r := range c.replies {
		switch f := strings.Fields(r); {
		case f[0] == "1603" && w.row(p.id, f[1], false) == nil && w.row(p.id, f[1], true) == nil:
			w.t.Errorf("%s, and there is no such file", r)
		}
	}
	w.counted()
}

// TestPinDuringRequests: a client is pinned by the claim in its 1027, while a plain
// connection is at any point of a request under its id. Whatever comes first, the plain
// connection ends, and the AES key on record is that of the pinned one.
func TestPinDuringRequests(t *testing.T) {
	own := ownerPair()
	for request, say := range intrusions {
		t.Run(request, func(t *testing.T) {
			t.Parallel()
			var p *peer
			many(t, func(w *world) {
				p = w.owned("alice")
				w.unverified(p, oldFile, []byte("old"))
				intruder, pinned := w.dial(), w.dialOver(claiming(t, p, ownKey))
				q := *p
				intruder.send(say(&q)...)
				pinned.send(p.reconnect())
			}, func(w *world) {
				intruder, pinned := w.conns[0], w.conns[1]
				if !slices.Equal(pinned.replies, []string{"1605"}) || pinned.hangup != "" {
					w.t.Errorf("the pinned connection got %q, hung up for %q", pinned.replies, pinned.hangup)
					return
				}
				if key := pinned.aesKey(w.t, own); string(w.client(p.id).AESKey) != string(key[:]) {
					w.t.Error("the AES key on record is not that of the pinned connection")
				}
				w.after(p, intruder)
				if got := w.dial().ask(p.reconnect()); got != "1607" {
					w.t.Errorf("a plain 1027 afterwards gets %s", got)
				}
			})
		})
	}
}

// TestTwoPinAtOnce: of two who claim a client with two TLS keys at the same moment one
// wins, and the other gets 1607 or ends.
func TestTwoPinAtOnce(t *testing.T) {
	for what, x := range map[string]struct {
		say  func(p *peer) []byte
		want string
	}{
		"1027": {(*peer).reconnect, "1605"},
		"1031": {func(p *peer) []byte { return p.verdict(codec.CodeAbort, "nothing") }, "1604"},
	} {
		var p *peer
		many(t, func(w *world) {
			p = w.owned("alice")
			for _, key := range []tlskey.Fingerprint{ownKey, otherKey} {
				w.dialOver(claiming(t, p, key)).send(x.say(p))
			}
		}, func(w *world) {
			winner, loser := w.conns[0], w.conns[1]
			if tlskey.Fingerprint(w.client(p.id).TLSKey) != ownKey {
				winner, loser = loser, winner
			}
			if !slices.Equal(winner.replies, []string{x.want}) || winner.hangup != "" {
				w.t.Errorf("%s: the winner got %q, hung up for %q", what, winner.replies, winner.hangup)
			}
			if loser.hangup == "" && !slices.Equal(loser.replies, []string{"1607"}) || slices.Contains(loser.replies, x.want) {
				w.t.Errorf("%s: the loser got %q, hung up for %q", what, loser.replies, loser.hangup)
			}
		})
	}
}

// onRecord is what a client may change: its keys, and its files by their key.
type onRecord struct {
	keys  string
	files map[string]bool // whether it is verified
}

func (w *world) onRecord(p *peer) onRecord {
	c := w.client(p.id)
	r := onRecord{fmt.Sprintf("%x %x", c.PublicKey, c.AESKey), make(map[string]bool)}
	for _, f := range w.rows() {
		r.files[f.Incoming] = f.Verified
	}
	return r
}

// nothingGranted checks what a connection that was shut out while it was served has done
// since: it ended, nothing on record changed since before but that a commit under way was
// recorded, and each of its 1604s is about a file that was verified.
func (w *world) nothingGranted(p *peer, c *conn, before onRecord, what string) {
	w.t.Helper()
	if c.hangup == "" && c.s.State() != "fresh" {
		w.t.Errorf("%s: the connection goes on", what)
	}
	after, granted := w.onRecord(p), 0
	if after.keys != before.keys {
		w.t.Errorf("%s: the keys on record changed", what)
	}
	for key, verified := range after.files {
		if was, ok := before.files[key]; !ok || was && !verified {
			w.t.Errorf("%s: another file is on record", what)
		}
	}
	for _, verified := range before.files {
		if verified {
			granted++
		}
	}
	if n := strings.Count(strings.Join(c.replies, " "), "1604"); n > granted {
		w.t.Errorf("%s: %d 1604, and %d files were verified", what, n, granted)
	}
	if n := w.svc.Unrecorded(); n != 0 {
		w.t.Errorf("%s: %d commits are not recorded", what, n)
	}
}

// TestPinBehindAnyStep: another process pins a client at any step of what a plain
// connection does under its id, and the server notices at any step after that. From the
// pin on nothing is changed on record for the plain connection, but that a commit that
// was under way is recorded, without a 1604. When it was noticed, the connection ends.
func TestPinBehindAnyStep(t *testing.T) {
	content := random(1, 9000)
	for _, direct := range []bool{false, true} {
		for at := 0; ; at++ {
			over := false
			for later := 0; !over && later < 12; later++ {
				w := newWorld(t, session.Config{})
				if direct {
					w.direct = func() bool { return true }
				}
				w.portion = func(n int) int { return min(n, 3000) }
				p, c := w.known("alice"), w.dial()
				w.unverified(p, oldFile, []byte("old"))
				c.send(p.packets(spec, "f", content, 4000)...)
				c.send(p.ok("f"))
				c.send(p.packets(single, "g", content[:100], 0)...)
				c.send(p.ok("g"), p.ok(oldFile), p.reconnect())
				for range at {
					over = !w.step()
				}
				w.pin(p, ownKey)
				before := w.onRecord(p)
				for range later {
					w.step()
				}
				w.recheck()
				w.run()
				what := fmt.Sprintf("pinned at step %d, noticed %d later, direct %v", at, later, direct)
				w.nothingGranted(p, c, before, what)
				w.hangUp()
				w.counted()
				if t.Failed() {
					return
				}
			}
			if over {
				break
			}
		}
	}
}
