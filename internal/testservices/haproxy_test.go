package testservices

import (
	"io"
	"net"
	"os"
	"testing"
)

// A balancer spreads connections, and leaves out a server that does not listen.
func TestHAProxy(t *testing.T) {
	var addrs []string
	for _, name := range []string{"a", "b"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, l.Addr().String())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, name) // a health check may have closed it
				_ = c.Close()
			}
		}()
		defer func() {
			_ = l.Close()
			<-done
		}()
	}
	nobody, err := FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	addr, err := FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	h := NewHAProxy(t, Balancer{Listen: addr, Servers: append(addrs, nobody)}.Text(), addr)
	got := make(map[string]int)
	for range 20 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		name, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		got[string(name)]++
		_ = c.Close()
	}
	if got["a"] == 0 || got["b"] == 0 || got["a"]+got["b"] != 20 {
		t.Errorf("20 connections went to %v", got)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(h.dir); !os.IsNotExist(err) {
		t.Errorf("after Close its directory is there: %v", err)
	}
}
