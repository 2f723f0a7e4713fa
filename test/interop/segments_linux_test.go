package interop

import (
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// countSegments forwards one connection to the server at addr, and gives the number of TCP segments in which the
// client's bytes have come: with TCP_NODELAY one for each write, or fewer when writes are faster than the network.
func countSegments(t *testing.T, addr string) (proxyAddr string, segments <-chan int) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	done := make(chan int, 1)
	go func() {
		count := -1
		defer func() { done <- count }()
		client, err := listener.Accept()
		if err != nil {
			return
		}
		defer client.Close()
		server, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		defer server.Close()
		go func() { _, _ = io.Copy(client, server) }()
		_, _ = io.Copy(server, client)
		raw, err := client.(*net.TCPConn).SyscallConn()
		if err != nil {
			return
		}
		_ = raw.Control(func(fd uintptr) {
			info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
			if err == nil {
				count = int(info.Data_segs_in)
			}
		})
	}()
	return listener.Addr().String(), done
}

// TestWrites shows that the clients write as their options say, which no server can tell for certain.
func TestWrites(t *testing.T) {
	programs := peers(t)
	if programs == nil {
		return
	}
	const messages = 3 + 11 // 1025, 1026, eleven 1028, 1029
	cases := []struct {
		habits      []string
		least, most int // segments
	}{
		{nil, 5, messages},
		{[]string{"--one-write"}, 4, 4},
		{[]string{"--split-writes", "header"}, messages + 1, 2 * messages},
		{[]string{"--split-writes", "bytes"}, 2*messages + 1, 1 << 20},
	}
	dialect := Dialect{"spec", 100}
	for _, maker := range Peers {
		for _, c := range cases {
			s := newScene(t, programs, Server{Maker: Python, Dialect: dialect}, 999)
			proxy, segments := countSegments(t, s.server.Addr)
			client := Client{Maker: maker, Dialect: dialect, Habits: c.habits}
			s.want(s.sendTo(proxy, client), 0, "1025 1600 1026 1602 1028x11 1603 1029 1604")
			if n := <-segments; n < c.least || n > c.most {
				t.Errorf("%s: %d segments, want %d to %d", client, n, c.least, c.most)
			}
		}
	}
}
