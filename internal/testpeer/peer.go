// Package testpeer is a client of the protocol of which a test decides every
// byte. It shares codec and crypto with the product and nothing else, so that a
// mistake of package client does not hide one of the server's.
//
// A [Peer] makes messages and knows no socket: tests hand them to a session in
// memory, spoil them, or send them on a connection of their own. A [File] is what
// it encrypted, cut into packets by a [Dialect]. A [Conn] is a peer on a
// connection, with deadlines, and does the protocol's steps.
//
// It is for tests and benchmarks only.
package testpeer

import (
	"crypto/rsa"
	"fmt"
	"sync"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/crypto/keys"
)

// Peer is who a client is. A test may set and change every field; a copy is
// another peer with the same keys.
type Peer struct {
	ID   codec.ClientID
	Name string
	Pair *Pair
	Key  [keys.AESKeySize]byte // the AES key of the last 1602 or 1605
}

// Pair is a client's RSA key pair.
type Pair struct {
	Public  [keys.PublicKeySize]byte // as it goes over the wire
	Private *rsa.PrivateKey
	// Unwrap opens the AES key of a 1602 or 1605.
	Unwrap func(wrapped []byte) ([keys.AESKeySize]byte, error)
}

var pairs = [4]func() *Pair{
	sync.OnceValue(newPair), sync.OnceValue(newPair), sync.OnceValue(newPair), sync.OnceValue(newPair),
}

// SharedPair returns one of four key pairs of this process, each made when it is
// first asked for: making one takes 11 ms, and a server does not mind clients that
// have the same. Any goroutine may call it.
func SharedPair(i int) *Pair { return pairs[i%len(pairs)]() }

func newPair() *Pair {
	private, err := keys.Generate()
	if err != nil {
		panic(err)
	}
	public, err := keys.MarshalPublic(&private.PublicKey)
	if err != nil {
		panic(err)
	}
	return &Pair{public, private, func(wrapped []byte) ([keys.AESKeySize]byte, error) { return keys.Unwrap(private, wrapped) }}
}

// The requests of a peer, whole, in buffers of their own.

// Register is a 1025.
func (p *Peer) Register() []byte { return codec.Register{Name: []byte(p.Name)}.Append(nil) }

// PublicKey is a 1026 with the key of the peer's pair.
func (p *Peer) PublicKey() []byte { return p.OtherPublicKey(p.Pair.Public[:]) }

// OtherPublicKey is a 1026 with any bytes of that size as the key.
func (p *Peer) OtherPublicKey(key []byte) []byte {
	return codec.PublicKey{Name: []byte(p.Name), Key: key}.Append(nil, p.ID)
}

// Reconnect is a 1027.
func (p *Peer) Reconnect() []byte { return codec.Reconnect{Name: []byte(p.Name)}.Append(nil, p.ID) }

// Verdict is a 1029, 1030 or 1031.
func (p *Peer) Verdict(code codec.Code, file string) []byte {
	return codec.Verdict{Code: code, FileName: []byte(file)}.Append(nil, p.ID)
}

// Packet is a 1028 of any fields and content. It does not copy body.
func (p *Peer) Packet(m codec.SendFile, body []byte) Packet {
	return Packet{m.Append(nil, p.ID, uint32(len(body))), body}
}

// Open takes the AES key out of the payload of a 1602 or 1605, which must be for
// this peer.
func (p *Peer) Open(code codec.Code, payload []byte) error {
	m, err := codec.ParseKeyReply(code, payload)
	if err != nil {
		return err
	}
	if m.ID != p.ID {
		return fmt.Errorf("a %v for %v, not %v", code, m.ID, p.ID)
	}
	p.Key, err = p.Pair.Unwrap(m.WrappedKey)
	return err
}

// checkID returns an error unless the payload of a 1604 or 1606 has the peer's id.
func (p *Peer) checkID(code codec.Code, payload []byte) error {
	m, err := codec.ParseIDReply(code, payload)
	if err == nil && m.ID != p.ID {
		err = fmt.Errorf("a %v for %v, not %v", code, m.ID, p.ID)
	}
	return err
}

// CheckReceived returns an error unless the payload of a 1603 is about f, sent by
// this peer.
func (p *Peer) CheckReceived(payload []byte, f *File) error {
	return p.checkReceived(payload, f.Name, int64(len(f.Content)), f.Cksum)
}

func (p *Peer) checkReceived(payload []byte, name string, size int64, sum uint32) error {
	m, err := codec.ParseFileReceived(payload)
	if err == nil && (m.ID != p.ID || string(m.FileName) != name || int64(m.ContentSize) != size || m.Cksum != sum) {
		err = fmt.Errorf("the server received %q of %v, %d bytes, cksum %d; sent was %q of %v, %d bytes, cksum %d",
			m.FileName, m.ID, m.ContentSize, m.Cksum, name, p.ID, size, sum)
	}
	return err
}

// File encrypts a file under the key that the peer has.
func (p *Peer) File(name string, content []byte) *File {
	return &File{ID: p.ID, Name: name, Content: content, Cksum: cksum.Checksum(content), Ciphertext: p.Encrypt(content), key: p.Key}
}
