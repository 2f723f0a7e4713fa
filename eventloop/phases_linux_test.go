package eventloop

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/panjf2000/gnet/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"sealift/codec"
	"sealift/session"
	"sealift/storage/files"
)

// stage is a server with one connection and no goroutine for its loop: the test says
// when the loop looks at its epoll, when it runs tasks, and when a worker has its turn.
// Socket and epoll are real; stage does with them what gnet does.
type stage struct {
	gnet.EventLoop
	t      *testing.T
	srv    *Server
	events *events
	logs   *observer.ObservedLogs
	epoll  int
	peer   int // the client's end of the socket
	gc     *stageConn
	c      *conn

	ending bool // gnet closes connections whoever has them

	mu    sync.Mutex
	tasks []gnet.Runnable
	notes int // that have run
}

// stageConn is a connection as gnet keeps it.
type stageConn struct {
	gnet.Conn
	s      *stage
	fd     int
	in     []byte // that the handler left
	unsent []byte
	full   bool // the socket takes nothing
	closed bool
}

func (g *stageConn) Context() any              { return g.s.c }
func (g *stageConn) EventLoop() gnet.EventLoop { return g.s }
func (g *stageConn) Fd() int                   { return g.fd }
func (g *stageConn) OutboundBuffered() int     { return len(g.unsent) }
func (g *stageConn) Peek(int) ([]byte, error)  { return g.in, nil }

func (g *stageConn) Discard(n int) (int, error) {
	if n <= 0 || n > len(g.in) {
		n = len(g.in)
	}
	g.in = g.in[n:]
	return n, nil
}

func (g *stageConn) Write(p []byte) (int, error) {
	if g.closed {
		g.s.t.Error("a closed connection is written to")
	}
	if g.s.c.lent() {
		g.s.t.Error("a connection that is lent is written to")
	}
	if g.full {
		g.unsent = append(g.unsent, p...)
		g.s.c.lp.poll.arm(g.fd, true, true)
		return len(p), nil
	}
	if _, err := unix.Write(g.fd, p); err != nil {
		_ = g.s.Close(g)
		return 0, err
	}
	return len(p), nil
}

func (s *stage) Execute(_ context.Context, r gnet.Runnable) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tasks = append(s.tasks, r)
	return nil
}

func (s *stage) Close(gnet.Conn) error {
	if s.gc.closed {
		return nil
	}
	if s.c.lent() && !s.ending {
		s.t.Error("a connection that is lent is closed")
	}
	s.gc.closed = true
	s.events.OnClose(s.gc, nil)
	return unix.Close(s.gc.fd)
}

// newStage has a connection that no loop has taken yet.
func newStage(t *testing.T, srv *Server, logs *observer.ObservedLogs) *stage {
	s := &stage{t: t, srv: srv, logs: logs, events: &events{srv: srv}}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err == nil {
		s.epoll, err = unix.EpollCreate1(0)
	}
	if err == nil {
		err = unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, pair[0], &unix.EpollEvent{Fd: int32(pair[0]), Events: unix.EPOLLIN})
	}
	if err != nil {
		t.Fatal(err)
	}
	s.peer = pair[1]
	s.gc = &stageConn{s: s, fd: pair[0]}
	s.c = newConn(&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1})
	if !srv.admit(s.c) {
		t.Fatal("not admitted")
	}
	return s
}

// opened has the loop take the connection, and find out that it is a plain one.
func (s *stage) opened() {
	s.events.OnOpen(s.gc)
	s.c.welcome(open)
}

// poll does what comes from the epoll, as gnet does.
func (s *stage) poll() {
	var list [1]unix.EpollEvent
	if n, err := unix.EpollWait(s.epoll, list[:], 0); err != nil || n == 0 {
		return
	}
	ev := list[0].Events
	switch {
	case s.gc.closed || s.c.lent():
		s.t.Error("an event of a connection that the loop does not have")
		return
	case ev&(unix.EPOLLERR|unix.EPOLLHUP) != 0 && ev&(unix.EPOLLIN|unix.EPOLLOUT) == 0:
		_ = s.Close(s.gc)
		return
	}
	if ev&unix.EPOLLOUT != 0 && !s.gc.full && len(s.gc.unsent) > 0 {
		if _, err := unix.Write(s.gc.fd, s.gc.unsent); err != nil {
			_ = s.Close(s.gc)
			return
		}
		s.gc.unsent = nil
		_ = s.c.lp.poll.arm(s.gc.fd, true, false)
	}
	if ev&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		buf := make([]byte, readBuffer)
		n, err := unix.Read(s.gc.fd, buf)
		switch {
		case err == unix.EAGAIN:
		case n <= 0:
			_ = s.Close(s.gc)
		default:
			s.gc.in = append(slices.Clone(s.gc.in), buf[:n]...)
			s.events.OnTraffic(s.gc)
		}
	}
}

// runTasks does what others have posted.
func (s *stage) runTasks() {
	s.mu.Lock()
	tasks := s.tasks
	s.tasks = nil
	s.mu.Unlock()
	for _, r := range tasks {
		_ = r.Run(context.Background())
	}
}

// note is work for the connection, which must run on the loop.
func (s *stage) note() {
	s.c.run(func() {
		if s.c.lent() {
			s.t.Error("a note runs while the connection is lent")
		}
		s.notes++
	})
}

// settle has all that is under way come to its end, but for the client's doing.
func (s *stage) settle() {
	for n := 0; ; n++ {
		s.poll()
		s.c.work()
		s.runTasks()
		s.srv.mu.Lock()
		quiet := s.srv.pending == 1 && s.c.phase != closed && !s.c.lent() || s.srv.pending == 0
		pending := s.srv.pending
		s.srv.mu.Unlock()
		s.mu.Lock()
		quiet = quiet && len(s.tasks) == 0
		s.mu.Unlock()
		var list [1]unix.EpollEvent
		if n, _ := unix.EpollWait(s.epoll, list[:], 0); quiet && (n == 0 || s.gc.full) {
			return
		}
		if n > 1e6 {
			var list [1]unix.EpollEvent
			k, _ := unix.EpollWait(s.epoll, list[:], 0)
			s.t.Fatalf("unsettled: phase %d, owner %d, %d pending, watch %d, in %d, unsent %d, full %v, closed %v, epoll %d %v blocked %v held %v rest %d busy %v working %v flowing %v", s.c.phase, s.c.owner.Load(), pending, s.c.watch, len(s.gc.in), len(s.gc.unsent), s.gc.full, s.gc.closed, k, list[0], s.c.blocked, s.c.held, len(s.c.rest.p), s.c.sess.Busy(), s.c.sess.Working(), s.c.sess.Flowing())
		}
		runtime.Gosched()
	}
}

// say has the client send p, or what the socket takes of it.
func (s *stage) say(p []byte) int {
	n, _ := unix.Write(s.peer, p)
	return max(0, n)
}

// heard is what the client has got.
func (s *stage) heard() []byte {
	buf := make([]byte, 64<<10)
	n, _ := unix.Read(s.peer, buf)
	return buf[:max(0, n)]
}

// stages is a server for them, and a client that it knows.
func stages(t *testing.T) (*Server, *observer.ObservedLogs, *rawPeer) {
	r := start(t, nil)
	b := r.rawPeer(r.raw(), "known")
	core, logs := observer.New(zap.InfoLevel)
	store, err := files.Open(t.TempDir(), files.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	srv, _ := bare(t, func(o *Options) {
		o.Log, o.noPause = zap.New(core), waits
		o.Service = session.NewService(session.Config{Files: store, Registry: r.reg, Log: zap.New(core)})
	})
	srv.bulk.size = 0 // the test has the turns
	t.Cleanup(func() { _ = srv.Close() })
	return srv, logs, b
}

// end is the end of a stage: whatever has happened, the connection comes to its
// end, once, and leaves nothing.
func (s *stage) end() {
	t := s.t
	s.gc.full = false
	for n := 0; s.c.phase != closed; n++ {
		if n > 10 {
			t.Fatalf("the connection does not end: phase %d, %q, watch %d", s.c.phase, s.c.reason, s.c.watch)
		}
		s.settle()
		s.c.lp.tick(time.Now().Add(time.Hour))
	}
	_ = unix.Close(s.peer)
	s.settle()
	if n := s.logs.FilterMessage("connection closed").Len(); n != 1 {
		t.Errorf("the log says %d times that it is closed", n)
	}
	if n := s.logs.FilterMessage("panic").Len() + s.logs.FilterMessage("panic in a worker").Len(); n > 0 {
		t.Errorf("%d panics: %v", n, s.logs.FilterMessage("panic").All())
	}
	s.srv.mu.Lock()
	defer s.srv.mu.Unlock()
	if s.srv.pending != 0 || s.srv.lent != 0 || s.srv.census.count() != 0 || len(s.c.lp.conns) != 0 {
		t.Errorf("left: %d pending, %d lent, %d counted, %d on the loop", s.srv.pending, s.srv.lent, s.srv.census.count(), len(s.c.lp.conns))
	}
	if all := newBudget(DefaultMemoryBudget, s.srv.slots); s.srv.budget.free != all.free || s.srv.budget.rests != all.rests {
		t.Error("not all of the budget came back")
	}
	_ = unix.Close(s.epoll)
}

// What a rest takes of the budget is what lies in it when it is made, however often it
// is added to.
func TestRestsAreCounted(t *testing.T) {
	srv, logs, _ := stages(t)
	s := newStage(t, srv, logs)
	s.opened()
	c, all := s.c, srv.budget.rests
	counted := func(want int64) {
		t.Helper()
		if n := all - srv.budget.rests; n != want {
			t.Errorf("%d bytes are counted, want %d", n, want)
		}
	}
	for size := 1; size < 200_000; size *= 7 {
		c.keepRest(make([]byte, size))
		counted(int64(size))
		c.rest.p = c.rest.p[size/2:] // the session takes a part
		counted(int64(size))
		s.gc.in = make([]byte, 100)
		if !c.gatherRest() || len(c.rest.p) != size-size/2+100 || len(s.gc.in) > 0 {
			t.Errorf("%d bytes gathered, %d left", len(c.rest.p), len(s.gc.in))
		}
		counted(int64(len(c.rest.p)))
		c.dropRest()
		counted(0)
	}
	s.end()
}

// Phases only come in their order, and the first reason counts.
func TestPhasesGrow(t *testing.T) {
	srv, _ := bare(t, func(*Options) {})
	defer srv.Close()
	for from := range closed + 1 {
		for to := range closed + 1 {
			c := &conn{lp: newLoop(srv, nil), phase: from}
			ok := c.enter(to, "first")
			if ok != (to > from) || c.phase != max(from, to) || (c.reason == "first") != ok || c.since.IsZero() == ok {
				t.Errorf("from %d to %d: %v, %d, %q, %v", from, to, ok, c.phase, c.reason, c.since)
			}
			if c.enter(closed, "second"); ok && c.reason != "first" {
				t.Errorf("the reason %q", c.reason)
			}
		}
	}
}

// Each event leads from each phase to where it says.
func TestPhases(t *testing.T) {
	bad := codec.RequestHeader{Version: 3, Code: codec.CodeRegister, PayloadSize: 1 << 30}.Append(nil)
	hour := func(s *stage) { s.c.lp.tick(time.Now().Add(time.Hour)) }
	to := map[string]func(s *stage){
		"open": func(*stage) {},
		"ending": func(s *stage) {
			s.gc.full = true
			s.say(bad)
			s.settle()
		},
		"lingering": func(s *stage) {
			s.say(bad)
			s.settle()
			if got := s.heard(); !bytes.Equal(got, errorReply) {
				s.t.Errorf("got % x, want a 1607", got)
			}
		},
		"closed": func(s *stage) { s.c.close("the test") },
	}
	unseen := ending // the phase in which the loop does not see that a client has nothing more to say
	if waits {
		unseen = closed
	}
	phases := []string{"arriving", "introducing", "sniffing", "shaking", "open", "ending", "lingering", "closed"}
	for _, e := range []struct {
		name  string
		event func(s *stage)
		want  map[string]phase // from each phase
	}{
		{"traffic", func(s *stage) { s.say([]byte{1}); s.settle() },
			map[string]phase{"open": open, "ending": ending, "lingering": lingering, "closed": closed}},
		{"a bad message", func(s *stage) { s.say(bad); s.settle() },
			map[string]phase{"open": lingering, "ending": ending, "lingering": lingering, "closed": closed}},
		{"a tick", func(s *stage) { s.c.lp.tick(time.Now()) },
			map[string]phase{"open": open, "ending": ending, "lingering": lingering, "closed": closed}},
		{"time is up", hour,
			map[string]phase{"open": lingering, "ending": closed, "lingering": closed, "closed": closed}},
		{"time is up and replies wait", func(s *stage) { s.gc.full = true; s.c.Send(errorReply); s.c.flush(); hour(s) },
			map[string]phase{"open": closed, "ending": closed, "closed": closed}},
		{"replies are out", func(s *stage) { s.gc.full = false; s.settle(); s.c.lp.tick(time.Now()) },
			map[string]phase{"open": open, "ending": lingering, "lingering": lingering, "closed": closed}},
		{"the client shuts its side", func(s *stage) { _ = unix.Shutdown(s.peer, unix.SHUT_WR); s.settle() },
			map[string]phase{"open": closed, "ending": unseen, "lingering": closed, "closed": closed}},
		{"the client closes", func(s *stage) { _ = unix.Close(s.peer); s.peer = -1; s.settle() },
			map[string]phase{"open": closed, "ending": closed, "lingering": closed, "closed": closed}},
		{"drain", func(s *stage) { s.srv.draining.Store(true); s.c.run(s.c.drain) },
			map[string]phase{"open": lingering, "ending": ending, "lingering": lingering, "closed": closed}},
		{"drain, long after the last bytes", func(s *stage) {
			s.c.read = s.c.read.Add(-time.Hour)
			s.srv.draining.Store(true)
			s.c.run(s.c.drain)
		}, map[string]phase{"open": closed, "ending": ending, "lingering": lingering, "closed": closed}},
		{"made room", func(s *stage) { s.c.run(func() { s.c.close("made room") }) },
			map[string]phase{"open": closed, "ending": closed, "lingering": closed, "closed": closed}},
		{"a panic", func(s *stage) {
			s.c.run(func() { panic("the test") })
			s.logs.TakeAll()
			if s.c.phase == closed { // the log has said so
				s.srv.opts.Log.Info("connection closed")
			}
		}, map[string]phase{"open": closed, "ending": closed, "lingering": closed, "closed": closed}},
		{"the session hangs up", func(s *stage) { s.c.Hangup("the test") },
			map[string]phase{"open": ending, "ending": ending, "lingering": lingering, "closed": closed}},
	} {
		for _, from := range phases[1:] {
			want, ok := e.want[from]
			if !ok {
				continue
			}
			t.Run(from+", "+e.name, func(t *testing.T) {
				srv, logs, _ := stages(t)
				s := newStage(t, srv, logs)
				s.opened()
				to[from](s)
				if phases[s.c.phase] != from {
					t.Fatalf("the phase is %s", phases[s.c.phase])
				}
				e.event(s)
				if s.c.phase != want {
					t.Errorf("the phase is %s, want %s", phases[s.c.phase], phases[want])
				}
				if (s.c.reason == "") != (s.c.phase == open) {
					t.Errorf("%s, and the reason is %q", phases[s.c.phase], s.c.reason)
				}
				s.end()
			})
		}
	}
}

// Memory that a connection stood in line for goes to the others when it ends, although
// its client leaves replies unread.
func TestEndingTakesNoMemory(t *testing.T) {
	srv, logs, _ := stages(t)
	s := newStage(t, srv, logs)
	s.opened()
	all := srv.budget.free
	srv.budget.free = 0 // others have it
	if srv.budget.get(s.c, session.MaxBuffer) != nil {
		t.Fatal("there is memory")
	}
	s.gc.full = true
	s.say(codec.RequestHeader{Version: 3, Code: codec.CodeRegister, PayloadSize: 1 << 30}.Append(nil))
	s.settle()
	if s.c.phase != ending {
		t.Fatalf("phase %d", s.c.phase)
	}
	srv.budget.mu.Lock()
	srv.budget.free = all
	srv.budget.serve()
	srv.budget.mu.Unlock()
	s.settle()
	if got := srv.budget.free; got != all || s.c.phase != ending {
		t.Errorf("%d bytes of %d are free in phase %d", got, all, s.c.phase)
	}
	s.end()
}

// A drain waits for a reply that is held back.
func TestDrainWithAReplyHeldBack(t *testing.T) {
	srv, logs, _ := stages(t)
	s := newStage(t, srv, logs)
	s.opened()
	srv.opts.ReplyDelay = time.Millisecond
	s.c.Send(errorReply)
	s.c.read = s.c.read.Add(-time.Hour)
	srv.draining.Store(true)
	s.c.run(s.c.drain)
	if s.c.phase == closed {
		t.Error("closed before the reply")
	}
	s.settle()
	if got := s.heard(); !bytes.Equal(got, errorReply) {
		t.Errorf("got % x, want a 1607", got)
	}
	s.end()
}

// Whatever happens in whatever order, also while the connection is lent: it comes to
// its end, once; nothing of it is left, and each note has run, when the loop had it.
func TestPhasesAtRandom(t *testing.T) {
	srv, logs, b := stages(t)
	content := random(1 << 20)
	stream := slices.Concat(slices.Concat(b.packets("f", content, 100_000)...), slices.Concat(b.packets("g", content[:100], 60)...))
	bad := codec.RequestHeader{ID: b.ID, Version: 3, Code: codec.CodeRegister, PayloadSize: 1 << 30}.Append(nil)
	if overTLS {
		srv.opts.TLS = protects(t)
	}
	loans := 0
	for seed := range uint64(300) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			logs.TakeAll()
			srv.draining.Store(false)
			s := newStage(t, srv, logs)
			s.events.OnOpen(s.gc)
			delete(srv.loops, gnet.EventLoop(s)) // nobody else looks at it
			left, notes, last := stream, 0, open
			if overTLS {
				left = s.records(stream, 1<<(5+rng.IntN(10)))
			} else {
				s.c.welcome(open)
			}
			for range 100 {
				var what string
				switch n := rng.IntN(100); {
				case n < 30:
					what = "bytes"
					left = left[s.say(left[:min(len(left), 1<<rng.IntN(18))]):]
				case n < 50:
					what = "poll"
					s.poll()
				case n < 65:
					what = "tasks"
					s.runTasks()
				case n < 80:
					what = "turn"
					s.c.work()
				case n < 86:
					what = "note"
					notes++
					s.note()
				case n < 90:
					what = "tick"
					s.c.lp.tick(time.Now())
				case n < 93:
					what = "full"
					s.gc.full = !s.gc.full
				case n < 96:
					what = "settle"
					s.settle()
				case n == 96 && rng.IntN(3) == 0:
					what = "bad"
					s.say(bad)
				case n == 97 && rng.IntN(3) == 0:
					what = "drain"
					srv.draining.Store(true)
					s.c.run(s.c.drain)
				case n == 98 && rng.IntN(3) == 0:
					what = "close"
					s.c.run(func() { s.c.close("the test") })
				case n == 99 && rng.IntN(3) == 0:
					what = "the client shuts its side"
					_ = unix.Shutdown(s.peer, unix.SHUT_WR)
				case n == 97 && rng.IntN(3) == 0:
					what = "the end of gnet"
					s.ending = true
					_ = s.Close(s.gc)
				}
				if s.c.lent() && logs.FilterMessage("connection closed").Len() > 0 {
					t.Fatalf("%s: the session of a connection that is lent is closed", what)
				}
				if s.c.phase < last || (s.c.reason == "") != (s.c.phase == open) {
					t.Fatalf("%s: phase %d after %d, reason %q", what, s.c.phase, last, s.c.reason)
				}
				last = s.c.phase
			}
			s.end()
			if s.notes != notes {
				t.Errorf("%d notes of %d have run", s.notes, notes)
			}
			loans += srv.loans
			srv.loans = 0
		})
	}
	if !waits && loans < 100 {
		t.Errorf("%d loans", loans)
	}
}
