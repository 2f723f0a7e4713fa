package eventloop

import (
	"context"
	"sync"

	"sealift/session"
)

// request is an operation for the registry, and what to call with its result.
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
