package testservices

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Balancer is the configuration of an HAProxy that spreads connections over servers.
type Balancer struct {
	Listen  string   // host:port
	Servers []string // host:port of each
	// SendProxy is "", or "send-proxy" or "send-proxy-v2": each connection to a server
	// then begins with a PROXY header.
	SendProxy string
}

// Text is the configuration in HAProxy's language. A server is looked at each 100 ms by a
// connection that is closed at once. One that does not take two of these gets no more
// connections, and those that it has are ended, so no client waits for a server that
// sleeps.
func (b Balancer) Text() string {
	var t strings.Builder
	fmt.Fprintf(&t, `global
	maxconn 4000
defaults
	mode tcp
	timeout connect 2s
	timeout client 5m
	timeout server 5m
	timeout check 500ms
	retries 3
	option redispatch
listen sealift
	bind %s
	balance leastconn
	default-server check inter 100ms fall 2 rise 1 on-marked-down shutdown-sessions %s
`, b.Listen, b.SendProxy)
	for i, addr := range b.Servers {
		fmt.Fprintf(&t, "\tserver s%d %s\n", i, addr)
	}
	return t.String()
}

// HAProxy is one that runs.
type HAProxy struct {
	cmd    *exec.Cmd
	dir    string
	output bytes.Buffer // to be read when ended is closed
	ended  chan struct{}
}

// StartHAProxy runs HAProxy with that configuration, and returns when it takes connections
// at addr. The caller ends it with Close.
func StartHAProxy(config, addr string) (*HAProxy, error) {
	haproxy, err := program("haproxy", "/usr/sbin", "/usr/local/sbin")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "sealift-haproxy-")
	if err != nil {
		return nil, err
	}
	h := &HAProxy{dir: dir, ended: make(chan struct{})}
	if err := h.start(haproxy, config, addr); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

func (h *HAProxy) start(haproxy, config, addr string) error {
	path := filepath.Join(h.dir, "haproxy.cfg")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return err
	}
	if out, err := exec.Command(haproxy, "-c", "-q", "-f", path).CombinedOutput(); err != nil {
		return fmt.Errorf("haproxy refuses its configuration: %w\n%s\n%s", err, out, config)
	}
	h.cmd = exec.Command(haproxy, "-db", "-f", path) // -db: it stays our child
	h.cmd.Stdout, h.cmd.Stderr = &h.output, &h.output
	h.cmd.SysProcAttr = new(syscall.SysProcAttr)
	endWithUs(h.cmd, syscall.SIGKILL)
	if err := start(h.cmd); err != nil {
		return err
	}
	go func() {
		_ = h.cmd.Wait()
		close(h.ended)
	}()
	for end := time.Now().Add(patience); ; {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-h.ended:
			return fmt.Errorf("haproxy has ended: %s", h.output.String())
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(end) {
			return fmt.Errorf("haproxy does not listen: %w", err)
		}
	}
}

// Close ends it with all its connections, and removes what it has.
func (h *HAProxy) Close() error {
	if h.cmd != nil && h.cmd.Process != nil {
		_ = h.cmd.Process.Kill() // it may have ended
		<-h.ended
	}
	return os.RemoveAll(h.dir)
}

// NewHAProxy returns an HAProxy that ends with the test.
func NewHAProxy(t TB, config, addr string) *HAProxy {
	t.Helper()
	h, err := StartHAProxy(config, addr)
	Need(t, err)
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Logf("%v", err)
		}
	})
	return h
}

// FreeAddress returns an address of loopback at which a server can be started again and
// again: its port is none that the system gives to connections that go out.
func FreeAddress() (string, error) {
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", 12_000+rand.IntN(18_000))
		if l, err := net.Listen("tcp", addr); err == nil {
			return addr, l.Close()
		}
	}
	return "", errors.New("there is no free port")
}
