package server

import (
	"fmt"
	"testing"
)

// Addresses and networks are taken in each usual form, and count only with
// ProxyProtocol.
func TestTrustedProxies(t *testing.T) {
	n := Network{ProxyProtocol: true, TrustedProxies: []string{"192.0.2.1", "10.1.2.3/16", "2001:db8::1", "2001:db8::/32", "::ffff:192.0.2.2"}}
	if err := n.checkProxies(); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(n.proxies()), "[192.0.2.1/32 10.1.0.0/16 2001:db8::1/128 2001:db8::/32 192.0.2.2/32]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	n.ProxyProtocol = false
	if err := n.checkProxies(); err != nil || n.proxies() != nil {
		t.Errorf("without the PROXY protocol: %v, %v", n.proxies(), err)
	}
}
