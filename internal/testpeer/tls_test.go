package testpeer

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"sealift/codec"
	"sealift/crypto/tlskey"
)

// A peer talks through TLS as it does without; the server sees its key and its claim;
// and a server with another key is not talked to.
func TestPeerOverTLS(t *testing.T) {
	accept, key := Terminate()
	reply := codec.IDReply{Code: codec.CodeAck, ID: codec.ClientID{7}}.Append(nil)
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer plain.Close()
	wg.Go(func() { // answers all that it is sent, once that has ended
		for {
			nc, err := plain.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(nc)
			if len(b) > 0 {
				_, _ = nc.Write(reply)
			}
			_ = nc.Close()
		}
	})
	var up bytes.Buffer
	relay := &Relay{Near: accept, Hook: func() (_, _ func([]byte) []byte) {
		return func(b []byte) []byte { up.Write(b); return b }, func(b []byte) []byte { return b }
	}}
	if err := relay.Start(plain.Addr().String()); err != nil {
		t.Fatal(err)
	}
	dial := func(p *TLS) (*Conn, error) {
		nc, err := net.Dial("tcp", relay.Addr())
		if err != nil {
			t.Fatal(err)
		}
		c := &Conn{Peer: Peer{Name: "somebody", ID: codec.ClientID{7}}}
		return c, c.UseTLS(nc, p)
	}
	own := NewTLS()
	own.Claim = SharedPair(0).Claimed(codec.ClientID{7})
	c, err := dial(own)
	if err != nil {
		t.Fatal(err)
	}
	if own.Server() != key {
		t.Errorf("%v is remembered, and not %v", own.Server(), key)
	}
	if err := c.Send(c.Reconnect()); err != nil {
		t.Fatal(err)
	}
	if err := c.Net.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := c.WantID(codec.CodeAck); err != nil {
		t.Error(err)
	}
	_ = c.Close()
	own.Remember(tlskey.Fingerprint{9})
	if _, err := dial(own); !errors.Is(err, ErrServerKey) {
		t.Errorf("a server with another key: %v", err)
	}
	relay.Close()
	if !bytes.Equal(up.Bytes(), c.Reconnect()) {
		t.Errorf("the server got %d bytes", up.Len())
	}
}

// What a peer shows of itself: its key and its claim, and nothing without a key.
func TestCertificate(t *testing.T) {
	id, server := codec.ClientID{1}, tlskey.Fingerprint{2}
	p := NewTLS()
	p.Claim = SharedPair(1).Claimed(id)
	cert, err := p.certificate(server)
	if err != nil {
		t.Fatal(err)
	}
	claim, err := tlskey.ClaimOf(cert.Leaf)
	if err != nil || claim == nil {
		t.Fatal(claim, err)
	}
	if err := claim.Verify(&SharedPair(1).Private.PublicKey, server, tlskey.Of(cert.Leaf)); err != nil {
		t.Error(err)
	}
	if err := claim.Verify(&SharedPair(0).Private.PublicKey, server, tlskey.Of(cert.Leaf)); err == nil {
		t.Error("the claim is signed by another key as well")
	}
	if cert, err := new(TLS).certificate(server); err != nil || len(cert.Certificate) > 0 {
		t.Error(cert, err)
	}
}
