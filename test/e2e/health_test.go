//go:build unix

package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// health asks whether the server whose address is in dir's addr answers.
func health(t *testing.T, dir string, more ...string) result {
	t.Helper()
	return run(t, dir, sealiftd, append([]string{"health", "--addr-file", "addr"}, more...)...)
}

// A server answers as long as it runs, in every mode of TLS, and whatever is asked of it
// by health leaves nothing in its log.
func TestHealth(t *testing.T) {
	for _, mode := range []string{"allow", "require", "off"} {
		d := serve(t, "--tls", mode)
		before := strings.Count(d.log.String(), `"level":"warn"`)
		if r := health(t, d.dir).succeeded(t); r.stdout != fmt.Sprintf("The server at %s answers.\n", d.addr) {
			t.Errorf("--tls %s: %s", mode, r.stdout)
		}
		d.stop()
		if strings.Contains(d.log.String(), "connection closed") {
			t.Errorf("--tls %s: a line in the log:\n%s", mode, d.log)
		}
		if after := strings.Count(d.log.String(), `"level":"warn"`); after != before {
			t.Errorf("--tls %s: a warning in the log:\n%s", mode, d.log)
		}
		health(t, d.dir).failed(t, "the server at "+d.addr+" does not answer: ")
	}
}

// A server that has no room for one more connection is alive.
func TestHealthOfFullServer(t *testing.T) {
	d := serve(t, "--max-connections", "1")
	c, err := net.Dial("tcp", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if r := health(t, d.dir).succeeded(t); !strings.Contains(r.stdout, "answers that it is full") {
		t.Error(r.stdout)
	}
}

// Whoever accepts and says nothing, or something else, is no server that is well.
func TestHealthOfOthers(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	run(t, dir, sealiftd, "health", "--addr", l.Addr().String(), "--timeout", "100ms").failed(t, "i/o timeout")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("220 mail\r\n"))
			_ = c.Close()
		}
	}()
	run(t, dir, sealiftd, "health", "--addr", l.Addr().String()).failed(t, "what it says is not the protocol's")
	run(t, dir, sealiftd, "health", "--addr-file", "absent").failed(t, "absent: no such file or directory")
}
