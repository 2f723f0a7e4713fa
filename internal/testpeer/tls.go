package testpeer

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"sealift/codec"
	"sealift/crypto/tlskey"
)

// TLS is how a peer protects its connections: with a key of its own, and the
// server's key remembered. Any number of connections may share one, also at a time;
// its exported fields do not change meanwhile.
type TLS struct {
	// Key is in the certificate that the peer shows; nil: it shows none.
	Key ed25519.PrivateKey
	// Claim signs that Key is of the client that the peer is; nil: the certificate
	// has no claim.
	Claim func(server, client tlskey.Fingerprint) (*tlskey.Claim, error)
	// AnyServer has connections to servers of every key, and remembers none.
	AnyServer bool
	// Versions are the first and the last that is offered; zero: TLS 1.3 alone.
	Versions [2]uint16

	mu     sync.Mutex
	server tlskey.Fingerprint
	cert   *tls.Certificate // without a claim, once it is made
}

// NewTLS returns a TLS with a key of its own.
func NewTLS() *TLS {
	key, err := tlskey.Generate()
	if err != nil {
		panic(err)
	}
	return &TLS{Key: key}
}

// SharedTLS returns the one TLS of this process that talks to any server: for peers
// that a server cannot tell apart by their TLS keys.
var SharedTLS = sync.OnceValue(func() *TLS {
	t := NewTLS()
	t.AnyServer = true
	return t
})

// ErrServerKey says that the server has another key than the one remembered.
var ErrServerKey = errors.New("the server's key has changed")

// Remember has connections fail whose server has another key. Without it, that of the
// first connection is remembered.
func (t *TLS) Remember(server tlskey.Fingerprint) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.server = server
}

// Server is the key that is remembered; zero: none yet.
func (t *TLS) Server() tlskey.Fingerprint {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.server
}

// check returns an error if a server with that key is not the one remembered.
func (t *TLS) check(key tlskey.Fingerprint) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.AnyServer || t.server == key:
	case t.server.IsZero():
		t.server = key
	default:
		return fmt.Errorf("%w: it is %v, and was %v", ErrServerKey, key, t.server)
	}
	return nil
}

// Config is the configuration of one connection.
func (t *TLS) Config() *tls.Config {
	var seen tlskey.Fingerprint
	c := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{tlskey.ALPN},
		InsecureSkipVerify:          true, // the key is checked, and nothing else
		DynamicRecordSizingDisabled: true,
		VerifyPeerCertificate: func(chain [][]byte, _ [][]*x509.Certificate) error {
			leaf, err := x509.ParseCertificate(chain[0])
			if err != nil {
				return err
			}
			seen = tlskey.Of(leaf)
			return t.check(seen)
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return t.certificate(seen)
		},
	}
	if t.Versions != [2]uint16{} {
		c.MinVersion, c.MaxVersion = t.Versions[0], t.Versions[1]
	}
	return c
}

// certificate is what the peer shows to the server with that key.
func (t *TLS) certificate(server tlskey.Fingerprint) (*tls.Certificate, error) {
	if t.Key == nil {
		return new(tls.Certificate), nil
	}
	if t.Claim != nil {
		claim, err := t.Claim(server, t.Fingerprint())
		if err != nil {
			return nil, err
		}
		cert, err := tlskey.SelfSigned(t.Key, "client", claim, time.Now())
		return &cert, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cert == nil {
		cert, err := tlskey.SelfSigned(t.Key, "client", nil, time.Now())
		if err != nil {
			return nil, err
		}
		t.cert = &cert
	}
	return t.cert, nil
}

// Client protects nc, which it closes if that fails.
func (t *TLS) Client(nc net.Conn) (net.Conn, error) { return shake(nc, tls.Client(nc, t.Config())) }

// shake does the handshake of c, which is over nc.
func shake(nc net.Conn, c *tls.Conn) (net.Conn, error) {
	err := nc.SetDeadline(time.Now().Add(Patience))
	if err == nil {
		err = c.Handshake()
	}
	if err == nil {
		err = nc.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = nc.Close()
		return nil, turnedAway(err)
	}
	return c, nil
}

// turnedAway is the error of a handshake. A server that has no room for a connection
// says so before it knows that it is to be protected, with a plain 1607: [Refused]
// tells.
func turnedAway(err error) error {
	var e tls.RecordHeaderError
	if errors.As(err, &e) && e.RecordHeader[0] == codec.Version && codec.Code(binary.LittleEndian.Uint16(e.RecordHeader[1:])) == codec.CodeError {
		return fmt.Errorf("in the place of a handshake: %w", unexpected{got: codec.CodeError})
	}
	return err
}

// UseTLS has the peer go on with another connection, protected by t; nil: plain.
func (c *Conn) UseTLS(nc net.Conn, t *TLS) error {
	if t == nil {
		c.Use(nc)
		return nil
	}
	nc, err := t.Client(nc)
	if err != nil {
		return err
	}
	c.Use(nc)
	return nil
}

// Terminate is the server's side of TLS with a key of its own: it returns a function
// that does the handshake over a connection, and the key. It asks for a certificate
// and takes any.
func Terminate() (accept func(net.Conn) (net.Conn, error), key tlskey.Fingerprint) {
	private := NewTLS().Key
	cert, err := tlskey.SelfSigned(private, "server", nil, time.Now())
	if err != nil {
		panic(err)
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{tlskey.ALPN}, SessionTicketsDisabled: true,
		Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert,
	}
	return func(nc net.Conn) (net.Conn, error) { return shake(nc, tls.Server(nc, config)) }, tlskey.Of(cert.Leaf)
}

// Fingerprint names the peer's key.
func (t *TLS) Fingerprint() tlskey.Fingerprint {
	f, err := tlskey.FingerprintOf(t.Key)
	if err != nil {
		panic(err)
	}
	return f
}

// Claimed returns a function for [TLS.Claim] with which the pair's owner says that it
// is the client of id.
func (p *Pair) Claimed(id codec.ClientID) func(server, client tlskey.Fingerprint) (*tlskey.Claim, error) {
	return p.ClaimedAs(id, nil, nil)
}

// ClaimedAs is Claimed for another server's key, or another client's, where these are
// not nil.
func (p *Pair) ClaimedAs(id codec.ClientID, server, client *tlskey.Fingerprint) func(_, _ tlskey.Fingerprint) (*tlskey.Claim, error) {
	return func(s, c tlskey.Fingerprint) (*tlskey.Claim, error) {
		if server != nil {
			s = *server
		}
		if client != nil {
			c = *client
		}
		return tlskey.NewClaim(p.Private, id, s, c)
	}
}
