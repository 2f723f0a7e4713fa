//go:build linux

package soak

import (
	"fmt"
	"net"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/internal/testpeer"
)

// peer is a client that does what it is told, right or wrong, over one
// connection.
type peer struct {
	testpeer.Conn
	r *run
}

// source is an address on loopback for client i, as if it sat on a machine
// with few others.
func source(i int) string { return fmt.Sprintf("127.0.%d.%d", 1+i/250%4, 1+i%250) }

// dial connects to the server. from is the client's address on loopback, ""
// for any. Where the server turns the connection away, that may be the error, see
// hasRefused.
func (s *server) dial(from string) (*peer, error) {
	d := net.Dialer{Timeout: patience}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.Dial("tcp", s.addr)
	if err != nil {
		return nil, err
	}
	p := &peer{r: s.r}
	if err := p.UseTLS(c, testpeer.Switched()); err != nil {
		return nil, err
	}
	return p, nil
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

// join is a client that has registered under name, and exchanged keys with the
// shared pair of that number.
func (s *server) join(name string, pair int) *peer {
	s.r.Helper()
	p := s.mustDial()
	if err := p.enter(name, pair); err != nil {
		s.r.Fatalf("%q: %v: %s", name, err, s.tail())
	}
	return p
}

func (p *peer) close() { _ = p.Close() }

func (p *peer) register(name string) error {
	p.Name = name
	return p.SignUp()
}

// enter registers and exchanges keys.
func (p *peer) enter(name string, pair int) error {
	p.Name, p.Pair = name, testpeer.SharedPair(pair)
	return p.Enter()
}

// packet is number n, from 1, of the packets of that size of a file, whole.
func (p *peer) packet(name string, content []byte, size, n int) []byte {
	return packet(p.File(name, content), size, n)
}

func packet(f *testpeer.File, size, n int) []byte { return f.Packet(testpeer.Spec, size, n-1).Bytes() }

// forged is the first packet of a file that claims to have so many bytes, and
// carries any ciphertext.
func (p *peer) forged(name string, orig int, ciphertext []byte, size int) []byte {
	f := p.File(name, make([]byte, orig))
	f.Ciphertext = ciphertext
	return packet(f, size, 1)
}

// finish reads the 1603 of a file that was sent, and confirms it.
func (p *peer) finish(f *testpeer.File) error {
	if err := p.Received(f); err != nil {
		return err
	}
	return p.Confirm(f.Name)
}

// upload sends a file and confirms it.
func (p *peer) upload(name string, content []byte, size int) error {
	return p.Upload(p.File(name, content), size)
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
	return stored{fileName{p.ID, name}, int64(len(content)), cksum.Checksum(content)}
}

// hasRefused reports whether err says that the server answered with 1607.
func hasRefused(err error) bool { return testpeer.Refused(err, codec.CodeError) }

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
