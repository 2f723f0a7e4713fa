package fakeserver

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"sealift/crypto/tlskey"
)

// OverTLS is New behind TLS 1.3, with a key of its own, whose fingerprint it returns. It
// asks for a client certificate. change, which may be nil, changes its configuration.
func OverTLS(t testing.TB, change func(*tls.Config)) (*Server, tlskey.Fingerprint) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return OverTLSOn(t, ln, change)
}

// OverTLSOn is OverTLS on a listener of the caller's. The server closes it.
func OverTLSOn(t testing.TB, ln net.Listener, change func(*tls.Config)) (*Server, tlskey.Fingerprint) {
	t.Helper()
	config, key := tlsConfig(t)
	if change != nil {
		change(config)
	}
	return On(t, tls.NewListener(ln, config)), key
}

// Terminate takes TLS connections, as OverTLS does, and passes on what is inside to the
// plain server at addr. It returns its own address and the fingerprint of its key.
func Terminate(t testing.TB, addr string) (string, tlskey.Fingerprint) {
	t.Helper()
	config, key := tlsConfig(t)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, over := context.WithCancel(context.Background())
	t.Cleanup(func() { over(); ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			outer, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer outer.Close()
				inner, err := net.Dial("tcp", addr)
				if err != nil {
					return
				}
				defer inner.Close()
				defer context.AfterFunc(ctx, func() { outer.Close(); inner.Close() })()
				wg.Go(func() {
					_, _ = io.Copy(inner, outer)
					inner.Close()
				})
				_, _ = io.Copy(outer, inner)
			})
		}
	})
	return ln.Addr().String(), key
}

// tlsConfig makes a configuration with a new key.
func tlsConfig(t testing.TB) (*tls.Config, tlskey.Fingerprint) {
	t.Helper()
	key, err := tlskey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tlskey.SelfSigned(key, "server", nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		Certificates:           []tls.Certificate{cert},
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{tlskey.ALPN},
		ClientAuth:             tls.RequestClientCert,
		SessionTicketsDisabled: true,
	}, tlskey.Of(cert.Leaf)
}
