package eventloop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/panjf2000/gnet/v2"
	gneterrors "github.com/panjf2000/gnet/v2/pkg/errors"
	"go.uber.org/zap"

	"sealift/codec"
	"sealift/session"
	"sealift/storage/memory"
)

// failing is a listener whose accept fails as a system call does, before the
// connection is taken, as long as next returns an error.
type failing struct {
	listener
	next func() error
}

func (l *failing) Accept() (net.Conn, error) {
	if err := l.next(); err != nil {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: os.NewSyscallError("accept4", err)}
	}
	return l.listener.Accept()
}

func failingAccept(next func() error) func(*Options, *session.Config) {
	return func(o *Options, _ *session.Config) {
		o.listener = func(l listener) listener { return &failing{l, next} }
	}
}

// times fails n times with err.
func times(n int64, err error) func() error {
	return func() error {
		if atomic.AddInt64(&n, -1) >= 0 {
			return err
		}
		return nil
	}
}

// Whatever accept says, the server goes on, and serves who comes next.
func TestErrorsOfAccept(t *testing.T) {
	for _, err := range []error{
		syscall.ENOBUFS, syscall.ENOMEM, syscall.EPROTO, syscall.EPERM, syscall.ECONNABORTED, syscall.ECONNRESET,
		syscall.EINVAL, syscall.ENETDOWN, syscall.EBADF, errors.New("something else"),
	} {
		t.Run(err.Error(), func(t *testing.T) {
			t.Parallel()
			r := start(t, failingAccept(times(3, err)))
			c := r.client("somebody")
			if _, err := c.Send(context.Background(), "f", bytes.NewReader([]byte("x")), 1); err != nil {
				t.Error(err)
			}
			if r.logs.FilterMessage("accepting a connection failed").Len() == 0 {
				t.Error("the log says nothing")
			}
		})
	}
}

// Without a descriptor left, who connects is told so at once, and those who are
// served are not disturbed.
func TestNoDescriptorLeft(t *testing.T) {
	for _, err := range []error{syscall.EMFILE, syscall.ENFILE} {
		t.Run(err.Error(), func(t *testing.T) {
			var none, given atomic.Bool // given: the spare descriptor is there for the next one
			r := start(t, failingAccept(func() error {
				if none.Load() && !given.Swap(false) {
					given.Store(true)
					return err
				}
				return nil
			}))
			served := r.client("served")
			none.Store(true)
			_ = r.tcp() // the accept that was under way when the last descriptor went
			for range 5 {
				if got := readAll(t, r.tcp()); !bytes.Equal(got, errorReply) {
					t.Fatalf("got % x, want a 1607", got)
				}
			}
			if _, err := served.Send(context.Background(), "f", bytes.NewReader([]byte("x")), 1); err != nil {
				t.Errorf("a connection that was served is disturbed: %v", err)
			}
			none.Store(false)
			for {
				c, err := r.dial("afterwards")
				if err == nil {
					_ = c.Close()
					return
				}
				if !refused(err) { // taken with the spare one, for the last time
					t.Fatal(err)
				}
			}
		})
	}
}

// An accept that fails all the time keeps nobody from ending the server.
func TestDrainWhileAcceptFails(t *testing.T) {
	r := start(t, failingAccept(times(1<<60, syscall.ENOBUFS)))
	r.stop()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

// However many connect meanwhile, a server that has nothing to do ends. Who had
// connected before it stopped listening gets a 1607.
func TestDrainWhileOthersKnock(t *testing.T) {
	r := start(t, func(o *Options, _ *session.Config) { o.Loops, o.DrainTimeout = 8, time.Second })
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for { // until nobody listens any more
				nc, err := net.Dial("tcp", r.Addr().String())
				if err != nil {
					return
				}
				_ = nc.Close()
			}
		})
	}
	r.stop()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

// What waits to be accepted when the drain begins is refused, not reset.
func TestTheBacklogIsRefused(t *testing.T) {
	held := make(chan struct{})
	r := start(t, failingAccept(func() error {
		<-held
		return nil
	}))
	waiting := make([]net.Conn, 3*maxRefused)
	for i := range waiting {
		waiting[i] = r.tcp()
	}
	r.stop()
	for !r.draining.Load() {
		time.Sleep(time.Millisecond) // no event tells that the drain has begun
	}
	close(held)
	for _, nc := range waiting {
		if got := readAll(t, nc); !bytes.Equal(got, errorReply) {
			t.Fatalf("got % x, want a 1607", got)
		}
		_ = nc.Close()
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

// Two servers that start at one moment cannot have one port.
func TestTwoServersAtOneMoment(t *testing.T) {
	first, _ := bare(t, func(*Options) {})
	opts := first.opts
	opts.Addr = first.Addr().String()
	if _, err := New(opts); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second server on the port: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	second, err := New(opts)
	if err != nil {
		t.Fatalf("after the first has gone: %v", err)
	}
	_ = second.Close()
}

// Who connects before the server runs waits for it, and is served then.
func TestNothingIsServedBeforeRun(t *testing.T) {
	srv, done := bare(t, func(*Options) {})
	early := srv.dialTCP(t)
	_, _ = early.Write(codec.Register{Name: []byte("x")}.Append(nil))
	ctx, stop := context.WithCancel(context.Background())
	go func() { done <- srv.Run(ctx) }()
	if _, err := io.ReadFull(early, make([]byte, codec.ResponseHeaderSize)); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A connection that no loop took is taken off the count again.
func TestAConnectionThatNoLoopTakes(t *testing.T) {
	var tries atomic.Int64
	r := start(t, func(o *Options, _ *session.Config) {
		o.MaxConnections = 2
		o.enroll = func(enroll enroll) enroll {
			return func(nc net.Conn, ctx any) (gnet.Conn, error) {
				switch tries.Add(1) {
				case 1, 3, 5:
					return nil, errors.New("no")
				case 2, 4:
					return nil, nc.Close() // as gnet does when its poller does not take it
				}
				return enroll(nc, ctx)
			}
		}
	})
	for range 5 {
		nc := r.tcp()
		readAll(t, nc)
		for r.census.count() > 0 {
			time.Sleep(time.Millisecond) // it goes down after the connection has closed
		}
	}
	_, _ = r.client("one"), r.client("two")
}

// bare is a server that has nobody to look after it.
func bare(t *testing.T, change func(*Options)) (*Server, chan error) {
	t.Helper()
	opts := Options{
		Addr: "127.0.0.1:0", Log: zap.NewNop(),
		Service: session.NewService(session.Config{Registry: memory.New(), Log: zap.NewNop()}),
	}
	change(&opts)
	srv, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return srv, make(chan error, 1)
}

func (s *Server) dialTCP(t *testing.T) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return nc
}

// A server whose loop has ended, or does not answer, ends, with an error unless it
// drains.
func TestALoopThatDoesNotAnswer(t *testing.T) {
	block := make(chan struct{})
	t.Cleanup(func() { close(block) })
	for name, spoil := range map[string]gnet.RunnableFunc{
		"ended":   func(context.Context) error { return gneterrors.ErrEngineShutdown },
		"blocked": func(context.Context) error { <-block; return nil },
	} {
		for _, draining := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, draining: %v", name, draining), func(t *testing.T) {
				srv, done := bare(t, func(o *Options) { o.tick, o.Loops = 50*time.Millisecond, 1 })
				ctx, stop := context.WithCancel(context.Background())
				defer stop()
				go func() { done <- srv.Run(ctx) }()
				srv.dialTCP(t)
				for known := false; !known; {
					select {
					case err := <-done:
						t.Fatalf("Run: %v", err)
					default:
					}
					srv.mu.Lock()
					for el := range srv.loops {
						known = true
						if err := el.Execute(ctx, spoil); err != nil {
							t.Error(err)
						}
					}
					srv.mu.Unlock()
				}
				if draining {
					stop()
				}
				// A loop that ends closes its connections: then a drain has what it waits for.
				if err := <-done; err == nil && !draining {
					t.Error("Run returned nil")
				}
			})
		}
	}
}

// An enrolment that never ends is noticed also where there is no other
// connection.
func TestAnEnrolmentThatNeverEnds(t *testing.T) {
	block := make(chan struct{})
	t.Cleanup(func() { close(block) })
	srv, done := bare(t, func(o *Options) {
		o.tick = time.Millisecond
		o.enroll = func(enroll) enroll {
			return func(net.Conn, any) (gnet.Conn, error) { <-block; return nil, nil }
		}
	})
	go func() { done <- srv.Run(context.Background()) }()
	srv.dialTCP(t)
	if err := <-done; err == nil {
		t.Error("Run returned nil")
	}
}
