//go:build linux

package cluster

import (
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// pgProxy stands between a server and PostgreSQL, without TLS. It knows where messages begin
// and end.
type pgProxy struct {
	listener net.Listener
	target   string
	latency  atomic.Int64 // of each reading, in either direction, in nanoseconds
	fault    atomic.Pointer[pgFault]
	messages [2]atomic.Int64 // that went by: to the database, and from it

	wg    sync.WaitGroup
	mu    sync.Mutex
	conns map[net.Conn]bool
}

// The two directions.
const (
	toDatabase = iota
	fromDatabase
)

// pgFault cuts the connection of one message, once.
type pgFault struct {
	direction int
	at        int64 // the connection of that message is cut, counted from 1 when the fault is set
	// lost: the message goes to the database, which does all that it was asked for, and
	// then the connection is cut with what it answers.
	lost bool
	seen atomic.Int64
	done atomic.Bool
}

// hit counts a message, and reports whether it is the one.
func (f *pgFault) hit(direction int) bool {
	return f != nil && f.direction == direction && f.seen.Add(1) == f.at
}

// newPGProxy starts a proxy in front of a database. Through returns the URL that leads
// through it.
func (r *run) newPGProxy(registry string) *pgProxy {
	r.Helper()
	u, err := url.Parse(registry)
	r.must("parsing the URL of the registry", err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	r.must("listening", err)
	p := &pgProxy{listener: l, target: u.Host, conns: make(map[net.Conn]bool)}
	p.wg.Go(p.accept)
	r.Cleanup(p.close)
	return p
}

// through returns the URL of the same database through the proxy.
func (p *pgProxy) through(registry string) string {
	u, err := url.Parse(registry)
	if err != nil {
		return registry
	}
	u.Host = p.listener.Addr().String()
	return u.String()
}

func (p *pgProxy) close() {
	_ = p.listener.Close()
	p.cut()
	p.wg.Wait()
}

// cut ends all connections.
func (p *pgProxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *pgProxy) keep(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = true
}

func (p *pgProxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		db, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = c.Close()
			continue
		}
		p.keep(c)
		p.keep(db)
		l := &pgLink{p: p, client: c, database: db}
		var both sync.WaitGroup
		both.Go(func() { l.carry(toDatabase) })
		both.Go(func() { l.carry(fromDatabase) })
		p.wg.Go(func() {
			both.Wait()
			p.mu.Lock()
			defer p.mu.Unlock()
			delete(p.conns, c)
			delete(p.conns, db)
		})
	}
}

// pgLink is one connection through the proxy.
type pgLink struct {
	p                *pgProxy
	client, database net.Conn
	deaf             atomic.Bool // what the database answers is lost, and then the link ends
}

func (l *pgLink) end() {
	_ = l.client.Close()
	_ = l.database.Close()
}

// carry passes messages on in one direction. What comes in one reading goes out in one
// writing, except where a fault cuts it.
func (l *pgLink) carry(direction int) {
	defer l.end()
	from, to := l.client, l.database
	if direction == fromDatabase {
		from, to = to, from
	}
	frames := pgFrames{untyped: direction == toDatabase}
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			time.Sleep(time.Duration(l.p.latency.Load()))
			if !l.pass(direction, to, buf[:n], &frames) {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pass passes b on. It reports false if the link is to end.
func (l *pgLink) pass(direction int, to io.Writer, b []byte, frames *pgFrames) bool {
	begins, waits := frames.feed(b)
	for _, at := range begins {
		l.p.messages[direction].Add(1)
		f := l.p.fault.Load()
		if !f.hit(direction) {
			continue
		}
		f.done.Store(true)
		if f.lost && direction == toDatabase {
			l.deaf.Store(true)
			continue
		}
		_, _ = to.Write(b[:at])
		return false
	}
	if direction == fromDatabase && l.deaf.Load() {
		return !waits // nothing of it reaches the client; the database has come to the end
	}
	_, err := to.Write(b)
	return err == nil
}

// pgFrames finds the beginnings of messages in a stream.
type pgFrames struct {
	untyped bool // the next message has no type: the first of a client
	head    []byte
	rest    int // of the message under way
}

// feed takes what comes next of the stream, and returns where in it messages begin, and
// whether the sender then waits: after a ReadyForQuery, and after each step of a login.
func (f *pgFrames) feed(b []byte) (begins []int, waits bool) {
	for i := 0; i < len(b); {
		if f.rest > 0 {
			n := min(f.rest, len(b)-i)
			f.rest -= n
			i += n
			continue
		}
		if len(f.head) == 0 {
			begins = append(begins, i)
		}
		f.head = append(f.head, b[i])
		i++
		size := 5
		if f.untyped {
			size = 4
		}
		if len(f.head) < size {
			continue
		}
		f.rest = int(binary.BigEndian.Uint32(f.head[size-4:])) - 4
		if f.untyped {
			f.untyped = false
		} else if f.head[0] == 'Z' || f.head[0] == 'R' {
			waits = true
		}
		f.head = f.head[:0]
	}
	return begins, waits
}

// delay has each reading take d more from now on.
func (p *pgProxy) delay(d time.Duration) { p.latency.Store(int64(d)) }
