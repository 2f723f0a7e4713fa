package session_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/crypto/keys"
	"sealift/crypto/tlskey"
	"sealift/internal/testpeer"
	"sealift/session"
	"sealift/storage"
)

var (
	serverKey = tlskey.Fingerprint{1, 1}
	ownKey    = tlskey.Fingerprint{2, 2} // of the client that a test is about
	otherKey  = tlskey.Fingerprint{3, 3}
)

// owner has the RSA key of a client that claims its id.
var owner = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := keys.Generate()
	if err != nil {
		panic(err)
	}
	return key
})

// ownerPair is the same key as testpeer has them.
func ownerPair() *testpeer.Pair {
	pub, err := keys.MarshalPublic(&owner().PublicKey)
	if err != nil {
		panic(err)
	}
	return &testpeer.Pair{Public: pub, Unwrap: func(wrapped []byte) ([keys.AESKeySize]byte, error) {
		return keys.Unwrap(owner(), wrapped)
	}}
}

// overTLS is a protected channel; client is zero where the client shows no key.
func overTLS(client tlskey.Fingerprint) session.Channel {
	return session.Channel{TLS: true, Server: serverKey, Client: client}
}

// claiming is a channel over which the owner of p claims that client is his key.
func claiming(t testing.TB, p *peer, client tlskey.Fingerprint) session.Channel {
	t.Helper()
	ch := overTLS(client)
	about := claimAbout{p.id, client}
	if made, ok := madeClaims.Load(about); ok {
		ch.Claim = made.(*tlskey.Claim)
		return ch
	}
	claim, err := tlskey.NewClaim(owner(), p.id, serverKey, client)
	if err != nil {
		t.Fatal(err)
	}
	madeClaims.Store(about, claim)
	ch.Claim = claim
	return ch
}

// madeClaims are those that were made, by what they are about: a signature takes longer
// than a whole scenario.
var madeClaims sync.Map

type claimAbout struct {
	id  codec.ClientID
	key tlskey.Fingerprint
}

func (w *world) dialOver(ch session.Channel) *conn {
	c := w.dial()
	c.s.Protect(ch)
	return c
}

// owned is known for a client whose RSA key is the owner's.
func (w *world) owned(name string) *peer {
	p := w.known(name)
	pub := ownerPair().Public
	w.must(&storage.SetKeys{ID: p.id, Name: name, PublicKey: pub[:], AESKey: p.key[:], Replace: true})
	return p
}

// pin pins a client behind the back of the sessions, as another process does; the zero
// key releases it.
func (w *world) pin(p *peer, key tlskey.Fingerprint) {
	w.t.Helper()
	op := &storage.PinClient{Outcome: storage.Outcome{By: storage.Server}, ID: p.id}
	if !key.IsZero() {
		op.TLSKey = key[:]
	}
	w.must(op)
}

// pinnedTo checks what a client is pinned to.
func (w *world) pinnedTo(p *peer, key tlskey.Fingerprint) {
	w.t.Helper()
	var want []byte
	if !key.IsZero() {
		want = key[:]
	}
	if got := w.client(p.id).TLSKey; !bytes.Equal(got, want) {
		w.t.Errorf("%s is pinned to %x, want %x", p.name, got, want)
	}
}

// record is all that is on record, as text.
func (w *world) record() string {
	var all []string
	_ = w.reg.Clients(context.Background(), func(c storage.Client) error {
		all = append(all, fmt.Sprintf("%+v", c))
		return nil
	})
	for _, f := range w.rows() {
		all = append(all, fmt.Sprintf("%+v", f))
	}
	return strings.Join(all, "\n")
}

// misfits are the channels over which a client that is pinned to ownKey is not served,
// and why.
var misfits = map[string]session.Channel{
	"pinned, and the connection is plain":         {},
	"pinned, and the connection shows no TLS key": overTLS(tlskey.Fingerprint{}),
	"pinned to another TLS key":                   overTLS(otherKey),
}

// binds are the requests that a client may begin a connection with, and what it gets
// for each where nothing stands against it.
var binds = map[string]struct {
	say  func(p *peer) [][]byte
	want string
}{
	"1026":               {func(p *peer) [][]byte { _, pub := pair[0](); return [][]byte{p.publicKey(pub)} }, "1602"},
	"1027":               {func(p *peer) [][]byte { return [][]byte{p.reconnect()} }, "1605"},
	"1028":               {func(p *peer) [][]byte { return p.packets(single, "new", []byte("new"), 0) }, received("new", []byte("new"))},
	"1028, of several":   {func(p *peer) [][]byte { return p.packets(spec, "new", []byte("new and longer"), 16) }, received("new", []byte("new and longer"))},
	"1028, the 825s":     {func(p *peer) [][]byte { return later(p.packets(single, "new", []byte("new"), 0)[0]) }, "1603 new 16 fdbce3ec"},
	"1029":               {func(p *peer) [][]byte { return [][]byte{p.ok(oldFile)} }, "1604"},
	"1029 of verified":   {func(p *peer) [][]byte { return [][]byte{p.ok("verified")} }, "1604"},
	"1030":               {func(p *peer) [][]byte { return [][]byte{p.verdict(codec.CodeCRCBad, oldFile)} }, ""},
	"1031":               {func(p *peer) [][]byte { return [][]byte{p.verdict(codec.CodeAbort, oldFile)} }, "1604"},
	"1027, another name": {func(p *peer) [][]byte { q := *p; q.name = "somebody"; return [][]byte{q.reconnect()} }, "1606"},
}

// withFiles is known, with a file that awaits its verdict and one that is verified.
func (w *world) withFiles(name string) *peer {
	w.t.Helper()
	p := w.known(name)
	w.unverified(p, oldFile, []byte("old"))
	w.unverified(p, "verified", []byte("verified"))
	if got := w.dial().ask(p.ok("verified")); got != "1604" {
		w.t.Fatal(got)
	}
	w.hangUp()
	return p
}

// TestPinnedIsRefused: whatever a client that is pinned begins a connection with,
// without its key it gets one 1607, and nothing on record changes. The log says why
// and about whom. With the key it is served.
func TestPinnedIsRefused(t *testing.T) {
	for request, r := range binds {
		for _, policy := range []session.KeyPolicy{session.PinKey, session.ReplaceKey} {
			for reason, ch := range misfits {
				w := newWorld(t, session.Config{Limits: session.Limits{KeyPolicy: policy}})
				p := w.withFiles("alice")
				w.pin(p, ownKey)
				logs, before := w.logged(), w.record()
				c := w.dialOver(ch)
				w.now = w.now.Add(time.Hour)
				if got := c.ask(r.say(p)...); got != "1607" {
					t.Errorf("%s, %s: %q, want 1607", request, reason, got)
				}
				if c.s.State() != "fresh" || c.hangup != "" {
					t.Errorf("%s, %s: the connection is %s, %q", request, reason, c.s.State(), c.hangup)
				}
				told := logs.FilterField(zap.String("reason", reason)).FilterField(zap.String("client", p.id.String()))
				if told.Len() != 1 {
					t.Errorf("%s, %s: the log says %v", request, reason, logs.All())
				}
				if w.hangUp(); w.record() != before {
					t.Errorf("%s, %s: on record is\n%s\nand was\n%s", request, reason, w.record(), before)
				}
				if got := w.dialOver(overTLS(ownKey)).ask(r.say(p)...); got != r.want {
					t.Errorf("%s with its key: %q, want %q", request, got, r.want)
				}
				w.pinnedTo(p, ownKey)
				w.hangUp()
			}
		}
	}
}

// TestPinnedBehindTheBack: a pin that another process sets while connections are open
// stands against the next request of each, before anybody looks. The request gets
// 1607, and the connection ends.
func TestPinnedBehindTheBack(t *testing.T) {
	long := random(1, 3000)
	for request, r := range binds {
		for reason, ch := range misfits {
			w := newWorld(t, session.Config{})
			p := w.withFiles("alice")
			c, d := w.dialOver(ch), w.dialOver(overTLS(ownKey))
			for _, c := range []*conn{c, d} {
				if got := c.ask(p.packets(single, "first", nil, 0)...); got != received("first", nil) {
					t.Fatal(got)
				}
			}
			w.pin(p, ownKey)
			logs, before := w.logged(), w.record()
			w.now = w.now.Add(time.Hour)
			if got := c.ask(r.say(p)...); got != "1607" {
				t.Errorf("%s, %s: %q, want 1607", request, reason, got)
			}
			if c.hangup != reason {
				t.Errorf("%s, %s: hung up for %q", request, reason, c.hangup)
			}
			if told := logs.FilterField(zap.String("reason", reason)); told.Len() != 1 || told.Len() != logs.Len() {
				t.Errorf("%s, %s: the log says %v", request, reason, logs.All())
			}
			c.close()
			w.run()
			if w.record() != before {
				t.Errorf("%s, %s: on record is\n%s\nand was\n%s", request, reason, w.record(), before)
			}
			// The other connection has the key.
			if got, want := d.ask(p.packets(spec, "long", long, 1000)...), received("long", long); got != want {
				t.Errorf("with its key: %q, want %q", got, want)
			}
			w.hangUp()
		}
	}
}

// TestPinnedBeforeVerdict: a pin that another process sets between a 1603 and its 1029
// keeps the 1604 from a plain connection. What is on record is what is stored.
func TestPinnedBeforeVerdict(t *testing.T) {
	for _, watched := range []bool{false, true} {
		for code, verdict := range map[codec.Code]string{codec.CodeCRCOK: "1029", codec.CodeCRCBad: "1030", codec.CodeAbort: "1031"} {
			w := newWorld(t, session.Config{})
			p, c := w.known("alice"), w.dial()
			content := random(1, 3000)
			if got := c.ask(p.packets(spec, "f", content, 1000)...); got != received("f", content) {
				t.Fatal(got)
			}
			w.pin(p, ownKey)
			want := "1607"
			c.send(p.verdict(code, "f"))
			if watched {
				w.recheck()
				want = "" // the connection ends before it is asked
			}
			c.replies = nil
			w.run()
			if got := strings.Join(c.replies, ""); got != want || c.hangup == "" {
				t.Errorf("%s, watched %v: %q, hung up for %q", verdict, watched, got, c.hangup)
			}
			c.close()
			w.run()
			w.clean()
			w.counted()
			if w.svc.Unrecorded() != 0 {
				t.Errorf("%s: a commit is not recorded", verdict)
			}
			if waits := w.row(p.id, "f", false) != nil; waits != (verdict != "1029" || watched) {
				t.Errorf("%s, watched %v: waits is %v", verdict, watched, waits)
			}
			w.hangUp()
		}
	}
}

// TestOustedBeforeVerdict: once a pin was noticed, a 1029 that is there before the
// session was told moves no file to its place.
func TestOustedBeforeVerdict(t *testing.T) {
	w := newWorld(t, session.Config{})
	p, c := w.known("alice"), w.dial()
	if got := c.ask(p.packets(single, "f", nil, 0)...); got != received("f", nil) {
		t.Fatal(got)
	}
	w.pin(p, ownKey)
	w.recheck()
	c.replies = nil
	c.send(p.ok("f"))
	c.feed(len(c.in))
	w.run()
	if got := strings.Join(c.replies, ""); got != "1607" {
		t.Errorf("got %q, want 1607", got)
	}
	if w.row(p.id, "f", true) != nil || w.row(p.id, "f", false) == nil || len(w.files.stored) > 0 {
		t.Errorf("the file was moved: %v", w.rows())
	}
	w.hangUp()
	w.counted()
}

// TestPinnedAndCommitFails: what a commit did to the content is recorded also where
// the client was pinned meanwhile.
func TestPinnedAndCommitFails(t *testing.T) {
	for step, want := range map[string]struct{ verified, missing, settles bool }{
		"Commit, the sync":         {},
		"Commit, after the rename": {verified: true, missing: true},
		"Commit":                   {settles: true},
	} {
		w := newWorld(t, session.Config{})
		p, c := w.known("alice"), w.dial()
		if got := c.ask(p.packets(single, "f", nil, 0)...); got != received("f", nil) {
			t.Fatal(got)
		}
		w.pin(p, ownKey)
		w.files.faults.failOn = step
		if want.settles {
			w.files.faults.fail = func() error { panic(errInjected) }
		}
		if got := c.ask(p.ok("f")); got != "1607" {
			t.Errorf("%s fails: %q", step, got)
		}
		w.files.faults.fail = nil
		f := w.row(p.id, "f", true)
		if (f != nil) != want.verified || f != nil && f.Missing != want.missing {
			t.Errorf("%s fails: on record is %+v", step, w.rows())
		}
		if waits := w.row(p.id, "f", false) != nil; waits != want.settles {
			t.Errorf("%s fails: the file waits is %v", step, waits)
		}
		if n := w.svc.Unrecorded(); (n > 0) != want.settles {
			t.Errorf("%s fails: %d commits are not recorded", step, n)
		}
		if want.settles { // by the next who has the place
			if got := w.dialOver(overTLS(ownKey)).ask(p.verdict(codec.CodeAbort, "f")); got != "1604" || w.svc.Unrecorded() > 0 {
				t.Errorf("%s fails: a 1031 gets %q", step, got)
			}
		}
		w.hangUp()
		w.counted()
	}
}

// recheck has the service look for pins of other processes.
func (w *world) recheck() {
	w.t.Helper()
	w.svc.Registry = w.reg
	if err := w.svc.Recheck(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}

// TestRecheck ends the connections of a client that was pinned by another process, but
// for those with the key, those of other clients, and those that are nobody's.
func TestRecheck(t *testing.T) {
	w := newWorld(t, session.Config{})
	alice, bob := w.known("alice"), w.known("bob")
	var conns []*conn
	for _, x := range []struct {
		ch session.Channel
		p  *peer
	}{{session.Channel{}, alice}, {overTLS(otherKey), alice}, {overTLS(ownKey), alice}, {session.Channel{}, alice}, {session.Channel{}, bob}, {session.Channel{}, nil}} {
		c := w.dialOver(x.ch)
		if x.p != nil && c.ask(x.p.reconnect()) != "1605" {
			t.Fatal(c.replies)
		}
		conns = append(conns, c)
	}
	w.recheck()
	w.run()
	w.pin(alice, ownKey)
	ended := func() (all []string) {
		for _, c := range conns {
			all = append(all, c.hangup)
		}
		return all
	}
	if got := ended(); !slices.Equal(got, make([]string, 6)) {
		t.Errorf("before: %q", got)
	}
	w.recheck()
	w.recheck() // tells nobody twice
	w.run()
	want := []string{"pinned, and the connection is plain", "pinned to another TLS key", "", "pinned, and the connection is plain", "", ""}
	if got := ended(); !slices.Equal(got, want) {
		t.Errorf("ended: %q, want %q", got, want)
	}
	w.pin(alice, otherKey) // the operator changes it
	w.recheck()
	w.run()
	if got := conns[2].hangup; got != "pinned to another TLS key" {
		t.Errorf("the connection with the key that was: %q", got)
	}
	w.pin(bob, tlskey.Fingerprint{})
	w.recheck()
	w.run()
	if conns[4].hangup != "" || conns[5].hangup != "" {
		t.Error("a connection ended that no pin is about")
	}
	w.hangUp()
	if n := w.svc.Bound(); n != 0 {
		t.Errorf("%d clients are believed to have connections", n)
	}

	w.svc.Registry = w.reg
	c := w.dial()
	c.ask(bob.reconnect())
	w.reg.faults.failOn = "Apply *storage.GetClient"
	if err := w.svc.Recheck(context.Background()); !errors.Is(err, errInjected) {
		t.Errorf("the registry fails: %v", err)
	}
	w.hangUp()
}

// TestManyConnectionsOfOneClient: the index of connections holds them in whatever
// order they end.
func TestManyConnectionsOfOneClient(t *testing.T) {
	permutations(4, func(order []int) {
		w := newWorld(t, session.Config{})
		p := w.known("alice")
		var conns []*conn
		for range order {
			c := w.dial()
			if got := c.ask(p.reconnect()); got != "1605" {
				t.Fatal(got)
			}
			conns = append(conns, c)
		}
		for _, n := range order[:2] {
			conns[n].close()
		}
		w.pin(p, ownKey)
		w.recheck()
		w.run()
		for _, n := range order[2:] {
			if conns[n].hangup == "" {
				t.Errorf("%v: connection %d goes on", order, n)
			}
			conns[n].close()
		}
		w.hangUp()
		if n := w.svc.Bound(); n != 0 {
			t.Errorf("%v: %d clients are believed to have connections", order, n)
		}
	})
}

// TestPinnedAtRegistration: who registers over TLS with a key is pinned by that alone.
func TestPinnedAtRegistration(t *testing.T) {
	priv, pub := pair[0]()
	for what, x := range map[string]struct {
		ch  session.Channel
		key tlskey.Fingerprint
	}{
		"plain":          {},
		"TLS, no key":    {ch: overTLS(tlskey.Fingerprint{})},
		"TLS with a key": {overTLS(ownKey), ownKey},
	} {
		w := newWorld(t, session.Config{})
		p, c := &peer{name: "alice"}, w.dialOver(x.ch)
		if got := c.ask(p.register()); got != "1600" {
			t.Fatal(got)
		}
		p.id = codec.ClientID(c.raw[0][codec.ResponseHeaderSize:])
		w.pinnedTo(p, x.key)
		overheard := w.dial().ask(p.publicKey(pub))
		if want := map[bool]string{true: "1602", false: "1607"}[x.key.IsZero()]; overheard != want {
			t.Errorf("%s: who overheard the id gets %s, want %s", what, overheard, want)
		}
		if x.key.IsZero() {
			w.hangUp()
			continue
		}
		if got := c.ask(p.publicKey(pub)); got != "1602" {
			t.Fatal(got)
		}
		p.key = c.aesKey(t, priv)
		if got := c.ask(append(p.packets(single, "f", nil, 0), p.ok("f"))...); got != received("f", nil)+", 1604" {
			t.Error(got)
		}
		w.verified(p, "f", nil)
		// Under the id that a 1606 brought.
		q, d := &peer{name: "bob", id: uuid4(codec.ClientID{9, 9})}, w.dialOver(x.ch)
		if got := d.ask(q.reconnect(), q.publicKey(pub)); got != "1606, 1602" {
			t.Fatal(got)
		}
		w.pinnedTo(q, x.key)
		w.hangUp()
	}
}

// TestNameInCertificate: over a connection whose certificate names a user, nobody else
// registers or reconnects.
func TestNameInCertificate(t *testing.T) {
	_, pub := pair[0]()
	for name, mine := range map[string]bool{"alice": true, "bob": false, "": true} {
		for request, r := range binds {
			if r.want == "1606" {
				continue
			}
			w := newWorld(t, session.Config{})
			p := w.withFiles("alice")
			ch := overTLS(ownKey)
			ch.Name = name
			before, want := w.record(), "1607"
			if mine {
				want = r.want
			}
			c := w.dialOver(ch)
			if got := c.ask(r.say(p)...); got != want {
				t.Errorf("%s under the certificate of %q: %q, want %q", request, name, got, want)
			}
			if !mine && (w.record() != before || c.s.State() != "fresh") {
				t.Errorf("%s under the certificate of %q changed something", request, name)
			}
			w.hangUp()
		}
		w := newWorld(t, session.Config{})
		p, c := &peer{name: "alice", id: uuid4(codec.ClientID{5})}, overTLS(ownKey)
		c.Name = name
		want := map[bool]string{true: "1600", false: "1607"}[mine]
		if got := w.dialOver(c).ask(p.register()); got != want {
			t.Errorf("1025 under the certificate of %q: %s, want %s", name, got, want)
		}
		q := &peer{name: "bob", id: uuid4(codec.ClientID{6})}
		if got := w.dialOver(c).ask(q.reconnect(), q.publicKey(pub)); name == "alice" && got != "1607, 1607" || name != "alice" && got != "1606, 1602" {
			t.Errorf("bob under a 1606, with the certificate of %q: %s", name, got)
		}
		w.hangUp()
	}
}

// TestIDsThatLookLikeTLS: after a 1606 the id of any other server is registered, but for
// one with which the next connection would be taken for one over TLS.
func TestIDsThatLookLikeTLS(t *testing.T) {
	_, pub := pair[0]()
	hello := codec.ClientID{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}
	try := func(what string, id codec.ClientID, want string) {
		t.Helper()
		w := newWorld(t, session.Config{})
		p, before := &peer{name: "bob", id: id}, w.record()
		if got := w.dial().ask(p.reconnect(), p.publicKey(pub)); got != "1606, "+want {
			t.Errorf("%s: %s", what, got)
		}
		if registered := w.record() != before; registered != (want == "1602") {
			t.Errorf("%s: registered: %t", what, registered)
		}
		w.hangUp()
	}
	for _, i := range []int{2, 3, 4, 7, 8, 11, 15} { // whatever these are
		id := hello
		id[i] ^= 0xff
		try(fmt.Sprintf("a hello, byte %d another", i), id, "1607")
	}
	for _, i := range []int{0, 1, 5, 6, 9, 10} {
		id := hello
		id[i] ^= 0xff
		try(fmt.Sprintf("no hello by byte %d", i), id, "1602")
	}
	try("of no version", codec.ClientID{1, 8: 0x80}, "1602")
	try("of version 7", codec.ClientID{1, 6: 0x70, 8: 0x80}, "1602")
	w := newWorld(t, session.Config{})
	for range 100 {
		c := w.dial()
		p := &peer{name: fmt.Sprint(len(w.conns))}
		c.ask(p.register())
		if id := c.raw[0][codec.ResponseHeaderSize:]; id[6]>>4 != 4 || id[8]>>6 != 2 {
			t.Fatalf("the server gave out %x", id)
		}
	}
	w.hangUp()
}
