package eventloop

import (
	"context"
	"sync"

	"sealift/codec"
	"sealift/session"
)

// turn is whose turn it is: a client's, on all of its connections, or that of a
// connection whose client is not known.
type turn struct {
	id codec.ClientID
	c  *conn // nil if id is known
}

// line is the work of one client that waits, in its order.
type line struct {
	who  turn
	work []func()
	done int   // pieces of work that have been taken
	next *line // whose turn follows
}

// lane runs work on a bounded number of goroutines. Clients that wait have turns,
// one piece of work each, so that nobody waits longer because another asks for
// more. The queue has no bound of its own: each connection waits for most of what
// it asks for, and its window bounds the rest. A pool that blocks or refuses when
// it is full would not do, since a loop can neither wait nor give up.
type lane struct {
	size    int
	mu      sync.Mutex
	running int            // if that is less than size, nobody waits
	lines   map[turn]*line // of those who wait
	first   *line          // has the next turn
	last    *line
	spare   *line // empty lines
}

func (l *lane) submit(who turn, work func()) {
	l.mu.Lock()
	if l.running == l.size {
		l.wait(who, work)
		l.mu.Unlock()
		return
	}
	l.running++
	l.mu.Unlock()
	go l.run(work)
}

// wait puts work behind what who waits for already. Holds mu.
func (l *lane) wait(who turn, work func()) {
	ln := l.lines[who]
	if ln == nil {
		if ln = l.spare; ln == nil {
			ln = new(line)
		} else {
			l.spare = ln.next
		}
		ln.who = who
		if l.lines == nil {
			l.lines = make(map[turn]*line)
		}
		l.lines[who] = ln
		l.push(ln)
	}
	if len(ln.work) == cap(ln.work) && 2*ln.done >= len(ln.work) {
		n := copy(ln.work, ln.work[ln.done:])
		clear(ln.work[n:])
		ln.work, ln.done = ln.work[:n], 0
	}
	ln.work = append(ln.work, work)
}

// push makes ln the last to have its turn. Holds mu.
func (l *lane) push(ln *line) {
	ln.next = nil
	if l.first == nil {
		l.first = ln
	} else {
		l.last.next = ln
	}
	l.last = ln
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
	ln := l.first
	if ln == nil {
		l.running--
		l.lines, l.spare = nil, nil
		return nil
	}
	l.first = ln.next
	work := ln.work[ln.done]
	ln.work[ln.done] = nil
	if ln.done++; ln.done < len(ln.work) {
		l.push(ln)
		return work
	}
	delete(l.lines, ln.who)
	*ln = line{work: ln.work[:0], next: l.spare}
	l.spare = ln
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
