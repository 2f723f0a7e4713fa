package session_test

import (
	"context"
	"crypto/rsa"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"sealift/codec"
	"sealift/crypto/aescbc"
	"sealift/crypto/cksum"
	"sealift/crypto/keys"
	"sealift/storage"
)

// peer is the client's side of a test: what it knows and how it speaks.
type peer struct {
	id   codec.ClientID
	name string
	key  [keys.AESKeySize]byte
}

// pairs of keys, made once.
var pair = [2]func() (*rsa.PrivateKey, []byte){makePair(), makePair()}

func makePair() func() (*rsa.PrivateKey, []byte) {
	return sync.OnceValues(func() (*rsa.PrivateKey, []byte) {
		priv, err := keys.Generate()
		if err != nil {
			panic(err)
		}
		pub, err := keys.MarshalPublic(&priv.PublicKey)
		if err != nil {
			panic(err)
		}
		return priv, pub[:]
	})
}

// known puts a client into the registry whose keys were exchanged on an earlier
// connection.
func (w *world) known(name string) *peer {
	p := &peer{id: codec.ClientID{0: 0xc1, 15: byte(len(name))}, name: name}
	copy(p.id[1:], name)
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

func (p *peer) register() []byte { return codec.Register{Name: []byte(p.name)}.Append(nil) }

func (p *peer) publicKey(pub []byte) []byte {
	return codec.PublicKey{Name: []byte(p.name), Key: pub}.Append(nil, p.id)
}

func (p *peer) reconnect() []byte { return codec.Reconnect{Name: []byte(p.name)}.Append(nil, p.id) }

func (p *peer) verdict(code codec.Code, name string) []byte {
	return codec.Verdict{Code: code, FileName: []byte(name)}.Append(nil, p.id)
}

func (p *peer) ok(name string) []byte { return p.verdict(codec.CodeCRCOK, name) }

// packet is one 1028, whole.
func (p *peer) packet(m codec.SendFile, body []byte) []byte {
	return append(m.Append(nil, p.id, uint32(len(body))), body...)
}

func (p *peer) encrypt(content []byte) []byte {
	out := make([]byte, aescbc.CiphertextSize(int64(len(content))))
	aescbc.NewEncrypter(&p.key).Final(out, content)
	return out
}

// dialect is a way to lay out a file, see DIALECTS in docs/PROTOCOL.md.
type dialect string

const (
	spec       dialect = "spec"
	single     dialect = "single"
	padded     dialect = "padded"
	zeroBased  dialect = "zero-based"      // packets as padded
	zeroSpec   dialect = "zero-based spec" // packets as spec
	perPacket  dialect = "per-packet"
	packetSize dialect = "packet-size"
)

var dialects = []dialect{spec, single, padded, zeroBased, zeroSpec, perPacket, packetSize}

// packets lays out a file in packets of size bytes.
func (p *peer) packets(d dialect, name string, content []byte, size int) [][]byte {
	c := p.encrypt(content)
	if d == single {
		size = len(c)
	}
	var bodies [][]byte
	var origs []int
	if d == perPacket {
		for rest := content; ; rest = rest[size:] {
			piece := rest[:min(size, len(rest))]
			bodies, origs = append(bodies, p.encrypt(piece)), append(origs, len(piece))
			if len(rest) <= size {
				break
			}
		}
	} else {
		bodies = slices.Collect(slices.Chunk(c, size))
	}
	if len(bodies) > codec.MaxPackets {
		panic(fmt.Sprint(len(bodies), " packets"))
	}
	var all [][]byte
	for i, b := range bodies {
		m := codec.SendFile{
			ContentSize: uint32(len(c)), OrigSize: uint32(len(content)),
			Packet: uint16(i + 1), Total: uint16(len(bodies)), FileName: []byte(name),
		}
		switch d {
		case padded:
			b = append(slices.Clone(b), make([]byte, size-len(b))...)
		case zeroBased:
			b = append(slices.Clone(b), make([]byte, size-len(b))...)
			m.Packet--
		case zeroSpec:
			m.Packet--
		case perPacket:
			m.ContentSize, m.OrigSize = uint32(len(b)), uint32(origs[i])
		case packetSize:
			m.ContentSize = uint32(len(b))
		}
		all = append(all, p.packet(m, b))
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
func (c *conn) aesKey(t testing.TB, priv *rsa.PrivateKey) [keys.AESKeySize]byte {
	t.Helper()
	raw := c.raw[len(c.raw)-1]
	m, err := codec.ParseKeyReply(codec.CodeAESKey, raw[codec.ResponseHeaderSize:])
	if err != nil {
		t.Fatal(err)
	}
	key, err := keys.Unwrap(priv, m.WrappedKey)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
