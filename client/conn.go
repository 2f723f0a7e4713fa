package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"sealift/codec"
)

// conn is one connection. A goroutine of its own reads the replies, so that one
// that comes early, or the end of the connection, is seen while a file goes out.
type conn struct {
	nc      net.Conn
	replies chan received // in order; the last one has the error
	done    chan struct{}
	once    sync.Once

	// keyed: the client's AES key came over it. Without, the connection can only
	// resume, with the key that the server sent last, be it over another one.
	keyed bool
	// claims is the id that our certificate is for; zero: it has none, or there is none.
	claims codec.ClientID
	// answered: a request has got its reply over it, and not only a 1607.
	answered bool
	// told has the 1608s that came over it, by file name, until a 1028 of the file goes
	// out: the server takes that for what follows.
	told map[string]said
}

// note notes a 1608.
func (c *conn) note(name string, s said) {
	if c.told == nil {
		c.told = make(map[string]said)
	}
	c.told[name] = s
}

type received struct {
	reply
	err error
}

// maxWaiting is how many replies may wait for the client. It asks one at a time:
// a server that sends more is not read any further.
const maxWaiting = 4

func newConn(nc net.Conn) *conn {
	c := &conn{nc: nc, replies: make(chan received, maxWaiting), done: make(chan struct{})}
	go c.read()
	return c
}

func (c *conn) read() {
	r := bufio.NewReaderSize(c.nc, 1024)
	for first := true; ; first = false {
		rep, err := readReply(r, c.nc)
		if first {
			err = lookAtFirst(rep, err, r)
		}
		select {
		case c.replies <- received{rep, err}:
		case <-c.done:
			return
		}
		if err != nil {
			return
		}
	}
}

// close ends the connection and with it whatever waits for it. It may be called
// from any goroutine, and again.
func (c *conn) close() {
	c.once.Do(func() {
		close(c.done)
		c.nc.Close()
	})
}

// write sends b in one write. An error is an ErrConnection.
func (c *conn) write(b []byte, timeout time.Duration) error {
	if err := c.nc.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return lost(err)
	}
	if _, err := c.nc.Write(b); err != nil {
		return lost(err)
	}
	return nil
}

// await returns the next reply. Where none comes within the timeout, or the
// connection ends, that is an ErrConnection.
func (c *conn) await(ctx context.Context, timeout time.Duration) (reply, error) {
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case r := <-c.replies:
		return r.reply, r.err
	case <-ctx.Done():
		return reply{}, ctx.Err()
	case <-t.C:
		return reply{}, lost(silence(timeout))
	}
}

// silence is an error: there was no reply for so long.
type silence time.Duration

func (s silence) Error() string { return fmt.Sprintf("no reply within %v", time.Duration(s)) }

// lastWords is how long a failed write waits for what the reader still finds:
// a server that refuses a message may reply and close without reading on.
const lastWords = time.Second

// afterFailedWrite returns the reply that explains why a write failed, or
// writeErr if there is none. That the server refuses our certificate is an ErrTLS.
func (c *conn) afterFailedWrite(ctx context.Context, writeErr error) (reply, error) {
	r, err := c.await(ctx, lastWords)
	if errors.Is(err, ErrTLS) {
		return reply{}, err
	}
	if err != nil {
		return reply{}, writeErr
	}
	return r, nil
}

// usable returns an error, and closes the connection, if unexpected data or the end
// of the connection has arrived.
func (c *conn) usable() error {
	select {
	case r := <-c.replies:
		c.close()
		if r.err != nil {
			return r.err
		}
		return r.surprise("nothing was asked")
	case <-c.done:
		return ErrConnection
	default:
		return nil
	}
}

// unasked waits for what the server says before it is asked anything. An error
// says that it has ended the connection, or does not speak the protocol.
func (c *conn) unasked(wait time.Duration) error {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case r := <-c.replies:
		switch {
		case r.err != nil:
			return r.err
		case r.code == codec.CodeError:
			return fmt.Errorf("%w before it was asked anything", ErrServer)
		}
		return r.surprise("nothing was asked")
	case <-c.done:
		return ErrConnection
	case <-t.C:
		return nil
	}
}

// isSilence reports whether err says that no reply came in time.
func isSilence(err error) bool { return errors.As(err, new(silence)) }
