package eventloop

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"go.uber.org/zap"

	"sealift/session"
)

// Server receives files over TCP. Make one with [New], and [Server.Run] it
// once, or [Server.Close] it.
type Server struct {
	opts     Options // but for Limits, which are in limits
	limits   atomic.Pointer[Limits]
	pacer    atomic.Pointer[pacer] // nil: clients send as much as they like
	listener listener
	acceptor *acceptor
	ready    chan struct{}
	census   *census
	budget   *budget
	lanes    [2]*lane                             // by session.Lane
	bulk     *lane                                // of connections that are lent
	slots    int                                  // how many of these are worked on at once while no small work is under way
	small    atomic.Int64                         // work in lanes and operations for the registry that clients wait for
	submit   func(session.Operation, func(error)) // to the queue in front of the registry
	ticks    atomic.Int64                         // so far

	phases      phases // of connections
	handshakes  *handshakes
	sealed      atomic.Int64 // bytes that protected connections take, about
	maxSealed   atomic.Int64 // above that idle ones are closed, and no handshake begins
	unprotected tally        // plain connections refused
	// unintroduced are connections refused because of their PROXY header.
	unintroduced tally
	unshaken     tally         // handshakes that failed
	shaken       atomic.Uint64 // handshakes that went well
	protected    atomic.Int64  // connections over TLS, after that

	ctx      context.Context // of work; ends when the server gives up waiting for it
	giveUp   context.CancelFunc
	draining atomic.Bool
	broken   chan struct{} // closed when the server cannot go on; failure says why

	mu      sync.Mutex
	changed sync.Cond // pending or lent went down to 0, or failure is set
	loops   map[gnet.EventLoop]*loop
	pending int // connections, and pieces of work whose done has not run
	lent    int // connections that are lent
	loans   int // so far
	failure error
}

// New checks opts and begins to listen. Clients that connect wait until Run accepts
// them.
func New(opts Options) (*Server, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	l := opts.Listener
	if l == nil {
		var err error
		if l, err = listen(opts.Addr); err != nil {
			return nil, err
		}
	}
	slots := 0
	if canPause && !opts.noPause {
		slots = slotsFor(opts.MemoryBudget)
	}
	s := &Server{
		opts: opts, listener: l, ready: make(chan struct{}), broken: make(chan struct{}),
		census: newCensus(),
		budget: newBudget(opts.MemoryBudget, slots),
		bulk:   newLane(slots), slots: slots,
		handshakes: newHandshakes(),
		loops:      make(map[gnet.EventLoop]*loop),
	}
	s.Limit(opts.Limits)
	if opts.listener != nil {
		s.listener = opts.listener(l)
	}
	s.changed.L = &s.mu
	s.lanes[session.Compute] = newLane(max(2, opts.Workers/4))
	s.lanes[session.Storage] = newLane(opts.Workers)
	s.ctx, s.giveUp = context.WithCancel(context.Background())
	s.submit = opts.Service.Queue(s.ctx)
	return s, nil
}

// Addr is where the server listens, with the port that it found.
func (s *Server) Addr() *net.TCPAddr { return s.listener.Addr().(*net.TCPAddr) }

// Ready returns a channel that is closed when the server accepts connections.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Submit puts op into a batch for the registry, with what the sessions want of it. done is
// called as [session.Service.Queue] says.
func (s *Server) Submit(op session.Operation, done func(error)) { s.submit(op, done) }

// Close stops listening. It is for a server that is never run.
func (s *Server) Close() error { return s.listener.Close() }

// Run serves until ctx ends. Then it takes no new connection and no new
// transfer, waits up to DrainTimeout for the transfers that are under way, cuts
// the rest, removes what these left, and returns nil. Any other way of ending
// is an error, after which the process should end too: a loop that does not
// answer is left behind.
func (s *Server) Run(ctx context.Context) error {
	client, err := gnet.NewClient(&events{srv: s},
		gnet.WithNumEventLoop(s.opts.Loops), gnet.WithReadBufferCap(readBuffer),
		gnet.WithTCPNoDelay(gnet.TCPDelay), // leave it: connections come with TCP_NODELAY, and keep-alive
		gnet.WithLogger(gnetLog{s.opts.Log.Sugar()}))
	if err == nil {
		err = client.Start()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("starting the event loops: %w", err), s.listener.Close())
	}
	enroll := enroll(client.EnrollContext)
	if s.opts.enroll != nil {
		enroll = s.opts.enroll(enroll)
	}
	s.acceptor = newAcceptor(s, s.listener, enroll)
	go s.acceptor.run()
	defer s.opts.Service.End()
	stopTicks := s.startTicks()
	close(s.ready)
	select {
	case <-ctx.Done():
		s.drain()
	case <-s.broken:
	}
	s.giveUp()
	stopTicks()
	return s.stop(client)
}

// stop ends the loops. No goroutine wakes one afterwards.
func (s *Server) stop(client *gnet.Client) error {
	s.mu.Lock()
	failure := s.failure
	loops := slices.Collect(maps.Values(s.loops))
	s.mu.Unlock()
	if failure != nil {
		s.acceptor.fail()
	}
	<-s.acceptor.done
	s.acceptor.settle()
	s.awaitLoans()
	for _, lp := range loops {
		lp.stop()
	}
	stopped := make(chan error, 1)
	go func() { stopped <- client.Stop() }()
	select {
	case err := <-stopped:
		return errors.Join(failure, err)
	case <-time.After(stopTime):
		return cmp.Or(failure, errors.New("an event loop does not stop"))
	}
}

// stopTime is how long the loops may take to stop, with nothing else to do.
const stopTime = time.Second

// fail ends the server: Run returns err, the first if there are several. Any
// goroutine may call it.
func (s *Server) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == nil {
		s.failure = err
		close(s.broken)
		s.changed.Broadcast()
	}
}

// drain lets the transfers under way finish, and cuts what is left of them after
// DrainTimeout.
func (s *Server) drain() {
	s.draining.Store(true)
	timeout := s.limits.Load().DrainTimeout
	s.opts.Log.Info("draining", zap.Int("connections", s.census.count()), zap.Duration("timeout_seconds", timeout))
	s.acceptor.drain()
	s.each((*conn).drain)
	cut := time.AfterFunc(timeout, func() {
		s.opts.Log.Warn("drain timeout: cutting what is left", zap.Int("connections", s.census.count()))
		s.each(func(c *conn) { c.close("cut off: the server is going down") })
		time.AfterFunc(cleanupTime, s.giveUp)
	})
	defer cut.Stop()
	select { // no connection is admitted after that
	case <-s.acceptor.done:
	case <-s.broken:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.pending > 0 && s.failure == nil {
		s.changed.Wait()
	}
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
				c.run(func() { f(c) })
			}
		})
	}
}

func (s *Server) now() time.Time { return time.Now() }

// begin and finish count what the end of the server waits for: connections, and
// work whose result a session waits for.
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

// work runs f, a job of a session. A panic is logged, and the session sees no result.
func (s *Server) work(f func(context.Context)) {
	defer func() {
		if p := recover(); p != nil {
			s.opts.Log.Error("panic in a worker", zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
		}
	}()
	f(s.ctx)
}

// admit counts a new connection if it is to be served, and ends another if that
// has to make room for it.
func (s *Server) admit(c *conn) bool {
	if s.draining.Load() {
		return false
	}
	if c.via == byProxy {
		return s.await(c)
	}
	ok, victim := s.census.enter(c, s.now())
	if ok {
		s.begin()
	}
	if victim != nil {
		victim.post(func() { victim.close("made room: too slow") })
	}
	return ok
}

// await is admit for a connection whose header has to come.
func (s *Server) await(c *conn) bool {
	ok, victim := s.census.await(c)
	if ok {
		s.begin()
	}
	if victim != nil {
		victim.post(victim.makeWay)
	}
	return ok
}

// leave takes off the count what admit has counted.
func (s *Server) leave(c *conn) {
	s.census.leave(c)
	s.finish()
}
