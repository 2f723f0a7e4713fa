package eventloop

import (
	"bytes"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/panjf2000/gnet/v2"
	"go.uber.org/zap"

	"sealift/codec"
	"sealift/session"
)

// deaf is a connection into which little fits that is not read.
func (r *running) deaf() *net.TCPConn {
	r.t.Helper()
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 536)
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096)
		})
	}}
	c, err := d.Dial("tcp", r.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

// littleInKernel has the kernel hold little of what the server sends.
func littleInKernel(o *Options, _ *session.Config) {
	o.noPause = false // where it cannot be paused, a connection that reads too late is ended
	o.enroll = func(enroll enroll) enroll {
		return func(nc net.Conn, ctx any) (gnet.Conn, error) {
			_ = nc.(*net.TCPConn).SetWriteBuffer(4096)
			return enroll(nc, ctx)
		}
	}
}

// unread is how many bytes of replies the server holds, and whether it reads on,
// for each connection.
func (r *running) unread() (waiting []int, paused int) {
	var mu sync.Mutex
	r.mu.Lock()
	loops := len(r.loops) // may grow when the lock is free, and a loop must not wait for seen
	seen := make(chan struct{}, loops)
	for _, lp := range r.loops {
		lp.post(func() {
			mu.Lock()
			for c := range lp.conns {
				waiting = append(waiting, c.waiting())
				if c.watch == sends {
					paused++
				}
			}
			mu.Unlock()
			seen <- struct{}{}
		})
	}
	r.mu.Unlock()
	for range loops {
		<-seen
	}
	return waiting, paused
}

// A client that asks and asks and reads no reply is not read from, so that what
// waits for it stays small. When it reads after all, it gets every reply, in
// order, also those to requests that were there long before.
func TestRepliesThatAreNotRead(t *testing.T) {
	r := start(t, func(o *Options, cfg *session.Config) {
		littleInKernel(o, cfg)
		o.Log, cfg.Log = zap.NewNop(), zap.NewNop()
	})
	const clients, requests = 4, 60_000
	unknown := codec.RequestHeader{Version: codec.Version, Code: 1111}.Append(nil)
	all := make([]*net.TCPConn, clients)
	var wg sync.WaitGroup
	for i := range all {
		all[i] = r.deaf()
		wg.Go(func() {
			if _, err := all[i].Write(bytes.Repeat(unknown, requests)); err != nil {
				t.Error(err)
			}
			_ = all[i].CloseWrite()
		})
	}
	for { // until the server reads from none of them
		waiting, paused := r.unread()
		for _, n := range waiting {
			// One read of gnet's may bring so many requests beyond.
			if most := readBuffer; n > most {
				t.Fatalf("%d bytes of replies wait for a client, more than %d", n, most)
			}
		}
		if paused == clients {
			break
		}
		time.Sleep(time.Millisecond) // the connections are looked at from outside
	}
	for _, c := range all {
		wg.Go(func() {
			_ = c.SetReadDeadline(time.Now().Add(time.Minute))
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, bytes.Repeat(errorReply, requests)) {
				t.Errorf("%d bytes of replies, %v; want %d", len(got), err, requests*len(errorReply))
			}
		})
	}
	wg.Wait()
}

// The same where each request is work for the registry: what the session left
// while it was busy has its turn, although the client reads late.
func TestRepliesThatAreReadLate(t *testing.T) {
	r := start(t, littleInKernel)
	id := r.client("somebody").Identity().ID
	c := r.deaf()
	const requests = 10_000
	request := codec.Verdict{Code: codec.CodeAbort, FileName: []byte("no such file")}.Append(nil, id)
	written := make(chan error, 1)
	go func() {
		_, err := c.Write(bytes.Repeat(request, requests))
		written <- err
	}()
	for most := 0; most == 0; {
		time.Sleep(time.Millisecond) // the connections are looked at from outside
		waiting, _ := r.unread()
		most = slices.Max(waiting)
	}
	reply := codec.IDReply{Code: codec.CodeAck, ID: id}.Append(nil)
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	got := make([]byte, requests*len(reply))
	if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, bytes.Repeat(reply, requests)) {
		t.Errorf("%d bytes of replies, %v", n, err)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
}
