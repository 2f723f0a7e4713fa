package eventloop

import (
	"context"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/panjf2000/gnet/v2"
	"go.uber.org/zap"
)

// loop is one of gnet's event loops. Its fields belong to the loop's goroutine, but
// for those that are guarded by a lock or atomic.
type loop struct {
	srv   *Server
	el    gnet.EventLoop
	poll  poller // pauses connections
	conns map[*conn]struct{}
	// scratch takes what a direct read finds behind the content: the header and
	// fields of the next packet, mostly.
	scratch [1 << 10]byte
	plain   []byte // see plaintext

	mu        sync.Mutex
	arrived   sync.Cond // tasks is not empty
	tasks     []func()
	scheduled bool // the loop has been told to run tasks

	asked atomic.Int64 // the tick whose task has not run yet, 0: none

	waking  sync.RWMutex // held while the loop is being woken
	stopped bool         // the loop must not be woken any more. Under waking.
}

func newLoop(srv *Server, el gnet.EventLoop) *loop {
	lp := &loop{srv: srv, el: el, conns: make(map[*conn]struct{})}
	lp.arrived.L = &lp.mu
	return lp
}

// post has f run on the loop. Any goroutine may call it. Tasks that come while
// others wait to run cost no further wake-up.
func (lp *loop) post(f func()) {
	lp.mu.Lock()
	lp.tasks = append(lp.tasks, f)
	wake := !lp.scheduled
	lp.scheduled = true
	lp.arrived.Signal()
	lp.mu.Unlock()
	if wake {
		lp.waking.RLock()
		if !lp.stopped {
			_ = lp.el.Execute(context.Background(), gnet.RunnableFunc(lp.runTasks))
		}
		lp.waking.RUnlock()
	}
}

// stop makes post do nothing. gnet wakes a loop through the number of a
// descriptor, and once the loop has ended that may be another file's.
func (lp *loop) stop() {
	lp.waking.Lock()
	lp.stopped = true
	lp.waking.Unlock()
}

func (lp *loop) runTasks(context.Context) error {
	lp.mu.Lock()
	tasks := lp.tasks
	lp.tasks, lp.scheduled = nil, false
	lp.mu.Unlock()
	for _, f := range tasks {
		f()
	}
	return nil
}

// waitTasks runs tasks on the loop as soon as there are some, without going
// back to the kernel.
func (lp *loop) waitTasks() {
	lp.mu.Lock()
	for len(lp.tasks) == 0 {
		lp.arrived.Wait()
	}
	tasks := lp.tasks
	lp.tasks = nil
	lp.mu.Unlock()
	for _, f := range tasks {
		f()
	}
}

// guard runs f for a connection. A panic ends that connection and no other.
func (lp *loop) guard(c *conn, f func()) {
	defer func() {
		if p := recover(); p != nil {
			lp.srv.opts.Log.Error("panic", zap.String("remote", c.remote), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
			c.run(func() { c.close("panic") })
		}
	}()
	f()
}
