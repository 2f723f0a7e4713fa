package transfer_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"sealift/transfer"
)

// worker does one job at a time beside the owner.
type worker struct {
	jobs    chan func() error
	results chan error
	after   func() error // on the owner's goroutine, when the job is done; nil: it is idle
}

// start gives the worker the next job of c, if it is idle and there is one.
func (w *worker) start(c *caller) error {
	ctx := context.Background()
	switch {
	case w.after != nil:
	case len(c.queue) > 0:
		p := c.queue[0]
		c.queue = c.queue[1:]
		w.after = func() error { return nil }
		w.jobs <- func() error { return c.tr.Write(ctx, &p) }
	case c.fill.Len() == 0 && c.tr.Behind():
		due, err := c.tr.Due()
		if err != nil {
			return err
		}
		w.after = func() error { return c.tr.CaughtUp(due) }
		w.jobs <- func() error { return c.tr.CatchUp(ctx, due) }
	}
	return nil
}

// wait waits for the job that is under way.
func (w *worker) wait() error {
	if w.after == nil {
		return nil
	}
	err := <-w.results
	if err == nil {
		err = w.after()
	}
	w.after = nil
	return err
}

// TestWorkerBesideOwner: the owner takes packets while the worker is at work. The
// race detector sees what both touch.
func TestWorkerBesideOwner(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 2))
		l := layouts[r.IntN(len(layouts))]
		t.Run(fmt.Sprint(seed, " ", l), func(t *testing.T) {
			file := random(seed, 30_000)
			plan, packets := l.packets(file, 100)
			for i := range packets { // some of them early
				if j := i + r.IntN(10); r.IntN(2) == 0 && j < len(packets) {
					packets[i], packets[j] = packets[j], packets[i]
				}
			}
			c := newCaller(t, plan, true)
			c.memory.grants = func(int) bool { return r.IntN(2) == 0 }
			w := &worker{jobs: make(chan func() error), results: make(chan error, 1)}
			go func() {
				for job := range w.jobs {
					w.results <- job()
				}
			}()
			defer close(w.jobs)
			check := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			for _, p := range packets {
				for {
					turn, err := c.tr.Turn(p.number, uint32(len(p.content)))
					check(err)
					if turn != transfer.Blocked {
						break
					}
					c.push()
					check(w.start(c))
					check(w.wait())
				}
				check(c.take(p))
				if r.IntN(3) == 0 {
					c.push()
				}
				if w.after != nil && len(w.results) > 0 {
					check(w.wait())
				}
				check(w.start(c))
			}
			check(w.wait())
			check(c.all(nil))
			c.received(file)
		})
	}
}
