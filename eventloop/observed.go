package eventloop

import (
	"context"
	"slices"
	"time"

	"sealift/session"
)

// Query says which connections to look at.
type Query struct {
	Most   int      // as many at most; those that upload come first, and then the latest
	Client [16]byte // of that client alone; zero: of all
}

// Observation is what Observe has found.
type Observation struct {
	Connections, Transfers int // all that there are
	Views                  []session.View
}

// Observe looks at the connections that are served. Each loop looks at its own between
// two other tasks: some 30 ns for each, and a microsecond for each that is told of. Nothing is kept up to date
// for it while nobody asks. Any goroutine may call it. An error is that of ctx: a loop has
// not answered.
func (s *Server) Observe(ctx context.Context, q Query) (all Observation, err error) {
	q.Most = max(1, q.Most)
	var found []candidate
	err = s.ask(ctx, func(lp *loop) func() {
		connections, transfers, some := lp.observe(q)
		return func() {
			all.Connections += connections
			all.Transfers += transfers
			found = append(found, some...)
		}
	})
	slices.SortFunc(found, compareCandidates)
	for _, c := range found[:min(len(found), q.Most)] {
		all.Views = append(all.Views, c.view)
	}
	return all, err
}

// EndConnection ends the connection that came from an address at a time, as Observe has
// told of it, and reports whether it was there. What its client had under way is cut off.
func (s *Server) EndConnection(ctx context.Context, remote string, opened time.Time) (found bool, err error) {
	err = s.ask(ctx, func(lp *loop) func() {
		for c := range lp.conns {
			if c.remote == remote && c.phase == open && c.sess.Opened().Equal(opened) {
				c.run(func() { c.close("ended by the operator") })
				return func() { found = true }
			}
		}
		return func() {}
	})
	return found, err
}

// ask has each loop do something, and then calls what that returned, on the caller's
// goroutine. It does not wait longer than ctx for a loop.
func (s *Server) ask(ctx context.Context, do func(*loop) (took func())) error {
	s.mu.Lock()
	answers := make(chan func(), len(s.loops))
	n := len(s.loops)
	for _, lp := range s.loops {
		lp.post(func() { answers <- do(lp) })
	}
	s.mu.Unlock()
	for range n {
		select {
		case took := <-answers:
			took()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// candidate is a connection that may be told of.
type candidate struct {
	c       *conn
	uploads int
	opened  time.Time
	view    session.View
}

// compareCandidates puts those that upload first, and then the latest.
func compareCandidates(a, b candidate) int {
	if (a.uploads > 0) != (b.uploads > 0) {
		if a.uploads > 0 {
			return -1
		}
		return 1
	}
	return b.opened.Compare(a.opened)
}

// observe looks at the connections of the loop. On the loop.
func (lp *loop) observe(q Query) (connections, transfers int, some []candidate) {
	some = make([]candidate, 0, 2*q.Most)
	for c := range lp.conns {
		if c.phase != open {
			continue
		}
		if q.Client != [16]byte{} {
			if id, ok := c.sess.Client(); !ok || id != q.Client {
				continue
			}
		}
		connections++
		next := candidate{c: c, uploads: c.sess.Uploading(), opened: c.sess.Opened()}
		transfers += next.uploads
		if len(some) >= q.Most && compareCandidates(next, some[q.Most-1]) > 0 {
			continue // there are as many before it
		}
		if some = append(some, next); len(some) == cap(some) || len(some) == q.Most {
			slices.SortFunc(some, compareCandidates)
			some = some[:min(len(some), q.Most)]
		}
	}
	slices.SortFunc(some, compareCandidates)
	some = some[:min(len(some), q.Most)]
	for i := range some {
		c := some[i].c
		some[i].view = c.sess.View(c.loan)
	}
	return connections, transfers, some
}
