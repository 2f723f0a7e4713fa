package eventloop

import (
	"errors"
	"net"
	"sync"
	"time"
)

// wire is the connection to the client as crypto/tls sees it: memory. It hands out one
// record at a time, so that crypto/tls's buffer does not grow beyond the largest one.
//
// During the handshake Read waits for what the loop brings. Afterwards Read never waits:
// it returns errDrained when all is read, which leaves a [tls.Conn] usable, since it is a
// [net.Error] that says it is temporary. A record that has come in part is in the
// tls.Conn then, and the rest of it may follow later.
type wire struct {
	mu  sync.Mutex
	in  []byte // from the client, not read yet. After the handshake it may be memory of the owner's.
	out []byte // for the client, not sent yet

	head   [recordHeader]byte // of the record under way
	headed int                // bytes of it that have been read
	body   int                // bytes of its body that have not

	largest int // size of a record's body, so far
	barren  int // bytes of records since one had content

	shake *shake // nil when the handshake is over
}

// shake is what a wire has only during the handshake.
type shake struct {
	c       *conn
	arrived sync.Cond     // there is something in in, or the wire is closed
	left    int           // bytes that the client may still send
	hungry  time.Time     // since when Read waits for the client; zero if it does not
	waited  time.Duration // in Read for the client, before that
	closed  bool
}

// errDrained says that there is nothing to read at the moment.
var errDrained net.Error = drained{}

type drained struct{}

func (drained) Error() string   { return "nothing has come" }
func (drained) Timeout() bool   { return true }
func (drained) Temporary() bool { return true }

// maxBarren is how many bytes of records may come in a row without any content: renewals
// of keys, with their padding. More end the connection. crypto/tls keeps what has come of
// a message, up to 256 KiB.
const maxBarren = 3 * maxRecord

var errBarren = errors.New("too many records without content")

var errLargeHandshake = errors.New("the client sends more than a certificate may have")

// begin prepares the wire for the handshake that p, a copy, begins with. limit is how
// many bytes the client may send after that.
func (w *wire) begin(c *conn, p []byte, limit int) {
	w.in = p
	w.shake = &shake{c: c, left: limit}
	w.shake.arrived.L = &w.mu
}

// end is the end of the handshake: Read does not wait any more.
func (w *wire) end() {
	w.mu.Lock()
	w.shake, w.barren = nil, 0
	w.mu.Unlock()
}

// take copies what the handshake may have of p, if it waits for something. It returns how
// many bytes these are.
func (w *wire) take(p []byte) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.shake
	if s == nil || s.hungry.IsZero() {
		return 0
	}
	n := min(len(p), s.left)
	if n > 0 {
		w.in = append(w.in, p[:n]...)
		s.left -= n
		s.waited += time.Since(s.hungry)
		s.hungry = time.Time{}
		s.arrived.Signal()
	}
	return n
}

// hungry is since when the handshake waits for the client, zero if it does not. It is as
// much earlier as it has waited before: a client that sends a byte now and then has no
// more time than another.
func (w *wire) hungry() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.shake == nil || w.shake.hungry.IsZero() {
		return time.Time{}
	}
	return w.shake.hungry.Add(-w.shake.waited)
}

// close makes Read fail, if there is a handshake.
func (w *wire) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.shake != nil {
		w.shake.closed = true
		w.shake.arrived.Signal()
	}
}

// unsent returns what is to be sent, and forgets it.
func (w *wire) unsent() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.out
	w.out = nil
	return p
}

// Read implements [net.Conn].
func (w *wire) Read(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.in) == 0 {
		if w.shake == nil {
			return 0, errDrained
		}
		if err := w.wait(); err != nil {
			return 0, err
		}
	}
	n := 0
	if w.body > 0 {
		n = copy(p, w.in[:min(len(w.in), w.body)])
		w.body -= n
	} else {
		n = copy(p, w.in[:min(len(w.in), recordHeader-w.headed)])
		copy(w.head[w.headed:], p[:n])
		if w.headed += n; w.headed == recordHeader {
			w.headed = 0
			w.body = int(w.head[3])<<8 | int(w.head[4])
			w.largest = max(w.largest, w.body)
			w.barren += w.body
		}
	}
	if w.barren > maxBarren && w.shake == nil {
		return 0, errBarren
	}
	if w.in = w.in[n:]; len(w.in) == 0 {
		w.in = nil
	}
	return n, nil
}

// wait waits for the client, and has the loop send what it waits for. Others may compute
// meanwhile. Holds mu.
func (w *wire) wait() error {
	s := w.shake
	if s.left == 0 {
		return errLargeHandshake
	}
	computing := s.c.lp.srv.handshakes.computing
	s.hungry = time.Now()
	s.c.post(nil)
	<-computing
	for len(w.in) == 0 && !s.closed {
		s.arrived.Wait()
	}
	w.mu.Unlock()
	computing <- struct{}{}
	w.mu.Lock()
	if s.closed {
		return net.ErrClosed
	}
	return nil
}

// Write implements [net.Conn]. Whoever has called the tls.Conn sends it then.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = append(w.out, p...)
	return len(p), nil
}

// Close implements [net.Conn]. crypto/tls calls it when the server gives up.
func (w *wire) Close() error {
	w.close()
	return nil
}

// The rest of [net.Conn] has no meaning here.

func (*wire) LocalAddr() net.Addr              { return nil }
func (*wire) RemoteAddr() net.Addr             { return nil }
func (*wire) SetDeadline(time.Time) error      { return nil }
func (*wire) SetReadDeadline(time.Time) error  { return nil }
func (*wire) SetWriteDeadline(time.Time) error { return nil }
