package eventloop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/panjf2000/gnet/v2"
	"go.uber.org/zap"
)

// listener is where connections come from: a [net.TCPListener], or one that a
// test has put in front of it.
type listener interface {
	net.Listener
	SetDeadline(time.Time) error
}

// listen opens a port that no other process shares. Its connections find out
// after two minutes that their peer's machine is gone.
func listen(addr string) (*net.TCPListener, error) {
	var lc net.ListenConfig
	setKeepAlive(&lc, net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 12 * time.Second, Count: 5})
	lc.SetMultipathTCP(false) // no client asks for it, and it costs each connection
	l, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	return l.(*net.TCPListener), nil
}

const (
	// maxEnrolling is how many accepted connections may be on their way to a loop
	// at a time. Each has two descriptors meanwhile.
	maxEnrolling = 8
	// loopPatience is how many ticks a loop may take to answer: 10 s. Ticks are
	// counted, not time, because a process that was stopped for a while has not
	// been kept waiting by its loops.
	loopPatience = 20
	// maxAcceptPause is the longest that an error of accept is waited out.
	maxAcceptPause = time.Second
	// lastCall is how long a draining server waits for the next connection of the
	// backlog, to refuse it; mostCalls bounds that for all of them together.
	lastCall  = 20 * time.Millisecond
	mostCalls = time.Second
	// spareTime is how long accept may take for a connection that is there.
	spareTime = 100 * time.Millisecond
)

// enroll has a loop take a connection and returns when OnOpen has run, which finds
// ctx in the connection's context. It returns nil also where the loop could not
// take it and OnOpen has not run. It closes nc but for some errors.
type enroll func(nc net.Conn, ctx any) (gnet.Conn, error)

// acceptor takes connections from the listener, one at a time, and hands those
// that are admitted to a loop. Unlike gnet's own it outlives every error of
// accept, refuses without a loop's help, and answers when there is no descriptor
// left. It runs on a goroutine of its own.
type acceptor struct {
	srv    *Server
	l      listener
	enroll enroll
	quit   chan struct{} // closed by fail
	done   chan struct{} // closed when the acceptor has ended
	spare  *os.File      // keeps a descriptor free, see answerWithSpare; or nil

	admitted chan admission             // from run to the goroutines of handOver
	ended    chan struct{}              // one for each of these that has ended
	began    [maxEnrolling]atomic.Int64 // the tick in which their enrolments began, from 1; 0: none

	refusing chan struct{}  // holds one for each connection that waits for its 1607 to arrive
	refused  sync.WaitGroup // these

	mu    sync.Mutex
	until time.Time // when accepting ends, once the server drains
}

// admission is a connection on its way to a loop.
type admission struct {
	nc net.Conn
	c  *conn
}

func newAcceptor(srv *Server, l listener, enroll enroll) *acceptor {
	a := &acceptor{
		srv: srv, l: l, enroll: enroll,
		quit: make(chan struct{}), done: make(chan struct{}),
		admitted: make(chan admission), ended: make(chan struct{}, maxEnrolling),
		refusing: make(chan struct{}, maxRefused),
	}
	a.spare, _ = os.Open(os.DevNull)
	return a
}

// drain makes the acceptor end: what waits to be accepted is refused, and the
// listener closed. Any goroutine may call it, once srv.draining is set.
func (a *acceptor) drain() {
	a.mu.Lock()
	a.until = time.Now().Add(mostCalls)
	a.mu.Unlock()
	a.deadline(lastCall)
}

// fail makes the acceptor end at once: the server has failed.
func (a *acceptor) fail() {
	close(a.quit)
	_ = a.l.Close()
}

// deadline bounds the next accept by d, if that is not 0, and by the end of a
// drain.
func (a *acceptor) deadline(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.until
	if d > 0 {
		if soon := time.Now().Add(d); t.IsZero() || soon.Before(t) {
			t = soon
		}
	}
	_ = a.l.SetDeadline(t)
}

// ending reports whether the server drains, and over whether the acceptor has to
// end now.
func (a *acceptor) ending() (draining, over bool) {
	select {
	case <-a.quit:
		return true, true
	default:
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.until.IsZero(), !a.until.IsZero() && time.Now().After(a.until)
}

func (a *acceptor) run() {
	defer close(a.done)
	defer func() {
		_ = a.l.Close()
		if a.spare != nil {
			_ = a.spare.Close()
		}
		close(a.admitted)
		for range maxEnrolling { // until all that was accepted has reached its loop
			select {
			case <-a.ended:
			case <-a.quit:
				return
			}
		}
	}()
	for i := range a.began {
		go a.handOver(&a.began[i])
	}
	var trouble trouble
	for {
		draining, over := a.ending()
		if over {
			return
		}
		if draining {
			a.deadline(lastCall)
		}
		nc, err := a.l.Accept()
		switch {
		case err == nil:
			trouble.pause = 0
			a.take(nc)
		case noDescriptor(err) && a.answerWithSpare():
			trouble.report(a.srv.opts.Log, err)
		case errors.Is(err, os.ErrDeadlineExceeded) && !draining: // the drain begins
		case draining: // the backlog is empty
			return
		case errors.Is(err, net.ErrClosed):
			a.srv.fail(err)
			return
		default:
			trouble.report(a.srv.opts.Log, err)
			trouble.wait(a.quit)
		}
	}
}

// trouble counts accept's errors.
type trouble struct {
	pause time.Duration // until the next try
	told  time.Time     // of the last line in the log
	count int           // of errors since
}

// wait waits, longer each time until pause is set back, or until quit is closed.
func (t *trouble) wait(quit <-chan struct{}) {
	t.pause = min(max(2*t.pause, time.Millisecond), maxAcceptPause)
	select {
	case <-time.After(t.pause):
	case <-quit:
	}
}

// report logs errors of accept, one line a second at most.
func (t *trouble) report(log *zap.Logger, err error) {
	t.count++
	if now := time.Now(); now.Sub(t.told) >= time.Second {
		log.Error("accepting a connection failed", zap.Error(err), zap.Int("count", t.count))
		t.told, t.count = now, 0
	}
}

func noDescriptor(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// answerWithSpare refuses the next connection, for which there is no descriptor, with
// the spare one. It returns false if it could not.
func (a *acceptor) answerWithSpare() bool {
	if a.spare == nil {
		a.spare, _ = os.Open(os.DevNull)
		return false
	}
	_ = a.spare.Close()
	a.deadline(spareTime) // the client may have left
	nc, err := a.l.Accept()
	a.deadline(0)
	if err == nil {
		a.srv.census.countRefused()
		_, _ = nc.Write(errorReply)
		_ = nc.Close()
	}
	a.spare, _ = os.Open(os.DevNull)
	return err == nil
}

// take admits a connection or refuses it. nc is its own from then on.
func (a *acceptor) take(nc net.Conn) {
	defer func() {
		if p := recover(); p != nil {
			a.srv.opts.Log.Error("panic", zap.String("remote", fmt.Sprint(nc.RemoteAddr())), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
			_ = nc.Close()
		}
	}()
	remote, ok := nc.RemoteAddr().(*net.TCPAddr)
	if !ok { // it has left already, and some systems do not tell who it was
		_ = nc.Close()
		return
	}
	c := newConn(remote)
	c.via = a.srv.limits.Load().via(remote)
	if !a.srv.admit(c) {
		a.refuse(nc)
		return
	}
	select {
	case a.admitted <- admission{nc, c}:
	case <-a.quit:
		_ = nc.Close()
		a.srv.leave(c)
	}
}

// handOver has loops take the connections that were admitted, one after the other, until no
// more come. It keeps its goroutine, since the stack of a new one would grow for each.
func (a *acceptor) handOver(began *atomic.Int64) {
	defer func() { a.ended <- struct{}{} }()
	for n := range a.admitted {
		a.handOne(n.nc, n.c, began)
	}
}

// handOne has a loop take the connection, and takes it off the count if none
// did. A loop that never answers is noticed by stuck.
func (a *acceptor) handOne(nc net.Conn, c *conn, began *atomic.Int64) {
	defer func() {
		if p := recover(); p != nil {
			a.srv.opts.Log.Error("panic", zap.String("remote", c.remote), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
			_ = nc.Close()
		}
		if c.lp == nil {
			a.srv.leave(c)
		}
		began.Store(0)
	}()
	began.Store(a.srv.ticks.Load() + 1)
	forgetZone(nc.LocalAddr())
	forgetZone(nc.RemoteAddr())
	_, err := a.enroll(nc, c)
	switch {
	case err != nil:
		_ = nc.Close()
		a.srv.opts.Log.Error("handing a connection to a loop failed", zap.String("remote", c.remote), zap.Error(err))
	case c.lp == nil:
		a.srv.opts.Log.Error("handing a connection to a loop failed", zap.String("remote", c.remote))
	}
}

// forgetZone empties the zone of an address. gnet gives the bytes of that string
// to a pool of buffers when the connection closes, and they are not its own.
func forgetZone(a net.Addr) {
	if t, ok := a.(*net.TCPAddr); ok {
		t.Zone = ""
	}
}

// stuck reports whether an enrolment takes longer than a loop may.
func (a *acceptor) stuck(tick int64) bool {
	for i := range a.began {
		if began := a.began[i].Load(); began > 0 && tick-began >= a.srv.opts.patience {
			return true
		}
	}
	return false
}

// refuse sends a connection its 1607, which always fits into the buffer of a new one,
// and closes it. If it were closed with unread data, the kernel would send a reset and
// destroy the reply on its way: so up to maxRefused of them linger before.
func (a *acceptor) refuse(nc net.Conn) {
	_, err := nc.Write(errorReply)
	half, ok := nc.(interface{ CloseWrite() error })
	if err != nil || !ok {
		_ = nc.Close()
		return
	}
	select {
	case a.refusing <- struct{}{}:
	default:
		_ = nc.Close()
		return
	}
	a.refused.Go(func() {
		defer func() { <-a.refusing }()
		defer nc.Close()
		if half.CloseWrite() != nil || nc.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
			return
		}
		for b := make([]byte, 512); ; {
			if _, err := nc.Read(b); err != nil {
				return
			}
		}
	})
}

// settle waits, for a short time, until the clients that are being refused have left.
func (a *acceptor) settle() {
	left := make(chan struct{})
	go func() {
		a.refused.Wait()
		close(left)
	}()
	select {
	case <-left:
	case <-time.After(lingerTime / 4):
	}
}
