package eventloop

import (
	"container/heap"
	"sync"
	"time"
	"weak"
)

// turn is whose turn it is: a client's, on all of its connections, or that of a
// connection whose client is not known.
type turn struct {
	id [16]byte           // a client id
	c  weak.Pointer[conn] // zero if id is known; an account outlives its connection
}

// line is a client's account with a lane, and its work that waits, in its order.
type line struct {
	who     turn
	work    []func()
	done    int // pieces of work that have been taken from work
	running int // pieces of work that run

	used   time.Duration // the lane's clock until which the client has had its share
	cost   time.Duration // what a piece of its work takes: the mean of the last few
	pieces int           // that have run, up to newPieces

	// While work waits:
	since time.Duration // the lane's clock when it began to
	in    *byDue        // where it waits
	due   time.Duration // the line with the earliest there has the next turn
	order uint64        // among lines with the same due
	place int           // in the queue
}

const (
	// maxDebt bounds what a client is charged for a piece of work, and how far its
	// account is ahead of the clock. So it has its turn when each of the others has
	// had as much as these two together, or before.
	maxDebt = 500 * time.Millisecond

	newPieces = 4    // of work, after which a client is not new any more
	manyLines = 1024 // accounts that a lane keeps without looking which are settled
)

// lane runs work on a bounded number of goroutines. Clients that wait have turns,
// one piece of work each. The time that work takes is charged to its client's
// account, and the next turn is that of the client which would have used least
// after it. So nobody waits longer because another asks for more, or for what
// takes longer.
//
// A lane has a clock of its own for the accounts: a piece of work advances it by
// the time that it took, divided by the number of clients that have work. That is
// what each of them would have had if all had the same. An account that is behind
// the clock counts as if it were at the clock: what a client did not use is lost.
// As the clock goes on whatever happens, each client's turn comes.
//
// The queue has no bound of its own: each connection waits for most of what it
// asks for, and its window bounds the rest. A pool that blocks or refuses when it
// is full would not do, since a loop can neither wait nor give up.
type lane struct {
	size    int
	now     func() time.Duration // real time since some moment
	mu      sync.Mutex
	running int            // pieces of work; if that is less than size, none waits
	waiting int            // pieces of work
	lines   map[turn]*line // of clients that have work, or had
	limit   int            // of lines, before those that are settled go
	active  int            // lines that have work
	known   byDue          // lines that wait; their price is in due
	fresh   byDue          // new clients' lines that wait; due is without the price: it is the same for all, see first
	queued  uint64         // lines, so far
	clock   time.Duration  // see above
	mean    time.Duration  // what a piece of work takes
	newMean time.Duration  // what one of a new client takes
}

func newLane(size int) *lane {
	start := time.Now()
	return &lane{size: size, now: func() time.Duration { return time.Since(start) },
		lines: make(map[turn]*line), limit: manyLines}
}

// piece is work that runs.
type piece struct {
	line    *line
	work    func()
	charged time.Duration // before it is known what it takes
}

func (l *lane) submit(who turn, work func()) {
	l.mu.Lock()
	ln := l.lines[who]
	if ln == nil {
		ln = l.open(who)
	}
	if ln.idle() {
		l.active++
	}
	if l.running >= l.size {
		l.wait(ln, work)
		l.mu.Unlock()
		return
	}
	l.running++
	p := l.begin(ln, work, l.clock)
	l.mu.Unlock()
	go l.run(p)
}

func (ln *line) idle() bool { return ln.running == 0 && len(ln.work) == 0 }

// open makes an account. Holds mu.
func (l *lane) open(who turn) *line {
	if len(l.lines) >= l.limit {
		for _, ln := range l.lines {
			if ln.idle() && ln.used <= l.clock {
				delete(l.lines, ln.who)
			}
		}
		l.limit = max(manyLines, 2*len(l.lines))
	}
	ln := &line{who: who}
	l.lines[who] = ln
	return ln
}

// wait puts work behind what its client waits for already. Holds mu.
func (l *lane) wait(ln *line, work func()) {
	if len(ln.work) == cap(ln.work) && 2*ln.done >= len(ln.work) {
		n := copy(ln.work, ln.work[ln.done:])
		clear(ln.work[n:])
		ln.work, ln.done = ln.work[:n], 0
	}
	ln.work = append(ln.work, work)
	l.waiting++
	if len(ln.work)-ln.done == 1 {
		ln.since = l.clock
		l.queue(ln)
	}
}

// queue makes ln wait for its next turn. Holds mu.
func (l *lane) queue(ln *line) {
	l.queued++
	ln.order = l.queued
	l.price(ln)
	heap.Push(ln.in, ln)
}

// price says where ln waits, and when it is due there. Holds mu.
func (l *lane) price(ln *line) {
	ln.in, ln.due = &l.fresh, max(ln.used, ln.since)
	if ln.pieces == newPieces {
		ln.in, ln.due = &l.known, ln.due+l.charge(ln.cost)
	}
}

// waits reports whether any line does. Holds mu.
func (l *lane) waits() bool { return len(l.known) > 0 || len(l.fresh) > 0 }

// first is the queue whose first line has the next turn. All new clients are charged
// what new ones take now. So they keep their order among each other, however that
// changes: where many wait, the lane's clock moves little while they do. Holds mu.
func (l *lane) first() *byDue {
	if len(l.fresh) == 0 {
		return &l.known
	}
	if len(l.known) == 0 {
		return &l.fresh
	}
	n, k := l.fresh[0], l.known[0]
	if due := n.due + l.charge(l.newMean); due < k.due || due == k.due && n.order < k.order {
		return &l.fresh
	}
	return &l.known
}

// expected is what ln's next piece of work may take. New clients may take what new
// ones took lately, so that ever new names gain nothing; what a client's first piece
// took says little of the next, which may be of another kind. Holds mu.
func (l *lane) expected(ln *line) time.Duration {
	if ln.pieces < newPieces {
		return l.newMean
	}
	return ln.cost
}

// charge is what a client is charged for a piece of work that takes so long. What
// takes less than most is charged by its square, a tenth of the mean with a
// hundredth: it delays hardly anybody, and has the time that others leave. The
// others do not lose their shares by that, since the clock goes by what is used.
// Holds mu.
func (l *lane) charge(took time.Duration) time.Duration {
	if took < l.mean {
		return took * took / l.mean
	}
	return took
}

// begin charges ln for work that runs now and was asked for at since. Holds mu.
func (l *lane) begin(ln *line, work func(), since time.Duration) piece {
	used := max(ln.used, since)
	ln.used = used + l.charge(l.expected(ln))
	ln.running++
	return piece{ln, work, ln.used - used}
}

func (l *lane) run(p piece) {
	began := l.now()
	for p.work != nil {
		p.work()
		ended := l.now()
		p = l.next(p, ended-began)
		began = ended
	}
}

// next settles the account for p, which took so long, and takes the next piece
// of work. If that has no work, there is none.
func (l *lane) next(p piece, took time.Duration) piece {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settle(p, took)
	if !l.waits() || l.running > l.size {
		if l.running--; l.running == 0 {
			l.clock += maxDebt // no client is kept waiting: all debts are forgiven
		}
		return piece{}
	}
	return l.take()
}

// resize has as much work run at once as size says, which is called with mu held.
// What runs already is not interrupted.
func (l *lane) resize(size func() int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.size = size()
	for l.waits() && l.running < l.size {
		l.running++
		go l.run(l.take())
	}
}

// take begins the next piece of work that waits. Holds mu.
func (l *lane) take() piece {
	ln := heap.Pop(l.first()).(*line)
	work := ln.work[ln.done]
	ln.work[ln.done] = nil
	ln.done++
	l.waiting--
	p := l.begin(ln, work, ln.since)
	switch {
	case ln.done < len(ln.work):
		l.queue(ln)
	case cap(ln.work) > 64:
		ln.work, ln.done = nil, 0
	default:
		ln.work, ln.done = ln.work[:0], 0
	}
	return p
}

// settle charges ln for what p took instead of what was expected. Holds mu.
func (l *lane) settle(p piece, took time.Duration) {
	l.clock += took / time.Duration(l.active)
	took = min(took, maxDebt)
	if l.mean == 0 {
		l.mean, l.newMean = took, took
	}
	l.mean += (took - l.mean) / 64
	ln := p.line
	if ln.pieces == 0 {
		ln.cost = l.newMean
	}
	ln.cost += (took - ln.cost) / 4
	if ln.pieces < newPieces {
		ln.pieces++
		l.newMean += (took - l.newMean) / 16
	}
	ln.used = min(ln.used+l.charge(took)-p.charged, l.clock+maxDebt)
	ln.running--
	switch {
	case len(ln.work) > 0:
		heap.Remove(ln.in, ln.place)
		l.price(ln)
		heap.Push(ln.in, ln)
	case ln.running == 0:
		l.active--
	}
}

// byDue is a heap of the lines that wait.
type byDue []*line

func (h byDue) Len() int { return len(h) }

func (h byDue) Less(i, j int) bool {
	return h[i].due < h[j].due || h[i].due == h[j].due && h[i].order < h[j].order
}

func (h byDue) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push is for [heap.Push].
func (h *byDue) Push(x any) {
	ln := x.(*line)
	ln.place = len(*h)
	*h = append(*h, ln)
}

// Pop is for [heap.Pop].
func (h *byDue) Pop() any {
	n := len(*h) - 1
	ln := (*h)[n]
	(*h)[n] = nil
	*h = (*h)[:n]
	return ln
}
