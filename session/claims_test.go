package session_test

import (
	"crypto/rsa"
	"slices"
	"testing"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/crypto/keys"
	"sealift/crypto/tlskey"
	"sealift/session"
	"sealift/storage"
)

// TestPinnedByClaim: an owner of the RSA key on record pins his TLS key with the first
// request that binds a connection. The client's other connections end, but for those
// with the key.
func TestPinnedByClaim(t *testing.T) {
	own := ownerPair()
	for request, r := range binds {
		if r.want == "1606" {
			continue
		}
		w := newWorld(t, session.Config{})
		p := w.withFiles("alice")
		w.must(&storage.SetKeys{ID: p.id, Name: p.name, PublicKey: own.Public[:], AESKey: p.key[:], Replace: true})
		plain, other, same := w.dial(), w.dialOver(overTLS(otherKey)), w.dialOver(overTLS(ownKey))
		for _, c := range []*conn{plain, other, same} {
			if got := c.ask(p.verdict(codec.CodeAbort, "nothing")); got != "1604" {
				t.Fatal(got)
			}
		}
		say := r.say(p)
		if request == "1026" {
			say = [][]byte{p.publicKey(own.Public[:])}
		}
		c := w.dialOver(claiming(t, p, ownKey))
		if got := c.ask(say...); got != r.want {
			t.Errorf("%s: %q, want %q", request, got, r.want)
		}
		w.pinnedTo(p, ownKey)
		if plain.hangup != "pinned, and the connection is plain" || other.hangup != "pinned to another TLS key" || same.hangup != "" || c.hangup != "" {
			t.Errorf("%s: hung up %q, %q, %q, %q", request, plain.hangup, other.hangup, same.hangup, c.hangup)
		}
		if got := w.dial().ask(p.reconnect()); got != "1607" {
			t.Errorf("%s: a plain 1027 afterwards gets %s", request, got)
		}
		// The claim does no harm later, and a claim of another key comes too late.
		if got := w.dialOver(claiming(t, p, ownKey)).ask(p.reconnect()); got != "1605" {
			t.Errorf("%s: the next 1027 gets %s", request, got)
		}
		if got := w.dialOver(claiming(t, p, otherKey)).ask(p.reconnect()); got != "1607" {
			t.Errorf("%s: a claim for another key gets %s", request, got)
		}
		w.pinnedTo(p, ownKey)
		w.hangUp()
	}
}

// TestClaimsThatPinNothing: a claim that is not the owner's, or about something else,
// pins nothing, and the client is served as without.
func TestClaimsThatPinNothing(t *testing.T) {
	w := newWorld(t, session.Config{})
	p, other := w.owned("alice"), w.known("bob")
	keyless := &peer{name: "carol", id: uuid4(codec.ClientID{7})}
	stranger, err := keys.Generate()
	if err != nil {
		t.Fatal(err)
	}
	sign := func(key *rsa.PrivateKey, id codec.ClientID, server, client tlskey.Fingerprint) *tlskey.Claim {
		c, err := tlskey.NewClaim(key, id, server, client)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	_, pub := pair[0]()
	for what, x := range map[string]struct {
		p      *peer
		claim  *tlskey.Claim
		client tlskey.Fingerprint
		say    []byte
		want   string

		warnings int
	}{
		"none":                          {p, nil, ownKey, p.reconnect(), "1605", 0},
		"of another RSA key":            {p, sign(stranger, p.id, serverKey, ownKey), ownKey, p.reconnect(), "1605", 1},
		"about another server":          {p, sign(owner(), p.id, otherKey, ownKey), ownKey, p.reconnect(), "1605", 1},
		"about another TLS key":         {p, sign(owner(), p.id, serverKey, otherKey), ownKey, p.reconnect(), "1605", 1},
		"about another client":          {p, sign(owner(), other.id, serverKey, ownKey), ownKey, p.reconnect(), "1605", 0},
		"with an id put in":             {p, &tlskey.Claim{ID: p.id, Signature: sign(owner(), other.id, serverKey, ownKey).Signature}, ownKey, p.reconnect(), "1605", 1},
		"for another client's id":       {other, sign(owner(), other.id, serverKey, ownKey), ownKey, other.reconnect(), "1605", 1},
		"without a TLS key":             {p, sign(owner(), p.id, serverKey, tlskey.Fingerprint{}), tlskey.Fingerprint{}, p.reconnect(), "1605", 0},
		"on a 1028, of another RSA key": {p, sign(stranger, p.id, serverKey, ownKey), ownKey, slices.Concat(p.packets(single, "f", nil, 0)...), received("f", nil), 1},
		"of a client without a key":     {keyless, sign(owner(), keyless.id, serverKey, ownKey), ownKey, keyless.publicKey(pub), "1602", 0},
		"of nobody":                     {keyless, sign(owner(), codec.ClientID{1}, serverKey, ownKey), ownKey, (&peer{id: codec.ClientID{1}, name: "nobody"}).publicKey(pub), "1607", 0},
	} {
		w = newWorld(t, session.Config{})
		w.owned(p.name)
		w.known(other.name)
		w.must(&storage.AddClient{ID: keyless.id, Name: keyless.name})
		ch := overTLS(x.client)
		ch.Claim = x.claim
		logs := w.logged()
		if got := w.dialOver(ch).ask(x.say); got != x.want {
			t.Errorf("%s: %q, want %q", what, got, x.want)
		}
		w.pinnedTo(x.p, tlskey.Fingerprint{})
		if n := logs.FilterMessage("client not pinned").FilterField(zap.String("client", x.p.id.String())).Len(); n != x.warnings {
			t.Errorf("%s: the log warns %d times, want %d", what, n, x.warnings)
		}
		w.hangUp()
		if got := w.dial().ask(p.reconnect()); got != "1605" {
			t.Errorf("%s: a plain 1027 gets %s", what, got)
		}
		w.hangUp()
	}
}

// TestPinFails: where the registry fails, the client gets 1607 and is not bound.
func TestPinFails(t *testing.T) {
	for request, r := range binds {
		if r.want == "1606" || request == "1026" {
			continue
		}
		w := newWorld(t, session.Config{})
		p := w.withFiles("alice")
		pub := ownerPair().Public
		w.must(&storage.SetKeys{ID: p.id, Name: p.name, PublicKey: pub[:], AESKey: p.key[:], Replace: true})
		w.reg.faults.failOn = "Apply *storage.PinClient"
		c := w.dialOver(claiming(t, p, ownKey))
		if got := c.ask(r.say(p)...); got != "1607" || c.s.State() != "fresh" {
			t.Errorf("%s: %q, %s", request, got, c.s.State())
		}
		w.pinnedTo(p, tlskey.Fingerprint{})
		if got := c.ask(p.reconnect()); got != "1605" {
			t.Errorf("%s: the next 1027 gets %s", request, got)
		}
		w.pinnedTo(p, ownKey)
		w.hangUp()
	}
}
