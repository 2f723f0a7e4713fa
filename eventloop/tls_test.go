package eventloop

import (
	"crypto/tls"
	"net"
	"slices"
	"testing"
	"time"

	"sealift/crypto/tlskey"
	"sealift/session"
)

// protects has a server take TLS connections besides plain ones.
func protects(t testing.TB) *TLS {
	t.Helper()
	cert := certificate(t, "server")
	return &TLS{
		Config: func() (*tls.Config, func(tls.ConnectionState) (session.Channel, error)) {
			config := &tls.Config{
				Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
				ClientAuth: tls.RequestClientCert,
			}
			return config, func(cs tls.ConnectionState) (session.Channel, error) {
				ch := session.Channel{TLS: true, Server: tlskey.Of(cert.Leaf)}
				if len(cs.PeerCertificates) > 0 {
					ch.Client = tlskey.Of(cs.PeerCertificates[0])
				}
				return ch, nil
			}
		},
	}
}

func certificate(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key, err := tlskey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tlskey.SelfSigned(key, name, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// startTLS runs a server for both kinds of connections.
func startTLS(t testing.TB, change func(*Options, *session.Config)) *running {
	t.Helper()
	return start(t, func(o *Options, cfg *session.Config) {
		o.TLS = protects(t)
		if change != nil {
			change(o, cfg)
		}
	})
}

// trusting is a client's configuration for tests: it takes any server.
func trusting() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{tlskey.ALPN}}
}

// secure is a TLS connection over which the handshake is done.
func (r *running) secure(over net.Conn) *tls.Conn {
	r.t.Helper()
	c := tls.Client(over, trusting())
	if err := c.Handshake(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestFilesOverTLS(t *testing.T) {
	r := startTLS(t, nil)
	b := r.rawPeer(r.secure(r.tcp()), "protected")
	for _, tc := range []struct{ size, packet int }{{100, 100}, {20_000, 5_000}, {3 << 20, 1 << 20}, {3<<20 + 1, 50_000}} {
		content := random(tc.size)
		b.write(slices.Concat(b.packets("f", content, tc.packet)...))
		b.received("f", content)
		r.stored(b.ID, "f", content)
	}
	r.wasLent()
}
