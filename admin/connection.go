package admin

import (
	"context"
	"net"
	"sync"
)

// listener is one that holds no more than so many connections at once.
type listener struct {
	*net.TCPListener
	slots chan struct{}
	quit  context.Context
	end   context.CancelFunc
}

func limit(l *net.TCPListener, n int) *listener {
	quit, end := context.WithCancel(context.Background())
	return &listener{TCPListener: l, slots: make(chan struct{}, n), quit: quit, end: end}
}

// Accept waits for a place before it takes a connection.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.quit.Done():
		return nil, net.ErrClosed
	}
	c, err := l.AcceptTCP()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &connection{TCPConn: c, leave: func() { <-l.slots }}, nil
}

// Close stops listening.
func (l *listener) Close() error {
	l.end()
	return l.TCPListener.Close()
}

// connection has a place among those of a listener until it is closed.
type connection struct {
	*net.TCPConn
	once  sync.Once
	leave func()
}

// Close closes the connection, and gives its place to another.
func (c *connection) Close() error {
	err := c.TCPConn.Close()
	c.once.Do(c.leave)
	return err
}
