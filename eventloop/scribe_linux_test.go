package eventloop

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"net"
	"strings"
	"testing"
)

// scribe is the client's side of a TLS connection that writes its records by hand, so
// that a test can send what crypto/tls never does. It reads by way of crypto/tls, which
// did the handshake.
type scribe struct {
	*tls.Conn
	t      testing.TB
	secret []byte // client_application_traffic_secret_N (RFC 8446, 7.2)
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
	below  *below
}

// below is the connection below. It knows what it read last.
type below struct {
	net.Conn
	tail []byte
}

func (c *below) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.tail = append(c.tail, p[:n]...)
	c.tail = c.tail[max(0, len(c.tail)-24):]
	return n, err
}

// alert reports whether the last that was read is a record as short as an alert.
func (c *below) alert() bool { return bytes.HasPrefix(c.tail, []byte{contentRecord, 3, 3, 0, 19}) }

// Types of records, and of handshake messages (RFC 8446, B.1 and B.3).
const (
	alertRecord     = 21
	handshakeRecord = 22
	contentRecord   = 23
)

var (
	closeNotify   = []byte{1, 0}
	internalError = []byte{2, 80}
	keyUpdate     = []byte{24, 0, 0, 1, 0}
	bothKeyUpdate = []byte{24, 0, 0, 1, 1}
)

// scribe does the handshake on nc.
func (r *running) scribe(nc net.Conn) *scribe {
	r.t.Helper()
	var keys bytes.Buffer
	cfg := trusting()
	cfg.KeyLogWriter = &keys
	below := &below{Conn: nc}
	s := &scribe{Conn: tls.Client(below, cfg), t: r.t, below: below}
	if err := s.Handshake(); err != nil {
		r.t.Fatal(err)
	}
	if id := s.ConnectionState().CipherSuite; id != tls.TLS_AES_128_GCM_SHA256 {
		r.t.Skipf("the scribe does not know %s", tls.CipherSuiteName(id))
	}
	for line := range strings.Lines(keys.String()) {
		if f := strings.Fields(line); f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			s.secret, _ = hex.DecodeString(f[2])
		}
	}
	s.rekey()
	return s
}

// expand is HKDF-Expand-Label with an empty context (RFC 8446, 7.1).
func (s *scribe) expand(label string, size int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(size))
	label = "tls13 " + label
	info = append(append(append(info, byte(len(label))), label...), 0)
	out, err := hkdf.Expand(sha256.New, s.secret, string(info), size)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *scribe) rekey() {
	block, err := aes.NewCipher(s.expand("key", 16))
	if err == nil {
		s.aead, err = cipher.NewGCM(block)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.iv, s.seq = s.expand("iv", 12), 0
}

// record makes a record of p with so many bytes of padding.
func (s *scribe) record(kind byte, p []byte, padding int) []byte {
	n := len(p) + 1 + padding
	inner := make([]byte, n)
	inner[copy(inner, p)] = kind
	nonce := bytes.Clone(s.iv)
	for i := range 8 {
		nonce[4+i] ^= byte(s.seq >> (56 - 8*i))
	}
	s.seq++
	n += s.aead.Overhead()
	head := []byte{contentRecord, 3, 3, byte(n >> 8), byte(n)}
	return s.aead.Seal(bytes.Clone(head), nonce, inner, head)
}

// renew makes a KeyUpdate; the next record has the next key.
func (s *scribe) renew(message []byte) []byte {
	p := s.record(handshakeRecord, message, 0)
	s.secret = s.expand("traffic upd", sha256.Size)
	s.rekey()
	return p
}

// content makes records of p, each of at most size bytes.
func (s *scribe) content(p []byte, size int) (all []byte) {
	for len(p) > 0 {
		n := min(len(p), size)
		all = append(all, s.record(contentRecord, p[:n], 0)...)
		p = p[n:]
	}
	return all
}

// Write writes p in large records.
func (s *scribe) Write(p []byte) (int, error) {
	if _, err := s.below.Write(s.content(p, maxPlaintext)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// raw writes bytes as they are.
func (s *scribe) raw(p []byte) {
	s.t.Helper()
	if _, err := s.below.Write(p); err != nil {
		s.t.Fatal(err)
	}
}
