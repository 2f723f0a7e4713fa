//go:build linux

package soak

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
)

// damage is what a proxy does to the first connection that it carries, or to
// all of them.
type damage struct {
	up    bool // to what the client sends, else to what the server sends
	at    int  // after so many bytes
	flip  byte // these bits of the next byte are flipped; 0: the connection is cut
	reset bool // cut with a reset, which destroys what is on its way
	all   bool // on every connection
}

// proxy carries connections to the server and damages them.
type proxy struct {
	listener net.Listener
	target   string
	damage   damage

	done  atomic.Bool // the damage
	wg    sync.WaitGroup
	mu    sync.Mutex
	conns []*net.TCPConn
}

// proxied is a proxy in front of the server.
func (s *server) proxied(d damage) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, target: s.addr, damage: d}
	p.wg.Go(p.accept)
	return p, nil
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

// close ends everything and waits for it.
func (p *proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *proxy) accept() {
	for first := true; ; first = false {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		s, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.target)
		if err != nil {
			_ = c.Close()
			continue
		}
		client, server := c.(*net.TCPConn), s.(*net.TCPConn)
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		hit := first || p.damage.all
		p.wg.Go(func() { p.carry(client, server, hit && p.damage.up) })
		p.wg.Go(func() { p.carry(server, client, hit && !p.damage.up) })
	}
}

// carry copies from one side to the other, and damages it where it should.
func (p *proxy) carry(from, to *net.TCPConn, hit bool) {
	buf := make([]byte, 32<<10)
	for at := 0; ; {
		n, err := from.Read(buf)
		b := buf[:n]
		if i := p.damage.at - at; hit && i >= 0 && i < n {
			p.done.Store(true)
			if p.damage.flip == 0 {
				_, _ = to.Write(b[:i])
				p.cut(from, to)
				return
			}
			b[i] ^= p.damage.flip
		}
		at += n
		if _, werr := to.Write(b); werr != nil || err != nil {
			// One side is gone: so is the connection.
			_ = to.CloseWrite()
			_ = from.CloseRead()
			if werr != nil {
				_ = from.Close()
			}
			return
		}
	}
}

// cut ends both sides.
func (p *proxy) cut(sides ...*net.TCPConn) {
	for _, c := range sides {
		if p.damage.reset {
			_ = c.SetLinger(0)
		}
		_ = c.Close()
	}
}
