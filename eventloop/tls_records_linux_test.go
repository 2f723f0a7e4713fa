package eventloop

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/panjf2000/gnet/v2"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/session"
)

// scribbler is a rawPeer on a scribe.
func (r *running) scribbler(name string) (*rawPeer, *scribe) {
	r.t.Helper()
	s := r.scribe(r.tcp())
	return r.rawPeer(s, name), s
}

// A client that renews its keys in the middle of content, asks the server to renew its
// own, fills records up, sends empty ones, or cuts content into small ones, is served.
func TestUnusualRecords(t *testing.T) {
	r := startTLS(t, nil)
	b, s := r.scribbler("unusual")
	content := random(3 << 20)
	stream := slices.Concat(b.packets("f", content, 200_000)...)
	var all []byte
	for n := 0; len(stream) > 0; n++ {
		size := min(len(stream), []int{16 << 10, 1000, 1, 16 << 10, 5000}[n%5])
		switch n % 4 {
		case 0:
			all = append(all, s.renew(keyUpdate)...)
		case 1:
			if n < 16*4 { // crypto/tls, which reads the answers, takes no more in a row
				all = append(all, s.renew(bothKeyUpdate)...)
			}
		case 2:
			all = append(all, s.record(contentRecord, nil, 100)...)
		}
		padding := 0
		if n%3 == 0 && size < 16<<10 {
			padding = 16<<10 - size
		}
		all = append(all, s.record(contentRecord, stream[:size], padding)...)
		stream = stream[size:]
	}
	go s.raw(all)
	b.received("f", content)
	r.stored(b.ID, "f", content)
	r.wasLent()
}

// Answers to renewals of keys do not pile up while content flows, though the client reads
// none: they are sent, and then the server waits for the client.
func TestManyRenewals(t *testing.T) {
	r := startTLS(t, func(o *Options, cfg *session.Config) { littleInKernel(o, cfg) })
	s := r.scribe(r.deaf())
	b := r.rawPeer(s, "renewing")
	content := random(100_000)
	stream := slices.Concat(b.packets("f", content, 100_000)...)
	var all []byte
	const renewals, answer = 60_000, 27 // bytes of an answer's record
	for i := range stream[:renewals] {
		all = append(append(all, s.record(contentRecord, stream[i:i+1], 0)...), s.renew(bothKeyUpdate)...)
	}
	all = append(all, s.content(stream[renewals:], maxPlaintext)...)
	written := make(chan error, 1)
	go func() {
		_, err := s.below.Write(all)
		written <- err
	}()
	for { // until the server reads no more
		waiting, paused := r.unread()
		for _, n := range waiting {
			if n > 64<<10 {
				t.Fatalf("%d bytes of answers wait", n)
			}
		}
		if paused == 1 {
			break
		}
		time.Sleep(time.Millisecond) // nothing else tells
	}
	// crypto/tls would not read so many in a row. Behind them comes the record of a 1603.
	if _, err := io.CopyN(io.Discard, s.below, renewals*answer+codec.ResponseHeaderSize); err != nil {
		t.Error(err)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
}

// Of renewals that fill the socket's buffer a worker takes no more than it can answer.
func TestManyRenewalsAtOnce(t *testing.T) {
	r := startTLS(t, func(o *Options, cfg *session.Config) {
		littleInKernel(o, cfg)
		little := o.enroll
		o.enroll = func(enroll enroll) enroll {
			return little(func(nc net.Conn, ctx any) (gnet.Conn, error) {
				_ = nc.(*net.TCPConn).SetReadBuffer(8 << 20)
				return enroll(nc, ctx)
			})
		}
	})
	nc := r.tcp().(*net.TCPConn)
	_ = nc.SetReadBuffer(4096)
	s := r.scribe(nc)
	b := r.rawPeer(s, "renewing")
	content := random(4 << 20)
	stream := slices.Concat(b.packets("f", content, len(content))...)
	all := s.content(stream[:60_000], maxPlaintext)
	for _, c := range stream[60_000:180_000] {
		all = append(append(all, s.record(contentRecord, []byte{c}, 0)...), s.renew(bothKeyUpdate)...)
	}
	go func() { _, _ = nc.Write(all) }()
	for { // until the server reads no more
		waiting, paused := r.unread()
		if len(waiting) == 0 {
			t.Fatal("the connection has ended")
		}
		if waiting[0] > 64<<10 {
			t.Fatalf("%d bytes of answers wait", waiting[0])
		}
		if paused == 1 {
			break
		}
		time.Sleep(time.Millisecond) // nothing else tells
	}
}

// What ends a connection in the middle of content ends the upload too, and the log says
// why; where the client is at fault it gets the alert that says so.
func TestTheEndInTheMiddleOfContent(t *testing.T) {
	for _, tc := range []struct {
		name   string
		end    func(s *scribe) []byte
		reason string
		alert  string
	}{
		{"an alert", func(s *scribe) []byte { return s.record(alertRecord, internalError, 0) }, "tls: remote error: tls: internal error", ""},
		{"a close_notify", func(s *scribe) []byte { return s.record(alertRecord, closeNotify, 0) }, "by the client", ""},
		{"a spoiled record", func(s *scribe) []byte {
			p := s.record(contentRecord, make([]byte, 1000), 0)
			p[100] ^= 1
			return p
		}, "tls: local error: tls: bad record MAC", "bad record MAC"},
		{"a plain message", func(s *scribe) []byte {
			return append(codec.Register{Name: []byte("plain")}.Append(nil), make([]byte, 30_000)...)
		}, "tls: received record with version", "protocol version"},
		{"a message that makes no sense", func(s *scribe) []byte { return s.record(handshakeRecord, []byte{1, 0, 0, 1, 0}, 0) },
			"tls: local error: tls: error decoding message", "error decoding message"},
		{"a message without an end", func(s *scribe) (p []byte) {
			p = s.record(handshakeRecord, append([]byte{24, 0, 0xff, 0xff}, make([]byte, 16_000)...), 0)
			for range 3 {
				p = append(p, s.record(handshakeRecord, make([]byte, 16_000), 0)...)
			}
			return p
		}, "tls: " + errBarren.Error(), ""},
		{"renewals of keys and nothing else", func(s *scribe) (p []byte) {
			for range 100 {
				p = append(p, s.renew(keyUpdate)...)
			}
			return p
		}, "tls: too many non-advancing records", "unexpected message"},
	} {
		for _, size := range []int{1000, 2 << 20} { // gathered, and lent
			t.Run(fmt.Sprint(tc.name, ", ", size), func(t *testing.T) {
				r := startTLS(t, nil)
				b, s := r.scribbler("sender")
				p := b.packets("f", random(size), size/2)
				s.raw(append(s.content(p[0], maxPlaintext), tc.end(s)...))
				_, err := io.ReadAll(s)
				if tc.alert == "" && err != nil || tc.alert != "" && (err == nil || !strings.Contains(err.Error(), tc.alert)) {
					t.Errorf("the client reads %v, want %q", err, tc.alert)
				}
				_ = s.NetConn().Close()
				r.ended(tc.reason)
				kept := 0 // what came of the large one may be
				if r.partial(b.ID, "f") != nil {
					kept = 1
				}
				if n := r.incoming(); n != kept || size < 1<<20 && n > 0 {
					t.Errorf("%d files are left in .incoming, and %d are on record", n, kept)
				}
				if n := r.sealed.Load(); n != 0 {
					t.Errorf("%d bytes are counted", n)
				}
			})
		}
	}
}

// A client that ends its side, with close_notify and perhaps a FIN behind it, gets the
// replies that it is owed, and then the server's close_notify.
func TestHalfClosedOverTLS(t *testing.T) {
	for _, fin := range []bool{false, true} {
		for _, size := range []int{100, 3 << 20} {
			t.Run(fmt.Sprint(size, ", FIN ", fin), func(t *testing.T) {
				if waits && fin {
					t.Skip("where it cannot pause the server sees the FIN too early")
				}
				g := &gate{}
				gated := gated(g)
				r := startTLS(t, gated)
				b, s := r.scribbler("half closed")
				content := random(size)
				stream := slices.Concat(b.packets("f", content, 1<<20)...)
				s.raw(append(s.content(stream, maxPlaintext), s.record(alertRecord, closeNotify, 0)...))
				if fin {
					_ = s.below.Conn.(*net.TCPConn).CloseWrite()
				}
				<-g.reached
				close(g.open)
				if err := b.ReceivedAs("f", int64(size), cksum.Checksum(content)); err != nil {
					t.Fatal(err)
				}
				if rest, err := io.ReadAll(s); len(rest) > 0 || err != nil {
					t.Errorf("% x, %v", rest, err)
				}
				if !s.below.alert() {
					t.Error("no close_notify at the end")
				}
				_ = s.NetConn().Close()
				r.ended("by the client")
			})
		}
	}
}

// stageEnd is the client's end of a stage's connection. It lets the server go on while it
// waits itself, and says what it is given in pieces, which the server takes one by one.
type stageEnd struct {
	net.Conn
	s   *stage
	cut func(left int) int
}

func (e *stageEnd) goOn() {
	e.s.poll()
	e.s.c.work()
	e.s.runTasks()
	runtime.Gosched()
}

func (e *stageEnd) Write(p []byte) (int, error) {
	for all := p; len(all) > 0; {
		n := e.s.say(all[:e.cut(len(all))])
		all = all[n:]
		for {
			e.goOn()
			if e.s.gc.closed {
				return 0, fmt.Errorf("closed: %s", e.s.c.reason)
			}
			if left, err := unix.IoctlGetInt(e.s.gc.fd, unix.TIOCINQ); err != nil || left == 0 {
				break
			}
		}
	}
	return len(p), nil
}

func (e *stageEnd) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(e.s.peer, p)
		switch {
		case n > 0:
			return n, nil
		case n == 0 && err == nil:
			return 0, io.EOF
		}
		e.goOn()
	}
}

func (e *stageEnd) SetDeadline(time.Time) error      { return nil }
func (e *stageEnd) SetReadDeadline(time.Time) error  { return nil }
func (e *stageEnd) SetWriteDeadline(time.Time) error { return nil }
func (e *stageEnd) Close() error                     { return nil }

// stageTLS is a connection of a stage over which the handshake is done.
func stageTLS(t *testing.T, srv *Server, logs *observer.ObservedLogs, cut func(left int) int) (*stage, *stageEnd, *rawPeer) {
	t.Helper()
	logs.TakeAll()
	s := newStage(t, srv, logs)
	s.events.OnOpen(s.gc)
	end := &stageEnd{s: s, cut: cut}
	r := &running{Server: srv, t: t}
	return s, end, r.rawPeer(r.scribe(end), fmt.Sprintf("client %p", s))
}

// records does the handshake, and makes records of p, each of at most size bytes.
func (s *stage) records(p []byte, size int) []byte {
	end := &stageEnd{s: s, cut: func(left int) int { return left }}
	sc := (&running{Server: s.srv, t: s.t}).scribe(end)
	for s.c.phase != open {
		end.goOn()
	}
	return sc.content(p, size)
}

// Records come through in whatever pieces they arrive: by single bytes, and cut once at
// each place.
func TestRecordsCutAtEveryByte(t *testing.T) {
	srv, logs := stagesTLS(t)
	s, end, b := stageTLS(t, srv, logs, func(left int) int { return left })
	send := func(size int, cut func(left int) int) (written int) {
		t.Helper()
		end.cut = func(left int) int {
			written = max(written, left)
			return cut(left)
		}
		content := random(size)
		b.write(slices.Concat(b.packets("f", content, 20_000)...))
		b.received("f", content)
		return written
	}
	single := func(int) int { return 1 }
	send(100, single)
	send(50_000, single)
	if srv.loans == 0 && !waits {
		t.Error("nothing was lent")
	}
	for at, all := 1, 2; at < all; at++ {
		once := true
		all = send(100, func(left int) int {
			if once && left > at {
				once = false
				return at
			}
			return left
		})
	}
	s.end()
}

// The same for the handshake.
func TestHandshakesInPieces(t *testing.T) {
	srv, logs := stagesTLS(t)
	for _, size := range []int{1, 3, 100, 1000} {
		s, _, b := stageTLS(t, srv, logs, func(left int) int { return min(left, size) })
		content := random(100)
		b.write(slices.Concat(b.packets("f", content, 50)...))
		b.received("f", content)
		s.end()
	}
}

// What a client sends with the last of its handshake, and the FIN behind that, waits until
// the handshake is over: the client gets its reply.
func TestAFINDuringTheHandshake(t *testing.T) {
	if waits {
		t.Skip("where it cannot pause the server sees the FIN too early")
	}
	srv, logs := stagesTLS(t)
	over := make(chan struct{})
	config := srv.opts.TLS.Config
	srv.opts.TLS.Config = func() (*tls.Config, func(tls.ConnectionState) (session.Channel, error)) {
		cfg, channel := config()
		return cfg, func(cs tls.ConnectionState) (session.Channel, error) {
			<-over
			return channel(cs)
		}
	}
	s := newStage(t, srv, logs)
	s.events.OnOpen(s.gc)
	end := &stageEnd{s: s, cut: func(left int) int { return left }}
	sc := (&running{Server: srv, t: t}).scribe(end)
	s.say(sc.content(codec.Register{Name: []byte("in a hurry")}.Append(nil), maxPlaintext))
	_ = unix.Shutdown(s.peer, unix.SHUT_WR)
	for range 10 {
		end.goOn()
	}
	if s.c.phase != shaking {
		t.Errorf("phase %d", s.c.phase)
	}
	close(over)
	reply := make([]byte, codec.ResponseHeaderSize)
	if _, err := io.ReadFull(sc, reply); err != nil || bytes.Equal(reply, errorReply) {
		t.Errorf("% x, %v", reply, err)
	}
	s.end()
}

// stagesTLS is a server for them.
func stagesTLS(t *testing.T) (*Server, *observer.ObservedLogs) {
	t.Helper()
	once(t)
	srv, logs, _ := stages(t)
	srv.opts.TLS = protects(t)
	srv.opts.TLS.MaxCertificate = DefaultMaxCertificate
	return srv, logs
}
