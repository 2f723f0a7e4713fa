package postgres

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"sealift/internal/testservices"
)

// proxy stands between a registry and its database.
type proxy struct {
	listener net.Listener
	to       string
	answers  atomic.Int64 // ReadyForQuery: one for each round trip
	mu       sync.Mutex
	fault    func(p *proxy, client, server net.Conn) bool // what is done instead of the next ReadyForQuery after something was done; false: nothing
	conns    map[net.Conn]bool
}

// through starts a proxy for the database at address, and returns the address that goes
// through it.
func through(t testing.TB, address string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, to: u.Host, conns: make(map[net.Conn]bool)}
	t.Cleanup(func() {
		_ = l.Close()
		p.cutAll()
	})
	go p.accept()
	u.Host = l.Addr().String()
	return p, u.String()
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.conns[client], p.conns[server] = true, true
		p.mu.Unlock()
		go p.ask(client, server)
		go p.answer(client, server)
	}
}

// cancelRequest is how a connection begins that asks for the end of what another one does.
const cancelRequest = 80877102

// ask hands on what the registry says, but for requests to cancel: they are lost.
func (p *proxy) ask(client, server net.Conn) {
	head := make([]byte, 8)
	if _, err := io.ReadFull(client, head); err != nil || binary.BigEndian.Uint32(head[4:]) == cancelRequest {
		_ = server.Close()
		return
	}
	_, _ = server.Write(head)
	_, _ = io.Copy(server, client)
	_ = server.(*net.TCPConn).CloseWrite()
}

// answer hands on what the database says, a message at a time.
func (p *proxy) answer(client, server net.Conn) {
	defer client.Close()
	defer server.Close()
	head := make([]byte, 5)
	done := false // something was, since the last ReadyForQuery: it is not about statements that are prepared
	for {
		if _, err := io.ReadFull(server, head); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(server, body); err != nil {
			return
		}
		switch head[0] {
		case 'C':
			done = true
		case 'Z':
			p.answers.Add(1)
			if !done {
				break
			}
			done = false
			p.mu.Lock()
			fault := p.fault
			p.mu.Unlock()
			if fault != nil && fault(p, client, server) {
				return
			}
		}
		if _, err := client.Write(append(head[:5:5], body...)); err != nil {
			return
		}
	}
}

// loseAnswers has the next n answers be lost, and their connections cut: what was asked was done.
func (p *proxy) loseAnswers(n int64) {
	var left atomic.Int64
	left.Store(n)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = func(_ *proxy, client, _ net.Conn) bool { return left.Add(-1) >= 0 }
}

// cutAll cuts all connections.
func (p *proxy) cutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
		delete(p.conns, c)
	}
}

// cutClients cuts the registry off. The database finds out when it answers.
func (p *proxy) cutClients() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if c.LocalAddr().String() == p.listener.Addr().String() {
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
			delete(p.conns, c)
		}
	}
}

// together is a database that the tests share: to make another takes longer than to make tables.
var together struct {
	mu      sync.Mutex
	url     string
	schemas int
}

// schema returns the URL of a schema of its own in the shared PostgreSQL.
func schema(t testing.TB) string {
	t.Helper()
	together.mu.Lock()
	defer together.mu.Unlock()
	if together.url == "" {
		together.url = testservices.SharedPostgres(t)
	}
	together.schemas++
	return fmt.Sprintf("%s&search_path=test%d", together.url, together.schemas)
}

// database returns the URL of a database of its own there.
func database(t testing.TB) string { return testservices.SharedPostgres(t) }
