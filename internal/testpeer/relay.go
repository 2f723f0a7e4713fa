package testpeer

import (
	"errors"
	"io"
	"net"
	"sync"
)

// Relay carries connections to a server, and may put on or take off their
// protection: a program that speaks plain reaches a server over TLS through it, and
// the other way round.
type Relay struct {
	// Near and Far are what is done first with the connection of a client and with
	// that to its server; nil: nothing. [TLS.Client] and the function of
	// [Terminate] are such. An error closes both connections.
	Near, Far func(net.Conn) (net.Conn, error)
	// Hook is called for each connection. Of the functions that it returns, up gets
	// what the client sends and down what the server sends, each on a goroutine of its
	// own, and returns what goes on in its place. nil: all goes on as it is.
	Hook func() (up, down func([]byte) []byte)

	server   string
	listener net.Listener
	wg       sync.WaitGroup
	mu       sync.Mutex
	open     map[net.Conn]bool // nil: the relay is closed
}

// Start listens on a free port of the loopback for connections to server. The fields
// do not change afterwards.
func (r *Relay) Start(server string) (err error) {
	r.server, r.open = server, make(map[net.Conn]bool)
	if r.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	r.wg.Go(func() {
		for {
			nc, err := r.listener.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { r.serve(nc) })
		}
	})
	return nil
}

// Addr is where the relay listens.
func (r *Relay) Addr() string { return r.listener.Addr().String() }

// Close ends all connections and waits for the end of all goroutines.
func (r *Relay) Close() {
	_ = r.listener.Close()
	r.mu.Lock()
	for c := range r.open {
		_ = c.Close()
	}
	r.open = nil
	r.mu.Unlock()
	r.wg.Wait()
}

// keep has Close close nc. It returns false, and closes nc, when that has been called.
func (r *Relay) keep(nc net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil {
		_ = nc.Close()
		return false
	}
	r.open[nc] = true
	return true
}

// end closes nc.
func (r *Relay) end(nc net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = nc.Close()
	delete(r.open, nc)
}

func (r *Relay) serve(client net.Conn) {
	if !r.keep(client) {
		return
	}
	defer r.end(client)
	near, first, err := r.hear(client)
	if err != nil {
		return
	}
	server, err := net.DialTimeout("tcp", r.server, Patience)
	if err != nil || !r.keep(server) {
		return
	}
	defer r.end(server)
	far, err := wrapped(server, r.Far)
	if err != nil {
		return
	}
	same := func(b []byte) []byte { return b }
	up, down := same, same
	if r.Hook != nil {
		up, down = r.Hook()
	}
	var both sync.WaitGroup
	both.Go(func() {
		if _, err := far.Write(up(first)); err != nil {
			_, _ = far.Close(), near.Close()
			return
		}
		carry(far, near, up)
	})
	both.Go(func() { carry(near, far, down) })
	both.Wait()
}

// hear does what is to be done with a client's connection. If that is a handshake, it
// waits for the client's first bytes: a client may only look who is there, and no server
// should hear of that.
func (r *Relay) hear(client net.Conn) (near net.Conn, first []byte, err error) {
	near, err = wrapped(client, r.Near)
	if err != nil || r.Near == nil {
		return near, nil, err
	}
	first = make([]byte, 32<<10)
	n, err := near.Read(first)
	return near, first[:n], err
}

func wrapped(nc net.Conn, wrap func(net.Conn) (net.Conn, error)) (net.Conn, error) {
	if wrap == nil {
		return nc, nil
	}
	return wrap(nc)
}

// carry copies what comes from one side to the other. At an end in good order the
// other side sees one too; at any other, both connections are closed.
func carry(to, from net.Conn, change func([]byte) []byte) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(change(buf[:n])); err != nil {
				_, _ = to.Close(), from.Close()
				return
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			if half, ok := to.(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite()
			}
			return
		default:
			_, _ = to.Close(), from.Close()
			return
		}
	}
}
