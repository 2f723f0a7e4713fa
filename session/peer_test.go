package session_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/crypto/keys"
	"sealift/internal/testpeer"
	"sealift/storage"
)

// peer is the client's side of a test: who it is. What it says, a testpeer.Peer
// says for it.
type peer struct {
	id   codec.ClientID
	name string
	key  [keys.AESKeySize]byte
}

// pair are key pairs, with the public halves as they go over the wire.
var pair = [2]func() (*testpeer.Pair, []byte){
	func() (*testpeer.Pair, []byte) { k := testpeer.SharedPair(0); return k, k.Public[:] },
	func() (*testpeer.Pair, []byte) { k := testpeer.SharedPair(1); return k, k.Public[:] },
}

// uuid4 makes a UUID of version 4 of id, as the server gives out.
func uuid4(id codec.ClientID) codec.ClientID {
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id
}

// known puts a client into the registry whose keys were exchanged on an earlier
// connection.
func (w *world) known(name string) *peer {
	p := &peer{id: codec.ClientID{0: 0xc1, 15: byte(len(name))}, name: name}
	copy(p.id[1:], name)
	return w.enroll(p)
}

// enroll is known for a client that has an id.
func (w *world) enroll(p *peer) *peer {
	name := p.name
	for i := range p.key {
		p.key[i] = byte(i) ^ name[0]
	}
	_, pub := pair[0]()
	w.must(&storage.AddClient{ID: p.id, Name: name})
	w.must(&storage.SetKeys{ID: p.id, Name: name, PublicKey: pub, AESKey: p.key[:]})
	return p
}

// login makes a client and a connection on which it has exchanged keys.
func (w *world) login(name string) (*peer, *conn) {
	w.t.Helper()
	priv, pub := pair[0]()
	p, c := w.known(name), w.dial()
	if got := c.ask(p.publicKey(pub)); got != "1602" {
		w.t.Fatal(got)
	}
	p.key = c.aesKey(w.t, priv)
	c.replies, c.raw = nil, nil
	return p, c
}

func (w *world) must(op storage.Operation) {
	w.t.Helper()
	if err := w.reg.Registry.Apply(context.Background(), []storage.Operation{op}); err != nil {
		w.t.Fatal(err)
	}
	if err := op.Result().Err; err != nil {
		w.t.Fatal(err)
	}
}

func (p *peer) says() *testpeer.Peer { return &testpeer.Peer{ID: p.id, Name: p.name, Key: p.key} }

func (p *peer) register() []byte              { return p.says().Register() }
func (p *peer) publicKey(pub []byte) []byte   { return p.says().OtherPublicKey(pub) }
func (p *peer) reconnect() []byte             { return p.says().Reconnect() }
func (p *peer) ok(name string) []byte         { return p.verdict(codec.CodeCRCOK, name) }
func (p *peer) encrypt(content []byte) []byte { return p.says().Encrypt(content) }

func (p *peer) verdict(code codec.Code, name string) []byte { return p.says().Verdict(code, name) }

// packet is one 1028, whole.
func (p *peer) packet(m codec.SendFile, body []byte) []byte { return p.says().Packet(m, body).Bytes() }

// The dialects, by short names.
type dialect = testpeer.Dialect

const (
	spec       = testpeer.Spec
	single     = testpeer.Single
	padded     = testpeer.Padded
	zeroBased  = testpeer.ZeroBased
	zeroSpec   = testpeer.ZeroSpec
	perPacket  = testpeer.PerPacket
	packetSize = testpeer.PacketSize
)

var dialects = testpeer.Dialects

// packets lays out a file in packets of size bytes, each whole.
func (p *peer) packets(d dialect, name string, content []byte, size int) (all [][]byte) {
	for _, k := range p.says().File(name, content).Packets(d, size) {
		all = append(all, k.Bytes())
	}
	return all
}

// random returns size bytes that are the same each time.
func random(seed uint64, size int) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{0: byte(seed), 1: byte(seed >> 8), 2: byte(seed >> 16), 3: byte(seed >> 24)})
	_, _ = r.Read(b)
	return b
}

// received is the reply that a file must get.
func received(name string, content []byte) string {
	return fmt.Sprintf("1603 %s %d %08x", name, len(content), cksum.Checksum(content))
}

// aesKey opens the key in the reply that came last.
func (c *conn) aesKey(t testing.TB, pair *testpeer.Pair) [keys.AESKeySize]byte {
	t.Helper()
	raw := c.raw[len(c.raw)-1]
	m, err := codec.ParseKeyReply(codec.CodeAESKey, raw[codec.ResponseHeaderSize:])
	if err != nil {
		t.Fatal(err)
	}
	key, err := pair.Unwrap(m.WrappedKey)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
