package eventloop

import (
	"crypto/tls"
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

// trusting is a client's configuration for tests: it takes any server.
func trusting() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{tlskey.ALPN}}
}
