package session

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime/debug"
	"sync"

	"go.uber.org/zap"

	"sealift/storage"
)

// coroutine runs a function of the session that waits, so that the function reads
// from top to bottom. The calls that wait are do, apply and lock. In each of them the
// session's goroutine leaves the coroutine and goes on with other things. It comes
// back when the host runs the done of what the coroutine waits for.
//
// A coroutine only runs while the session's goroutine waits for it, in start or in
// such a done, so it owns the session as all code of it does. After a call that
// waits the connection may be gone. The host runs every done, so each coroutine
// comes to its end, also then.
//
// A panic ends the coroutine, also one of the host's where that is asked for something:
// its deferred calls run, and then the panic goes on in start or in the done.
type coroutine struct {
	s       *Session
	f       func(co *coroutine)          // nil: it is idle
	yield   func(ask func()) bool        // leaves the coroutine for who called next
	next    func() (ask func(), ok bool) // enters it. ask is nil if f has returned.
	stop    func()                       // ends it while it is idle
	resumed func()                       // the method resume
	failure error                        // the panic of an ask, for wait
}

// start runs f up to the first call that waits.
func (s *Session) start(f func(co *coroutine)) {
	co := idle.get()
	if co == nil {
		co = newCoroutine()
	}
	co.s, co.f = s, f
	co.resume()
}

// serve is start for a request that holds up the connection until f returns.
func (s *Session) serve(f func(co *coroutine)) {
	s.busy = true
	s.start(func(co *coroutine) {
		defer func() { s.busy = false }()
		f(co)
	})
}

func newCoroutine() *coroutine {
	co := new(coroutine)
	co.resumed = co.resume
	co.next, co.stop = iter.Pull(func(yield func(func()) bool) {
		defer co.unwind()
		co.yield = yield
		for more := true; more; more = yield(nil) {
			co.f(co)
			co.s, co.f = nil, nil
		}
	})
	return co
}

// resume runs the coroutine up to its next call that waits, or to the end of its
// function.
func (co *coroutine) resume() {
	switch ask, ok := co.next(); {
	case !ok: // it has ended: the host panicked when it was asked, and runs the done all the same
	case ask == nil:
		idle.put(co)
	default:
		co.tryAsk(ask)
	}
}

// tryAsk calls ask. If that panics, the coroutine ends by the same panic.
func (co *coroutine) tryAsk(ask func()) {
	defer func() {
		if p := recover(); p != nil {
			co.failure = fmt.Errorf("%v\n%s", p, debug.Stack())
			co.stop()
		}
	}()
	ask()
}

// idle keeps the coroutines of the process that run no function, for the next start.
// A verdict takes the processor 0.6 µs longer in an idle one than in callbacks,
// and 2.5 µs in a new one, whose stack has to grow.
var idle coroutines

type coroutines struct {
	mu   sync.Mutex
	list []*coroutine
}

// maxIdle is the most coroutines that are kept idle: some 400 KiB when the garbage
// collector has shrunk their stacks.
const maxIdle = 128

// get takes one off the list for a function that is about to run. It returns nil
// if there is none.
func (c *coroutines) get() (co *coroutine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.list); n > 0 {
		co, c.list = c.list[n-1], c.list[:n-1]
	}
	return co
}

// put takes one back whose function has returned, or ends it if enough are idle.
func (c *coroutines) put(co *coroutine) {
	c.mu.Lock()
	keep := len(c.list) < maxIdle
	if keep {
		c.list = append(c.list, co)
	}
	c.mu.Unlock()
	if !keep {
		co.stop()
	}
}

// unwind is deferred in a coroutine. It adds the stack of the coroutine to a panic:
// whoever recovers from that sees the stack of the session's goroutine alone.
func (co *coroutine) unwind() {
	if p := recover(); p != nil {
		panic(fmt.Errorf("%v\n%s", p, debug.Stack()))
	}
}

// wait leaves the coroutine, and returns when resume is called. Before that the
// session's goroutine calls ask, which has the host call resume later. So the host
// takes the work on a stack that is large already. The stack of a coroutine stays as
// large as it grew, and thousands may wait. See BenchmarkWaiting.
func (co *coroutine) wait(ask func()) {
	if !co.yield(ask) {
		panic(co.failure)
	}
}

// errUnfinished is the result of work that panicked. The host recovers from the
// panic, and work without a result must not look like success.
var errUnfinished = errors.New("the work did not come to its end")

// do has another goroutine do work, and waits for it. It returns what work does,
// or errUnfinished if work panicked.
func (co *coroutine) do(lane Lane, work func(ctx context.Context) error) error {
	err := errUnfinished
	co.wait(func() {
		co.s.host.Do(lane, func(ctx context.Context) { err = work(ctx) }, co.resumed)
	})
	return err
}

// apply has the registry do op, and waits for it. If the connection turns out to be bound
// to a client that it may not go on for, it ends after the request. If that is known
// already, the registry is not asked.
func (co *coroutine) apply(op storage.Operation) (err error) {
	if why := co.s.ousted.Load(); why != nil && !op.Result().By.IsServer() {
		return *why
	}
	co.wait(func() {
		co.s.host.Apply(op, func(result error) {
			err = result
			co.resume()
		})
	})
	if errors.Is(err, storage.ErrPinned) {
		err = co.s.errPinned()
	}
	_, looks := op.(*storage.GetClient) // for a 1027: if there is none, a 1606 unbinds the connection
	if co.s.state != fresh && aboutClient(err) && !op.Result().By.IsServer() && !(looks && errors.Is(err, storage.ErrNoClient)) {
		co.s.end(err)
	}
	return err
}

// lock waits until no other request and no maintenance has the place. The caller
// unlocks it.
func (co *coroutine) lock(k pathKey) *place {
	p, now := co.s.svc.places.lock(k, func() { co.s.host.Do(Compute, nil, co.resumed) })
	if !now {
		co.wait(func() {})
	}
	return p
}

// discard removes an incoming file that nobody refers to any more. It does not wait
// for that.
func (co *coroutine) discard(f storage.Uploaded) {
	s := co.s
	s.host.Do(Storage, func(ctx context.Context) {
		if err := s.svc.Files.Discard(ctx, f); err != nil {
			s.log().Error("removing an incoming file", zap.String("key", f.Key), zap.Error(err))
		}
	}, nil)
}

// remove removes the content of a version that another one has replaced. It does not wait for
// that.
func (co *coroutine) remove(f storage.Stored) {
	s := co.s
	s.host.Do(Storage, func(ctx context.Context) {
		if err := s.svc.Files.Remove(ctx, f); err != nil {
			s.log().Error("removing a version that was replaced", zap.String("key", f.Key), zap.Error(err))
		}
	}, nil)
}
