package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"sealift/codec"
	"sealift/crypto/tlskey"
)

// dial makes a protected connection. who is the client as far as it is
// known; its certificate claims that id. An error about the server's key or certificate
// is an ErrServerKey or ErrTLS; others are those of a connection that was not made.
func (g *guard) dial(ctx context.Context, dial dialFunc, who Identity) (net.Conn, error) {
	nc, seen, err := g.handshake(ctx, dial, &who)
	if err == nil && g.byKey() {
		if err = g.keep(ctx, seen); err != nil {
			nc.Close()
		}
	}
	return nc, err
}

// look returns the key that the server has. The client shows nothing of itself.
func (g *guard) look(ctx context.Context, dial dialFunc) (Fingerprint, error) {
	nc, seen, err := g.handshake(ctx, dial, nil)
	if err == nil {
		nc.Close()
	}
	return seen, err
}

// handshake makes a connection and protects it. It returns the key that the server has
// shown, and proven to have. Without who the client shows no certificate, and takes
// whatever key the server has.
func (g *guard) handshake(ctx context.Context, dial dialFunc, who *Identity) (net.Conn, Fingerprint, error) {
	nc, err := dial(ctx, "tcp", g.address)
	if err != nil {
		return nil, Fingerprint{}, err
	}
	tc := tls.Client(nc, g.config(who))
	_, err = within(ctx, func() (struct{}, error) { return struct{}{}, tc.HandshakeContext(ctx) }, nil)
	if err != nil {
		nc.Close()
		return nil, Fingerprint{}, g.judge(err)
	}
	return &protected{tc}, tlskey.Of(tc.ConnectionState().PeerCertificates[0]), nil
}

// config returns the configuration of one handshake.
func (g *guard) config(who *Identity) *tls.Config {
	c := g.tls.Config.Clone()
	if c == nil {
		c = &tls.Config{RootCAs: g.tls.Roots, NextProtos: []string{tlskey.ALPNContinue, tlskey.ALPN}}
		c.InsecureSkipVerify = g.tls.Roots == nil // the key is verified
	}
	if c.ServerName == "" {
		c.ServerName = g.host
	}
	c.MinVersion, c.MaxVersion = tls.VersionTLS13, 0
	c.ClientSessionCache = nil
	c.DynamicRecordSizingDisabled = true // packets are large, and the server decrypts by the record
	// The server's certificate is verified, and its key proven, before ours is asked for
	// (crypto/tls, clientHandshakeStateTLS13.handshake).
	var seen Fingerprint
	verify := c.VerifyConnection
	c.VerifyConnection = func(st tls.ConnectionState) error {
		seen = tlskey.Of(st.PeerCertificates[0])
		switch {
		case verify != nil:
			return verify(st)
		case who != nil && g.byKey():
			return g.check(seen)
		}
		return nil
	}
	if given := g.tls.Certificate; who != nil && given != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return given, nil }
	}
	if who != nil && g.own != nil && len(c.Certificates) == 0 && c.GetClientCertificate == nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return g.certificate(seen, *who)
		}
	}
	return c
}

// certificate makes the client's certificate for a server with that key. If who is
// registered, it says so.
func (g *guard) certificate(server Fingerprint, who Identity) (*tls.Certificate, error) {
	var claim *tlskey.Claim
	if who.Key != nil && !who.ID.IsZero() {
		own, err := tlskey.FingerprintOf(g.own)
		if err != nil {
			return nil, err
		}
		if claim, err = tlskey.NewClaim(who.Key, who.ID, server, own); err != nil {
			return nil, err
		}
	}
	cert, err := tlskey.SelfSigned(g.own, "sealift", claim, time.Now())
	return &cert, err
}

// shows reports whether the client shows a certificate that claims an id.
func (g *guard) shows() bool { return g != nil && g.own != nil }

// judge returns what an error of a handshake means.
func (g *guard) judge(err error) error {
	var (
		key   *KeyError
		cert  *tls.CertificateVerificationError
		plain tls.RecordHeaderError
		op    *net.OpError
		limit net.Error
	)
	switch {
	case errors.As(err, &key):
		return err
	case errors.As(err, &cert):
		return fmt.Errorf("%w to %s: its certificate is not good: %w", ErrTLS, g.address, cert.Err)
	case errors.As(err, &plain) && isPlainError(plain.RecordHeader):
		return errors.New("the server answers TLS with a plain 1607: it is full, or does not speak TLS")
	case errors.As(err, &plain):
		return fmt.Errorf("%w to %s: the server does not speak TLS", ErrTLS, g.address)
	case errors.As(err, &op) && op.Op == "remote error":
		return g.refused(op.Err)
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &limit) && limit.Timeout():
		return errNoHandshake
	case isEnd(err):
		return errEndsHandshake
	}
	var errno syscall.Errno
	if errors.As(err, &errno) || errors.Is(err, net.ErrClosed) {
		return err
	}
	return fmt.Errorf("%w to %s: %w", ErrTLS, g.address, err)
}

// Who does not answer, or closes the connection, may be no server of TLS, or be full, or
// restart. So it is asked again.
var (
	errNoHandshake   = errors.New("no answer to the TLS handshake; does the server speak TLS?")
	errEndsHandshake = errors.New("the server ends the connection in the TLS handshake; does it speak TLS?")
)

// isEnd reports whether err is the end of the connection by the peer.
func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// isPlainError reports whether a plain 1607 begins so.
func isPlainError(header [5]byte) bool {
	h, err := codec.ParseResponseHeader(append(header[:], 0, 0))
	return err == nil && h.Version == codec.Version && h.Code == codec.CodeError
}

// passing are the alerts (RFC 8446, 6) after which the same again may succeed, as
// crypto/tls names them. Its type for them is not exported.
var passing = []string{"close notify", "internal error", "bad record MAC", "user canceled"}

// refused returns what an alert of the server means.
func (g *guard) refused(alert error) error {
	text := strings.TrimPrefix(alert.Error(), "tls: ")
	for _, p := range passing {
		if text == p {
			return fmt.Errorf("the server ends TLS with %q", text)
		}
	}
	if text == "protocol version not supported" {
		return fmt.Errorf("%w to %s: the server does not speak TLS 1.3", ErrTLS, g.address)
	}
	return fmt.Errorf("%w to %s: the server refuses it with %q", ErrTLS, g.address, text)
}

// closeGrace is how long the close of a connection may take that tells the server.
const closeGrace = 250 * time.Millisecond

// protected is a TLS connection whose handshake is over.
type protected struct{ *tls.Conn }

// Close tells the server that the connection ends, unless that takes too long, and
// closes it.
func (p *protected) Close() error {
	defer time.AfterFunc(closeGrace, func() { p.NetConn().Close() }).Stop()
	return p.Conn.Close()
}

// Read makes an ErrTLS of an alert that comes after the handshake: that our certificate
// is not taken.
func (p *protected) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" {
		text := strings.TrimPrefix(op.Err.Error(), "tls: ")
		for _, about := range []string{"certificate", "unknown certificate authority", "access denied"} {
			if strings.Contains(text, about) {
				err = fmt.Errorf("%w: the server refuses our certificate with %q", ErrTLS, text)
			}
		}
	}
	return n, err
}
