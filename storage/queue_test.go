package storage_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sealift/storage"
)

var errStore = errors.New("the store failed")

// held is a registry whose batches end when the test says so.
type held struct {
	storage.Registry
	began chan []storage.Operation
	end   chan func() error // what Apply does then
}

func newHeld() *held {
	return &held{began: make(chan []storage.Operation, 8), end: make(chan func() error)}
}

func (h *held) Apply(_ context.Context, batch []storage.Operation) error {
	h.began <- batch
	return (<-h.end)()
}

func (h *held) succeed() { h.end <- func() error { return nil } }

func write() storage.Operation { return &storage.Seen{} }
func read() storage.Operation  { return &storage.GetClient{} }

// results are what the done functions got, in their order.
type results chan error

func (r results) done(err error) { r <- err }

// What is submitted while a batch is under way makes one batch, in order.
func TestQueueGathers(t *testing.T) {
	h, got := newHeld(), make(results, 8)
	q := storage.NewQueue(t.Context(), h)
	q.Submit(write(), got.done)
	if n := len(<-h.began); n != 1 {
		t.Fatalf("the first batch has %d operations", n)
	}
	more := []storage.Operation{write(), write(), write()}
	for i, op := range more {
		if i == 1 {
			op.Result().Err = storage.ErrNoClient
		}
		q.Submit(op, got.done)
	}
	h.succeed()
	batch := <-h.began
	if len(batch) != len(more) {
		t.Fatalf("the second batch has %d operations, want %d", len(batch), len(more))
	}
	for i, op := range more {
		if batch[i] != op {
			t.Errorf("operation %d of the batch is another", i)
		}
	}
	h.succeed()
	for i, want := range []error{nil, nil, storage.ErrNoClient, nil} {
		if err := <-got; err != want {
			t.Errorf("result %d is %v, want %v", i, err, want)
		}
	}
}

// An operation that only reads does not wait for a commit that is under way.
func TestQueueReadsBesideWrites(t *testing.T) {
	h, wrote, gotten := newHeld(), make(results, 1), make(results, 1)
	q := storage.NewQueue(t.Context(), h)
	q.Submit(write(), wrote.done)
	<-h.began
	q.Submit(read(), gotten.done)
	select {
	case <-h.began:
	case <-time.After(10 * time.Second):
		t.Fatal("the reading waits for the writing")
	}
	h.succeed()
	h.succeed()
	<-wrote
	<-gotten
}

// What fails a batch fails each operation in it, and the next batch is applied
// all the same.
func TestQueueFailure(t *testing.T) {
	h, got := newHeld(), make(results, 8)
	q := storage.NewQueue(t.Context(), h)
	for _, c := range []struct {
		name string
		end  func() error
		want string
	}{
		{"error", func() error { return errStore }, errStore.Error()},
		{"panic", func() error { panic("out of order") }, "panic: out of order"},
	} {
		t.Run(c.name, func(t *testing.T) {
			q.Submit(write(), got.done)
			<-h.began
			q.Submit(write(), got.done)
			q.Submit(write(), got.done)
			h.succeed()
			<-h.began
			h.end <- c.end
			if err := <-got; err != nil {
				t.Errorf("before it failed: %v", err)
			}
			for range 2 {
				if err := <-got; err == nil || !strings.HasPrefix(err.Error(), c.want) {
					t.Errorf("got %v, want %s", err, c.want)
				}
			}
		})
	}
}

// No batch is larger than 1,024, so that the first in it does not wait for too many.
func TestQueueBoundsBatches(t *testing.T) {
	const most, n = 1024, 1500
	h, got := newHeld(), make(results, n+1)
	q := storage.NewQueue(t.Context(), h)
	q.Submit(write(), got.done)
	<-h.began
	for range n {
		q.Submit(write(), got.done)
	}
	for _, want := range []int{most, n - most} {
		h.succeed()
		if got := len(<-h.began); got != want {
			t.Fatalf("a batch of %d, want %d", got, want)
		}
	}
	h.succeed()
	for range n + 1 {
		if err := <-got; err != nil {
			t.Error(err)
		}
	}
}

// A queue whose context ends while many submit: each done is called, what comes later
// gets the error of the context, and no goroutine is left.
func TestQueueEnds(t *testing.T) {
	for round := range 100 {
		synctest.Test(t, func(t *testing.T) {
			ctx, end := context.WithCancel(t.Context())
			q := storage.NewQueue(ctx, ending{})
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					for i := range 20 {
						got := make(results, 1)
						q.Submit([]storage.Operation{write(), read()}[i%2], got.done)
						if err := <-got; err != nil && !errors.Is(err, context.Canceled) {
							t.Error(err)
						}
					}
				})
			}
			if round%2 == 0 {
				wg.Wait()
				synctest.Wait() // the queue waits for more
			}
			end()
			wg.Wait()
			got := make(results, 1)
			q.Submit(write(), got.done)
			if err := <-got; !errors.Is(err, context.Canceled) {
				t.Errorf("submitted after the end: %v", err)
			}
		})
	}
}

// ending is a registry that looks at its context alone.
type ending struct{ storage.Registry }

func (ending) Apply(ctx context.Context, _ []storage.Operation) error { return ctx.Err() }
