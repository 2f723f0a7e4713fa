//go:build linux

package soak

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// meter is a proxy that counts what a server gets, whatever connections it comes on, and
// can disturb it at a byte. It stays while servers come and go behind it.
type meter struct {
	listener net.Listener
	target   atomic.Pointer[string]
	up       atomic.Int64 // bytes that were passed to servers

	mu    sync.Mutex
	plan  *disturb
	conns []*net.TCPConn
	wg    sync.WaitGroup
}

// disturb is what happens when so many bytes more have gone to the server.
type disturb struct {
	after   int64
	swallow bool // what comes then is kept from the server, whose connection stays open
	reset   bool // the connections are reset
	reached chan struct{}

	late     []byte       // what was swallowed
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
				if d.late = append(d.late, buf[:n]...); err != nil {
					return false
				}
			}
		case d.reset:
			_, _ = client.SetLinger(0), server.SetLinger(0)
			_, _ = client.Close(), server.Close()
			close(d.reached)
			return false
		}
		close(d.reached) // whoever waits for that kills something
	}
	_, err := server.Write(p)
	if err == nil {
		m.up.Add(int64(len(p)))
	}
	return err == nil
}

// release gives the server, on the connection that it has kept open all the time, what was
// swallowed, as a network would that comes back.
func (d *disturb) release() {
	_ = d.stranded.SetWriteDeadline(time.Now().Add(patience))
	_, _ = d.stranded.Write(d.late)
	_ = d.stranded.CloseWrite()
}
