package eventloop

import (
	"context"
	"sync"

	"sealift/session"
)

// lane runs work on a bounded number of goroutines, first come first served.
// The queue has no bound of its own: each connection waits for most of what it
// asks for, and its window bounds the rest. A pool that blocks or refuses when
// it is full would not do, since a loop can neither wait nor give up.
type lane struct {
	size    int
	mu      sync.Mutex
	queue   []func()
	running int
}

func (l *lane) submit(work func()) {
	l.mu.Lock()
	if l.running == l.size {
		l.queue = append(l.queue, work)
		l.mu.Unlock()
		return
	}
	l.running++
	l.mu.Unlock()
	go l.run(work)
}

func (l *lane) run(work func()) {
	for work != nil {
		work()
		work = l.next()
	}
}

func (l *lane) next() func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		l.queue = nil
		l.running--
		return nil
	}
	work := l.queue[0]
	l.queue[0] = nil
	l.queue = l.queue[1:]
	return work
}

// request is an operation for the registry and who is told its result.
type request struct {
	op   session.Operation
	done func(err error)
}

// batcher gives a registry all operations that gathered while it was busy with
// the ones before, so that one commit serves many connections.
type batcher struct {
	reg     session.Registry
	mu      sync.Mutex
	pending []request
	running bool
}

// maxBatch bounds how long the first operation of a batch waits for the last.
const maxBatch = 1024

func (b *batcher) submit(ctx context.Context, r request) {
	b.mu.Lock()
	b.pending = append(b.pending, r)
	start := !b.running
	b.running = true
	b.mu.Unlock()
	if start {
		go b.run(ctx)
	}
}

func (b *batcher) run(ctx context.Context) {
	for {
		b.mu.Lock()
		n := min(len(b.pending), maxBatch)
		batch := b.pending[:n:n]
		b.pending = b.pending[n:]
		if n == 0 {
			b.pending, b.running = nil, false
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()

		ops := make([]session.Operation, n)
		for i, r := range batch {
			ops[i] = r.op
		}
		err := b.apply(ctx, ops)
		for _, r := range batch {
			if err != nil {
				r.done(err)
			} else {
				r.done(r.op.Result().Err)
			}
		}
	}
}

// apply is the registry's Apply; a panic in it fails the batch, not the server.
func (b *batcher) apply(ctx context.Context, ops []session.Operation) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicError(p)
		}
	}()
	return b.reg.Apply(ctx, ops)
}
