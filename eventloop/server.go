package eventloop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"go.uber.org/zap"

	"sealift/session"
)

// Server receives files over TCP. Make one with [New], and [Server.Run] it
// once.
type Server struct {
	gnet.BuiltinEventEngine
	opts    Options
	addr    *net.TCPAddr
	engine  gnet.Engine
	ready   chan struct{}
	isReady sync.Once
	budget  *budget
	lanes   [2]*lane // by session.Lane
	reads   *batcher // of operations that need no commit
	writes  *batcher

	ctx      context.Context // of work; ends when waiting is over
	giveUp   context.CancelFunc
	draining atomic.Bool

	mu      sync.Mutex
	changed sync.Cond // open or pending went down to 0
	loops   map[gnet.EventLoop]*loop
	open    int // connections, those that linger and are refused too
	served  int // connections, without the refused ones
	pending int // pieces of work whose done has not run
	perIP   map[netip.Addr]int
	turned  int       // connections refused since that was last logged
	told    time.Time // when that was
}

// New checks opts and finds a port. Nothing is accepted before Run.
func New(opts Options) (*Server, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	addr, err := reserve(opts.Addr)
	if err != nil {
		return nil, err
	}
	s := &Server{
		opts: opts, addr: addr, ready: make(chan struct{}),
		budget: newBudget(opts.MemoryBudget),
		reads:  &batcher{reg: opts.Registry},
		writes: &batcher{reg: opts.Registry},
		loops:  make(map[gnet.EventLoop]*loop),
		perIP:  make(map[netip.Addr]int),
	}
	s.changed.L = &s.mu
	s.lanes[session.Compute] = &lane{size: max(2, opts.Workers/4)}
	s.lanes[session.Storage] = &lane{size: opts.Workers}
	s.ctx, s.giveUp = context.WithCancel(context.Background())
	return s, nil
}

// reserve finds out which port addr means, and that nobody else listens there:
// each event loop listens for itself, on the same port, and the kernel would
// let another server of the same user do so too.
func reserve(addr string) (*net.TCPAddr, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr), nil
}

// Addr is where the server listens, with the port that it found.
func (s *Server) Addr() *net.TCPAddr { return s.addr }

// Ready is closed when the server accepts connections.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Run serves until ctx ends. Then it takes no new connection and no new
// transfer, waits up to DrainTimeout for the transfers that are under way, cuts
// the rest, removes what these left, and returns nil. Any other way of ending
// is an error.
func (s *Server) Run(ctx context.Context) error {
	stopped := make(chan error, 1)
	drained := make(chan struct{})
	go func() { // gnet.Run returns when the engine has stopped
		stopped <- gnet.Run(s, "tcp://"+net.JoinHostPort(hostOf(s.opts.Addr), strconv.Itoa(s.addr.Port)),
			gnet.WithReusePort(true), gnet.WithReuseAddr(true), gnet.WithNumEventLoop(s.opts.Loops), gnet.WithTicker(true),
			gnet.WithReadBufferCap(readBuffer),
			gnet.WithTCPKeepAlive(time.Minute), gnet.WithLogger(gnetLog{s.opts.Log.Sugar()}))
	}()
	go func() {
		select {
		case <-ctx.Done():
		case <-drained:
			return
		}
		<-s.ready
		s.drain()
		close(drained)
		_ = s.engine.Stop(context.Background())
	}()
	err := <-stopped
	s.giveUp()
	select {
	case <-drained:
		return err
	default:
		close(drained)
		if err == nil {
			err = errors.New("the event loops ended unasked")
		}
		return err
	}
}

// hostOf is the host part of an address, which may be empty.
func hostOf(addr string) string {
	host, _, _ := net.SplitHostPort(addr)
	return host
}

// drain lets the transfers under way finish, and cuts what is left of them when
// the time is over.
func (s *Server) drain() {
	s.draining.Store(true)
	s.opts.Log.Info("draining", zap.Int("connections", s.count(&s.served)), zap.Duration("timeout", s.opts.DrainTimeout))
	s.each(func(c *conn) {
		c.sess.Drain()
		c.pump()
	})
	cut := time.AfterFunc(s.opts.DrainTimeout, func() {
		s.opts.Log.Warn("drain timeout: cutting what is left", zap.Int("connections", s.count(&s.served)))
		s.each(func(c *conn) { c.close("cut off: the server is going down") })
		time.AfterFunc(cleanupTime, s.giveUp)
	})
	defer cut.Stop()
	s.mu.Lock()
	for s.open > 0 || s.pending > 0 {
		s.changed.Wait()
	}
	s.mu.Unlock()
}

// cleanupTime is how long work may go on after the connections have been cut.
const cleanupTime = 10 * time.Second

// each runs f on every connection, on its loop.
func (s *Server) each(f func(*conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, lp := range s.loops {
		lp.post(func() {
			for c := range lp.conns {
				lp.guard(c, func() { f(c) })
			}
		})
	}
}

func (s *Server) count(n *int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *n
}

func (s *Server) now() time.Time { return time.Now() }

// begin and finish count the work whose result a session waits for.
func (s *Server) begin() {
	s.mu.Lock()
	s.pending++
	s.mu.Unlock()
}

func (s *Server) finish() {
	s.mu.Lock()
	s.pending--
	if s.pending == 0 {
		s.changed.Broadcast()
	}
	s.mu.Unlock()
}

// work runs f on a worker. A panic is logged; the session sees no result.
func (s *Server) work(f func(context.Context)) {
	defer func() {
		if p := recover(); p != nil {
			s.opts.Log.Error("panic in a worker", zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
		}
	}()
	f(s.ctx)
}

// The rest is gnet.EventHandler. gnet calls it on the loop of the connection.

// OnBoot implements [gnet.EventHandler].
func (s *Server) OnBoot(e gnet.Engine) gnet.Action {
	s.engine = e
	return gnet.None
}

// tickTime is how often timers are looked at.
const tickTime = 500 * time.Millisecond

// OnTick implements [gnet.EventHandler]. It runs on a goroutine of its own, for
// the first time when the loops run.
func (s *Server) OnTick() (time.Duration, gnet.Action) {
	s.isReady.Do(func() { close(s.ready) })
	s.budget.trim()
	now := s.now()
	s.mu.Lock()
	turned := s.turned
	if turned > 0 && now.Sub(s.told) >= time.Second {
		s.turned, s.told = 0, now
	} else {
		turned = 0
	}
	for _, lp := range s.loops {
		lp.post(func() { lp.tick(now) })
	}
	s.mu.Unlock()
	if turned > 0 {
		s.opts.Log.Warn("connections refused", zap.Int("count", turned), zap.Int("limit", s.opts.MaxConnections),
			zap.Int("limit per address", s.opts.MaxPerIP))
	}
	return tickTime, gnet.None
}

// OnOpen implements [gnet.EventHandler].
func (s *Server) OnOpen(gc gnet.Conn) ([]byte, gnet.Action) {
	now := s.now()
	c := &conn{lp: s.loopOf(gc), gc: gc, remote: gc.RemoteAddr().String(), ip: ipOf(gc.RemoteAddr()), opened: now, read: now}
	gc.SetContext(c)
	verdict := s.admit(c)
	c.lp.conns[c] = struct{}{}
	c.lp.poll.find(gc.Fd())
	c.sess = session.New(s.opts.Service, c, c.remote)
	if verdict == nil {
		return nil, gnet.None
	}
	c.refused = true
	c.reason = verdict.Error()
	if errors.Is(verdict, errNoRoom) {
		return nil, gnet.Close
	}
	if _, err := gc.Write(errorReply); err == nil {
		c.linger()
	}
	return nil, gnet.None
}

var (
	errTooMany = errors.New("too many connections")
	errNoRoom  = errors.New("too many connections are being refused")
	errGoing   = errors.New("the server is going down")
)

// admit counts a new connection and says whether it is served.
func (s *Server) admit(c *conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open++
	s.perIP[c.ip]++
	switch full := s.served >= s.opts.MaxConnections || s.opts.MaxPerIP > 0 && s.perIP[c.ip] > s.opts.MaxPerIP; {
	case s.draining.Load():
		return errGoing
	case !full:
		s.served++
		return nil
	}
	s.turned++
	if s.open-s.served > maxRefused {
		return errNoRoom
	}
	return errTooMany
}

// OnClose implements [gnet.EventHandler].
func (s *Server) OnClose(gc gnet.Conn, err error) gnet.Action {
	c, _ := gc.Context().(*conn)
	if c == nil || c.gc == nil {
		return gnet.None
	}
	c.gc = nil
	delete(c.lp.conns, c)
	c.lp.guard(c, c.sess.Closed)
	s.budget.leave(c)
	if !c.refused {
		reason := c.reason
		if reason == "" {
			reason = "by the client"
		}
		s.opts.Log.Info("connection closed", append(c.sess.Summary(), zap.String("reason", reason))...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open--; s.open == 0 {
		s.changed.Broadcast()
	}
	if !c.refused {
		s.served--
	}
	if s.perIP[c.ip]--; s.perIP[c.ip] == 0 {
		delete(s.perIP, c.ip)
	}
	return gnet.None
}

// OnTraffic implements [gnet.EventHandler].
func (s *Server) OnTraffic(gc gnet.Conn) gnet.Action {
	c, _ := gc.Context().(*conn)
	if c == nil {
		return gnet.None
	}
	c.paused = false // or there were no traffic: gnet re-arms a connection that it has written to
	c.lp.guard(c, func() {
		c.pump()
		for c.gc != nil && c.blocked && !c.lp.poll.works() {
			// What the session leaves, gnet would keep without bound. Where nothing
			// stops the sender, the loop waits until the session can take it.
			c.lp.waitTasks()
		}
	})
	return gnet.None
}

func (s *Server) loopOf(gc gnet.Conn) *loop {
	el := gc.EventLoop()
	s.mu.Lock()
	defer s.mu.Unlock()
	lp := s.loops[el]
	if lp == nil {
		lp = newLoop(s, el)
		lp.poll.disabled = s.opts.noPause
		s.loops[el] = lp
	}
	return lp
}

func ipOf(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		ip, _ := netip.AddrFromSlice(t.IP)
		return ip.Unmap()
	}
	return netip.Addr{}
}

// gnetLog passes on what gnet has to say, its news only to those who debug.
type gnetLog struct{ *zap.SugaredLogger }

// Infof implements gnet's Logger.
func (l gnetLog) Infof(format string, args ...any) { l.Debugf(format, args...) }
