package goroutine

import (
	"context"
	"net"
	"sync"
	"time"

	"sealift/session"
	"sealift/storage"
)

// conn is one connection: its session's [session.Host].
type conn struct {
	srv    *server
	nc     net.Conn
	sess   *session.Session
	out    []byte // replies to send
	hangup string // why the connection ends, once it should

	mu    sync.Mutex
	tasks []func()
	gone  bool          // the connection's goroutine runs no more tasks
	wake  chan struct{} // there are tasks
}

var _ session.Host = (*conn)(nil)

// post has f run on the session's goroutine. Any goroutine may call it.
func (c *conn) post(f func()) {
	c.mu.Lock()
	first := len(c.tasks) == 0
	c.tasks = append(c.tasks, f)
	gone := c.gone
	c.mu.Unlock()
	switch {
	case !first: // somebody is on the way already
	case gone:
		c.srv.open.Go(c.finish)
	default:
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// runTasks runs what was posted. It returns false if there was nothing.
func (c *conn) runTasks() bool {
	c.mu.Lock()
	tasks := c.tasks
	c.tasks = nil
	c.mu.Unlock()
	for _, f := range tasks {
		f()
	}
	return len(tasks) > 0
}

// leave ends the part of the connection's own goroutine. What is posted
// later (the session asked for it before) has a goroutine started for it.
func (c *conn) leave() {
	for {
		c.mu.Lock()
		if len(c.tasks) == 0 {
			c.gone = true
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		c.runTasks()
	}
}

// finish runs tasks of a connection that is gone. The first task stays in
// the list while it runs, so that post starts no second goroutine.
func (c *conn) finish() {
	for {
		c.mu.Lock()
		f := c.tasks[0]
		c.mu.Unlock()
		f()
		c.mu.Lock()
		c.tasks = c.tasks[1:]
		empty := len(c.tasks) == 0
		c.mu.Unlock()
		if empty {
			return
		}
	}
}

// Send implements [session.Host].
func (c *conn) Send(reply []byte) { c.out = append(c.out, reply...) }

// Do implements [session.Host]. The session's goroutine does the work itself, as
// soon as the session has returned to it.
func (c *conn) Do(lane session.Lane, work func(ctx context.Context), done func()) {
	c.post(func() {
		if work != nil {
			if lane == session.Storage {
				c.srv.workers <- struct{}{}
			}
			work(c.srv.ctx)
			if lane == session.Storage {
				<-c.srv.workers
			}
		}
		if done != nil {
			done()
		}
	})
}

// Apply implements [session.Host].
func (c *conn) Apply(op storage.Operation, done func(err error)) {
	c.srv.open.Add(1)
	c.srv.registry.Submit(op, func(err error) {
		defer c.srv.open.Done()
		if done != nil {
			c.post(func() { done(err) })
		}
	})
}

// Buffer implements [session.Host]. It never refuses: what a session may hold
// bounds what a connection costs.
func (c *conn) Buffer(size int) []byte {
	if size < session.MaxBuffer/4 {
		return make([]byte, size)
	}
	return *c.srv.buffers.Get().(*[]byte)
}

// Release implements [session.Host].
func (c *conn) Release(buf []byte) {
	if len(buf) == session.MaxBuffer {
		c.srv.buffers.Put(&buf)
	}
}

// Hold implements [session.Host].
func (c *conn) Hold(n int) bool {
	c.srv.mu.Lock()
	defer c.srv.mu.Unlock()
	if c.srv.early < n {
		return false
	}
	c.srv.early -= n
	return true
}

// Unhold implements [session.Host].
func (c *conn) Unhold(n int) {
	c.srv.mu.Lock()
	c.srv.early += n
	c.srv.mu.Unlock()
}

// Hangup implements [session.Host].
func (c *conn) Hangup(reason string) { c.hangup = reason }

// Now implements [session.Host].
func (c *conn) Now() time.Time { return time.Now() }
