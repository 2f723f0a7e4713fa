package storage

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
)

// Queue gathers what many callers want of a Registry: whatever they submit while
// a batch is under way makes the next one, so that one commit serves many.
// Operations that only read have batches of their own, and do not wait for a
// commit. Safe for concurrent use.
type Queue struct {
	reads, writes batches
}

// NewQueue returns the queue in front of reg. Batches are applied with ctx. The
// goroutines of the queue end after ctx, and Submit may be called all the same.
func NewQueue(ctx context.Context, reg Registry) *Queue {
	q := new(Queue)
	q.reads.open(ctx, reg)
	q.writes.open(ctx, reg)
	return q
}

// Submit puts op into the next batch. After that done is called once, on a
// goroutine of the queue, with the error of op or of the whole batch. The results
// of the same batch wait for done, so it does not block. op belongs to the queue
// until then.
func (q *Queue) Submit(op Operation, done func(error)) {
	if Reads(op) {
		q.reads.submit(request{op, done})
	} else {
		q.writes.submit(request{op, done})
	}
}

// request is an operation and who is told its result.
type request struct {
	op   Operation
	done func(error)
}

// batches are applied one after the other, by one goroutine, which begins with the
// first. It waits for the next and keeps its stack: a registry needs a large one,
// and to grow a new one for each batch costs more than to wake up.
type batches struct {
	ctx     context.Context
	reg     Registry
	mu      sync.Mutex
	more    sync.Cond // there is something pending, or ctx has ended
	pending []request
	running bool // there is the goroutine
}

func (b *batches) open(ctx context.Context, reg Registry) {
	b.ctx, b.reg = ctx, reg
	b.more.L = &b.mu
	context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.more.Signal()
	})
}

// maxBatch bounds how long the first operation of a batch waits for the last.
const maxBatch = 1024

func (b *batches) submit(r request) {
	b.mu.Lock()
	b.pending = append(b.pending, r)
	start := !b.running
	b.running = true
	b.mu.Unlock()
	if start {
		go b.run()
	} else {
		b.more.Signal()
	}
}

func (b *batches) run() {
	for batch := b.next(); batch != nil; batch = b.next() {
		ops := make([]Operation, len(batch))
		for i, r := range batch {
			ops[i] = r.op
		}
		err := b.apply(ops)
		for _, r := range batch {
			if err != nil {
				r.done(err)
			} else {
				r.done(r.op.Result().Err)
			}
		}
	}
}

// next waits for something to do. It returns nil if ctx has ended and nothing is
// left: then the goroutine ends.
func (b *batches) next() []request {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.pending) == 0 {
		b.pending = nil
		if b.ctx.Err() != nil {
			b.running = false
			return nil
		}
		b.more.Wait()
	}
	n := min(len(b.pending), maxBatch)
	batch := b.pending[:n:n]
	b.pending = b.pending[n:]
	return batch
}

// apply is the registry's Apply. A panic in it fails the batch, not the process.
func (b *batches) apply(ops []Operation) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return b.reg.Apply(b.ctx, ops)
}
