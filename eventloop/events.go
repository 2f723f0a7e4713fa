package eventloop

import (
	"github.com/panjf2000/gnet/v2"
	"go.uber.org/zap"
)

// events is what gnet calls, on the loop of the connection.
type events struct {
	gnet.BuiltinEventEngine
	srv *Server
}

// OnOpen implements [gnet.EventHandler].
func (e *events) OnOpen(gc gnet.Conn) ([]byte, gnet.Action) {
	s, c := e.srv, gc.Context().(*conn)
	c.lp, c.gc = s.loopOf(gc), gc
	if c.via == direct {
		c.enter(sniffing, "")
	} else {
		c.enter(introducing, "")
	}
	c.read, c.weighed = c.since, c.since
	c.lp.conns[c] = struct{}{}
	c.lp.poll.find(gc.Fd())
	if s.draining.Load() { // it was admitted before, and the drain has not seen it
		c.post(c.drain)
	}
	return nil, gnet.None
}

// OnTraffic implements [gnet.EventHandler].
func (e *events) OnTraffic(gc gnet.Conn) gnet.Action {
	c, _ := gc.Context().(*conn)
	if c == nil {
		return gnet.None
	}
	c.watch = reads // traffic proves it: gnet has re-armed a connection that it has written to
	c.lp.guard(c, func() {
		c.pump()
		for (c.phase == open || c.phase == shaking) && (c.blocked || c.paced()) && !c.lp.poll.works() {
			// What the session leaves, gnet would keep without bound. Where nothing
			// stops the sender, the loop waits until the session can take it.
			c.lp.waitTasks()
		}
	})
	return gnet.None
}

// OnClose implements [gnet.EventHandler].
func (e *events) OnClose(gc gnet.Conn, _ error) gnet.Action {
	c, _ := gc.Context().(*conn)
	if c != nil && c.enter(closed, c.partingReason()) && !c.lent() {
		c.gone()
	} // a connection that is lent gnet closes at the end of the server only: takeBack goes on
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

// gnetLog passes on what gnet logs, its news as details.
type gnetLog struct{ *zap.SugaredLogger }

// Infof implements gnet's Logger.
func (l gnetLog) Infof(format string, args ...any) { l.Debugf(format, args...) }
