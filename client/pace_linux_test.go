package client

import (
	"crypto/tls"
	"net"
	"testing"
)

// What the peer's TCP has acknowledged can be told of a TLS connection too.
func TestUnacknowledgedOverTLS(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, ok := unacknowledged(&protected{tls.Client(nc, &tls.Config{})}); !ok {
		t.Error("it cannot be told")
	}
}
