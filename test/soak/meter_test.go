//go:build linux

package soak

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// meter is a proxy that counts what a server gets, whatever connections it comes on, and
// can disturb it at a byte. It stays while servers come and go behind it.
type meter struct {
	listener net.Listener
	target   atomic.Pointer[string]
	up       atomic.Int64 // bytes that servers got

	mu    sync.Mutex
	plan  *disturb
	conns []*net.TCPConn
	wg    sync.WaitGroup
}

// maxLate is how much of what was swallowed may come late, in bytes.
const maxLate = 256 << 10

// disturb is what happens when so many bytes more have gone to the server.
type disturb struct {
	after   int64
	swallow bool // what comes then is kept from the server, whose connection stays open
	reset   bool // the connections are reset
	kill    bool // the server is killed
	server  *server
	reached chan struct{} // closed when it has happened

	late     []byte       // what was swallowed, the first of it
	stranded *net.TCPConn // the connection that stays open
}

func (r *run) meter(addr string) *meter {
	r.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.Fatalf("%v", err)
	}
	m := &meter{listener: l}
	m.target.Store(&addr)
	m.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			m.wg.Go(func() { m.serve(c.(*net.TCPConn)) })
		}
	})
	r.Cleanup(m.close)
	return m
}

func (m *meter) addr() string { return m.listener.Addr().String() }

func (m *meter) close() {
	_ = m.listener.Close()
	m.mu.Lock()
	for _, c := range m.conns {
		_ = c.Close()
	}
	m.mu.Unlock()
	m.wg.Wait()
}

// next has the meter disturb what comes from now on, unless d is nil.
func (m *meter) next(d *disturb) {
	if d != nil {
		d.reached = make(chan struct{})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.plan = d
}

func (m *meter) serve(client *net.TCPConn) {
	s, err := net.Dial("tcp", *m.target.Load())
	if err != nil {
		_ = client.Close() // there is no server now
		return
	}
	server := s.(*net.TCPConn)
	m.mu.Lock()
	m.conns = append(m.conns, client, server)
	m.mu.Unlock()
	m.wg.Go(func() {
		_, _ = io.Copy(client, server)
		_ = client.CloseWrite()
	})
	buf := make([]byte, 16<<10)
	for {
		n, err := client.Read(buf)
		if n > 0 && !m.pass(client, server, buf[:n]) {
			return
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				_ = server.CloseWrite()
			} else {
				_ = server.Close() // a client that was killed
			}
			return
		}
	}
}

// pass gives p to the server, and returns false if the connection has come to its end.
func (m *meter) pass(client, server *net.TCPConn, p []byte) bool {
	m.mu.Lock()
	d := m.plan
	hit := d != nil && d.after < int64(len(p))
	if hit {
		m.plan = nil
	} else if d != nil {
		d.after -= int64(len(p))
	}
	m.mu.Unlock()
	if hit {
		now := p[:d.after]
		p = p[d.after:]
		_, _ = server.Write(now)
		m.up.Add(int64(len(now)))
		switch {
		case d.swallow:
			d.late, d.stranded = append(d.late, p...), server
			close(d.reached)
			for buf := make([]byte, 16<<10); ; { // until the client is gone
				n, err := client.Read(buf)
				if len(d.late) < maxLate {
					d.late = append(d.late, buf[:n]...)
				}
				if err != nil {
					return false
				}
			}
		case d.reset, d.kill:
			m.strike(client, server, d)
			close(d.reached)
			return false
		}
		close(d.reached) // whoever waits for that kills the client
	}
	_, err := server.Write(p)
	if err == nil {
		m.up.Add(int64(len(p)))
	}
	return err == nil
}

// strike ends the connection from one moment to the next: a server that is stopped reads
// nothing meanwhile. What has not come to it by then does not count, nor what a server that
// is killed has not read; after a reset it may still read that.
func (m *meter) strike(client, server *net.TCPConn, d *disturb) {
	d.server.signal(syscall.SIGSTOP)
	// What is under way between the two ends is in both queues until it is acknowledged.
	out, in := queues(server)
	for settled := false; !settled; {
		time.Sleep(50 * time.Millisecond)
		o, i := queues(server)
		settled = o == out && i == in
		out, in = o, i
	}
	m.up.Add(-out)
	if d.kill {
		m.up.Add(-in)
		d.server.kill()
	} else {
		_, _ = client.SetLinger(0), server.SetLinger(0)
		_, _ = client.Close(), server.Close()
		d.server.signal(syscall.SIGCONT)
	}
}

// queues is how many bytes that were written to c have not come to its other end, on this
// machine, and how many have come that were not read there.
func queues(c *net.TCPConn) (out, in int64) {
	text, _ := os.ReadFile("/proc/net/tcp")
	ours, theirs := procAddr(c.LocalAddr()), procAddr(c.RemoteAddr())
	for l := range strings.Lines(string(text)) {
		f := strings.Fields(l)
		if len(f) < 5 {
			continue
		}
		sent, received, _ := strings.Cut(f[4], ":") // tx_queue:rx_queue
		switch {
		case f[1] == ours && f[2] == theirs:
			out, _ = strconv.ParseInt(sent, 16, 64)
		case f[1] == theirs && f[2] == ours:
			in, _ = strconv.ParseInt(received, 16, 64)
		}
	}
	return out, in
}

// procAddr is an address as /proc/net/tcp has it.
func procAddr(a net.Addr) string {
	at := a.(*net.TCPAddr)
	ip := at.IP.To4()
	return fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], at.Port)
}

// release gives the server, on the connection that it has kept open all the time, what was
// swallowed, as a network would that comes back.
func (m *meter) release(d *disturb) {
	_ = d.stranded.SetWriteDeadline(time.Now().Add(patience))
	n, _ := d.stranded.Write(d.late)
	m.up.Add(int64(n))
	_ = d.stranded.CloseWrite()
}
