package admin

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"sync"
)

// listener is one that holds no more than so many connections at once. For the next one it
// closes that which has been without a request for longest: so nobody keeps others out
// by connecting, or by sending half of a request.
type listener struct {
	*net.TCPListener
	most int
	room chan struct{} // has a value when there may be a place for who waits
	quit context.Context
	end  context.CancelFunc

	mu    sync.Mutex
	count int
	idle  list.List // of *connection: those whose request is not being answered, the oldest first
}

func limit(l *net.TCPListener, most int) *listener {
	quit, end := context.WithCancel(context.Background())
	return &listener{TCPListener: l, most: most, room: make(chan struct{}, 1), quit: quit, end: end}
}

// Accept takes a connection, and waits for a place for it.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	next := &connection{TCPConn: c, in: l}
	for !l.enter(next) {
		select {
		case <-l.room:
		case <-l.quit.Done():
			_ = c.Close()
			return nil, net.ErrClosed
		}
	}
	return next, nil
}

// enter gives c a place, if need be that of another. It returns false if there is none.
func (l *listener) enter(c *connection) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count >= l.most {
		oldest := l.idle.Front()
		if oldest == nil {
			return false
		}
		victim := oldest.Value.(*connection)
		l.leave(victim)
		_ = victim.TCPConn.Close()
	}
	l.count++
	c.idle = l.idle.PushBack(c)
	return true
}

// leave takes the place of c away. Holds mu.
func (l *listener) leave(c *connection) {
	if c.gone {
		return
	}
	c.gone = true
	if c.idle != nil {
		l.idle.Remove(c.idle)
	}
	l.count--
	l.tell()
}

// tell has who waits look again.
func (l *listener) tell() {
	select {
	case l.room <- struct{}{}:
	default: // it will
	}
}

// Close stops listening.
func (l *listener) Close() error {
	l.end()
	return l.TCPListener.Close()
}

// connection has a place among those of a listener until it is closed.
type connection struct {
	*net.TCPConn
	in *listener

	// Under the listener's lock.
	idle *list.Element // in the listener's list
	gone bool          // it has no place
}

// Close closes the connection, and gives its place to another.
func (c *connection) Close() error {
	err := c.TCPConn.Close()
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.in.leave(c)
	return err
}

// answering notes that a request of the connection is being answered, until it is called
// with false.
func (c *connection) answering(yes bool) {
	l := c.in
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case c.gone:
	case yes:
		l.idle.Remove(c.idle)
		c.idle = nil
	default:
		c.idle = l.idle.PushBack(c)
		l.tell()
	}
}

// connectionKey is that of a request's connection in its context.
type connectionKey struct{}

// withConnection is [http.Server.ConnContext].
func withConnection(ctx context.Context, c net.Conn) context.Context {
	if over, ok := c.(interface{ NetConn() net.Conn }); ok { // TLS
		c = over.NetConn()
	}
	return context.WithValue(ctx, connectionKey{}, c)
}

// connectionOf is the connection of a request.
func connectionOf(r *http.Request) *connection {
	return r.Context().Value(connectionKey{}).(*connection)
}
