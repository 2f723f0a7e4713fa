// Package goroutine serves the protocol with a goroutine for each connection,
// over the same sessions and storage as package eventloop: the way most servers
// in Go are written, and what an event loop has to beat. It shows how little a
// [session.Host] needs besides a net.Conn.
//
// The goroutine of a connection is its session's goroutine, and since nobody else
// runs on it, work is simply done there, a bounded number at a time. The
// registry's operations go through the same [storage.Queue] as the event loop's.
package goroutine

import (
	"context"
	"errors"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"go.uber.org/zap"

	"sealift/session"
	"sealift/storage"
)

// Options configure Serve. Service, Registry and Log are needed.
type Options struct {
	Service  *session.Service
	Registry storage.Registry
	Log      *zap.Logger

	// Workers is how many connections may decrypt or touch the disk at a time.
	Workers int
	// IdleTimeout is how long a connection may be silent.
	IdleTimeout time.Duration
	// EarlyBudget bounds the bytes of packets that arrive before their turn.
	EarlyBudget int
}

type server struct {
	Options
	ctx      context.Context
	registry *storage.Queue
	workers  chan struct{}  // a slot for each
	buffers  sync.Pool      // of *[]byte of session.MaxBuffer
	open     sync.WaitGroup // connections, and what they asked for and do not wait for

	mu    sync.Mutex
	early int // what Hold may still grant
}

// Serve serves the connections of l until ctx ends. Then it closes them all and
// returns when what was under way has ended.
func Serve(ctx context.Context, l net.Listener, o Options) error {
	s := &server{Options: o, ctx: ctx, early: o.EarlyBudget, workers: make(chan struct{}, o.Workers)}
	s.buffers.New = func() any { b := make([]byte, session.MaxBuffer); return &b }
	// What was asked for before the server began to stop is still done.
	s.registry = storage.NewQueue(context.Background(), o.Registry)
	unlisten := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer unlisten()
	defer s.open.Wait()
	for {
		nc, err := l.Accept()
		var temporary interface{ Temporary() bool }
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &temporary) && temporary.Temporary(): // no descriptors left, mostly
			o.Log.Error("accepting", zap.Error(err))
			time.Sleep(5 * time.Millisecond)
		case err != nil:
			return err
		default:
			s.open.Go(func() { s.serve(nc) })
		}
	}
}

// readSize is the size of a connection's buffer in bytes. It is for headers and
// small messages: content is read straight to where the session wants it.
const readSize = 4 << 10

// serve is the life of a connection.
func (s *server) serve(nc net.Conn) {
	c := &conn{srv: s, nc: nc, wake: make(chan struct{}, 1)}
	defer func() {
		if p := recover(); p != nil {
			s.Log.Error("panic", zap.Stringer("remote", nc.RemoteAddr()), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
		}
		_ = nc.Close()
	}()
	cut := context.AfterFunc(s.ctx, func() { _ = nc.Close() })
	defer cut()
	c.sess = session.New(s.Service, c, nc.RemoteAddr().String())
	err := c.receive()
	c.sess.Closed()
	c.leave()
	s.Log.Info("connection closed", append(c.sess.Summary(), zap.Error(err))...)
}

// receive reads from the client and does what its session asks for, until
// either hangs up.
func (c *conn) receive() error {
	buf := make([]byte, readSize)
	var left []byte // of buf, not yet taken by the session
	for {
		left = left[c.sess.Feed(left):]
		for c.runTasks() {
			left = left[c.sess.Feed(left):]
		}
		if err := c.flush(); err != nil {
			return err
		}
		switch {
		case c.hangup != "":
			c.linger()
			return errors.New(c.hangup)
		case len(left) > 0 || c.sess.Working():
			<-c.wake // for the registry, or for another session
			continue
		}
		if err := c.nc.SetReadDeadline(c.Now().Add(c.srv.IdleTimeout)); err != nil {
			return err
		}
		into := c.sess.Target()
		content := into != nil
		if !content {
			into = buf
		}
		n, err := c.nc.Read(into)
		if content {
			c.sess.Filled(n)
		} else {
			left = buf[:n]
		}
		if err != nil && n == 0 {
			return err
		}
	}
}

// flush sends the replies that have gathered.
func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	_ = c.nc.SetWriteDeadline(c.Now().Add(c.srv.IdleTimeout)) // if this fails, so does Write
	_, err := c.nc.Write(c.out)
	c.out = c.out[:0]
	return err
}

// lingerTime is how long a connection that is being ended may still send, to
// nobody. Closed at once, with data unread, the kernel would reset it and destroy
// the last reply on its way.
const lingerTime = 2 * time.Second

func (c *conn) linger() {
	if half, ok := c.nc.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		return
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(lingerTime)) // if this fails, so does Read
	for buf := make([]byte, readSize); ; {
		if _, err := c.nc.Read(buf); err != nil {
			return
		}
	}
}
