//go:build linux

package main

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"sealift/codec"
	"sealift/crypto/aescbc"
	"sealift/crypto/cksum"
	"sealift/crypto/keys"
)

// peer is a client that does what it is told, right or wrong, over one
// connection.
type peer struct {
	r    *run
	conn net.Conn
	id   codec.ClientID
	name string
	key  *keyPair
	aes  [keys.AESKeySize]byte
}

// keyPair is a client's. Making one takes 11 ms, so clients share them: the
// server does not mind.
type keyPair struct {
	private *rsa.PrivateKey
	public  [keys.PublicKeySize]byte
}

var keyPairs = sync.OnceValue(func() (pairs [4]*keyPair) {
	for i := range pairs {
		private, err := keys.Generate()
		if err != nil {
			panic(err)
		}
		public, err := keys.MarshalPublic(&private.PublicKey)
		if err != nil {
			panic(err)
		}
		pairs[i] = &keyPair{private, public}
	}
	return pairs
})

func anyKey(i int) *keyPair { return keyPairs()[i%4] }

// refusal is a 1601, 1606 or 1607.
type refusal struct{ code codec.Code }

func (e refusal) Error() string { return "the server answers " + e.code.String() }

// refused reports whether err is a refusal with that code.
func refused(err error, code codec.Code) bool {
	var e refusal
	return errors.As(err, &e) && e.code == code
}

// dial connects to the server. from is the client's address on loopback, ""
// for any.
func (s *server) dial(from string) (*peer, error) {
	d := net.Dialer{Timeout: patience}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.Dial("tcp", s.addr)
	if err != nil {
		return nil, err
	}
	return &peer{r: s.r, conn: c}, nil
}

// mustDial is dial for a scenario that cannot go on without; the connection is
// closed at its end.
func (s *server) mustDial() *peer {
	s.r.Helper()
	p, err := s.dial("")
	if err != nil {
		s.r.Fatalf("%v: %s", err, s.tail())
	}
	s.r.Cleanup(p.close)
	return p
}

// join is a client that has registered under name and has an AES key.
func (s *server) join(name string, k *keyPair) *peer {
	s.r.Helper()
	p := s.mustDial()
	if err := p.enter(name, k); err != nil {
		s.r.Fatalf("%q: %v: %s", name, err, s.tail())
	}
	return p
}

func (p *peer) close() { _ = p.conn.Close() }

// write sends b, within its time.
func (p *peer) write(b []byte) error {
	_ = p.conn.SetWriteDeadline(time.Now().Add(patience))
	_, err := p.conn.Write(b)
	return err
}

// read returns the next reply: its code, and its payload.
func (p *peer) read() (codec.Code, []byte, error) {
	return p.readWithin(patience)
}

func (p *peer) readWithin(d time.Duration) (codec.Code, []byte, error) {
	_ = p.conn.SetReadDeadline(time.Now().Add(d))
	b := make([]byte, codec.ResponseHeaderSize, codec.ResponseHeaderSize+codec.NameSize+64)
	if _, err := io.ReadFull(p.conn, b); err != nil {
		return 0, nil, err
	}
	var dec codec.ResponseDecoder
	if r, _, ok, err := dec.Next(b); err != nil || ok {
		return r.Header.Code, nil, err
	}
	code := codec.Code(uint16(b[1]) | uint16(b[2])<<8)
	size, _ := codec.ResponsePayloadSize(code)
	payload := make([]byte, size)
	_, err := io.ReadFull(p.conn, payload)
	return code, payload, err
}

// want reads a reply that must have that code.
func (p *peer) want(code codec.Code) ([]byte, error) {
	got, payload, err := p.read()
	switch {
	case err != nil:
		return nil, fmt.Errorf("waiting for %v: %w", code, err)
	case got == code:
		return payload, nil
	case got == codec.CodeError || got == codec.CodeRegisterFailed || got == codec.CodeReconnectRejected:
		return nil, refusal{got}
	}
	return nil, fmt.Errorf("%v came where %v was due", got, code)
}

func (p *peer) ask(msg []byte, code codec.Code) ([]byte, error) {
	if err := p.write(msg); err != nil {
		return nil, err
	}
	return p.want(code)
}

func (p *peer) register(name string) error {
	payload, err := p.ask(codec.Register{Name: []byte(name)}.Append(nil), codec.CodeRegistered)
	if err == nil {
		p.id, p.name = codec.ClientID(payload), name
	}
	return err
}

func (p *peer) exchange(k *keyPair) error {
	msg := codec.PublicKey{Name: []byte(p.name), Key: k.public[:]}.Append(nil, p.id)
	payload, err := p.ask(msg, codec.CodeAESKey)
	if err != nil {
		return err
	}
	p.key = k
	return p.takeKey(codec.CodeAESKey, payload)
}

// enter registers and exchanges keys.
func (p *peer) enter(name string, k *keyPair) error {
	if err := p.register(name); err != nil {
		return err
	}
	return p.exchange(k)
}

// rejoin comes back as the client that p was on another connection.
func (p *peer) rejoin() error {
	payload, err := p.ask(codec.Reconnect{Name: []byte(p.name)}.Append(nil, p.id), codec.CodeReconnected)
	if err != nil {
		return err
	}
	return p.takeKey(codec.CodeReconnected, payload)
}

func (p *peer) takeKey(code codec.Code, payload []byte) error {
	m, err := codec.ParseKeyReply(code, payload)
	if err != nil {
		return err
	}
	if m.ID != p.id {
		return fmt.Errorf("%v for %v, not %v", code, m.ID, p.id)
	}
	p.aes, err = keys.Unwrap(p.key.private, m.WrappedKey)
	return err
}

// encrypt returns the ciphertext of content.
func (p *peer) encrypt(content []byte) []byte {
	e := aescbc.NewEncrypter(&p.aes)
	out := make([]byte, aescbc.CiphertextSize(int64(len(content))))
	bulk := len(content) &^ (aescbc.BlockSize - 1)
	e.CryptBlocks(out[:bulk], content[:bulk])
	e.Final(out[bulk:], content[bulk:])
	return out
}

// packet is number n, from 1, of a ciphertext cut into packets of that size.
func (p *peer) packet(name string, ciphertext []byte, orig, size, n int) []byte {
	total := (len(ciphertext) + size - 1) / size
	body := ciphertext[(n-1)*size : min(n*size, len(ciphertext))]
	m := codec.SendFile{
		ContentSize: uint32(len(ciphertext)), OrigSize: uint32(orig),
		Packet: uint16(n), Total: uint16(total), FileName: []byte(name),
	}
	return append(m.Append(nil, p.id, uint32(len(body))), body...)
}

// send sends all packets of a file and waits for the checksum, which must be
// right.
func (p *peer) send(name string, content []byte, size int) error {
	ciphertext := p.encrypt(content)
	for n := 1; (n-1)*size < len(ciphertext); n++ {
		if err := p.write(p.packet(name, ciphertext, len(content), size, n)); err != nil {
			return err
		}
	}
	return p.received(name, cksum.Checksum(content))
}

// received waits for the 1603 of a file.
func (p *peer) received(name string, sum uint32) error {
	payload, err := p.want(codec.CodeFileReceived)
	if err != nil {
		return err
	}
	m, err := codec.ParseFileReceived(payload)
	switch {
	case err != nil:
		return err
	case m.ID != p.id || string(m.FileName) != name:
		return fmt.Errorf("a 1603 for %q of %v, not %q of %v", m.FileName, m.ID, name, p.id)
	case m.Cksum != sum:
		return fmt.Errorf("the checksum of %q is %d, not %d", name, m.Cksum, sum)
	}
	return nil
}

// confirm sends 1029 and waits for the 1604.
func (p *peer) confirm(name string) error {
	payload, err := p.ask(codec.Verdict{Code: codec.CodeCRCOK, FileName: []byte(name)}.Append(nil, p.id), codec.CodeAck)
	if err == nil && codec.ClientID(payload) != p.id {
		return fmt.Errorf("a 1604 for %v, not %v", codec.ClientID(payload), p.id)
	}
	return err
}

// upload sends a file and confirms it.
func (p *peer) upload(name string, content []byte, size int) error {
	if err := p.send(name, content, size); err != nil {
		return err
	}
	return p.confirm(name)
}

func (p *peer) mustUpload(name string, content []byte, size int) stored {
	p.r.Helper()
	if err := p.upload(name, content, size); err != nil {
		p.r.Fatalf("uploading %q: %v", name, err)
	}
	return p.stored(name, content)
}

// stored is what the server must have after an upload.
func (p *peer) stored(name string, content []byte) stored {
	return stored{fileName{p.id, name}, int64(len(content)), cksum.Checksum(content)}
}

// pattern is n bytes that look random and depend on seed.
func pattern(seed uint64, n int) []byte {
	b := make([]byte, n)
	x := seed*0x9e3779b97f4a7c15 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}
