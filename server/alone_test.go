package server

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// locks are the locks of a registry that several servers have.
type locks struct {
	mu    sync.Mutex
	held  chan struct{} // closed when it is lost; nil: the lock is free
	fails bool
}

func (l *locks) TryLock(context.Context, string) (<-chan struct{}, func(), bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fails {
		return nil, nil, false, errors.New("the database is away")
	}
	if l.held != nil {
		return nil, nil, false, nil
	}
	lost := make(chan struct{})
	l.held = lost
	return lost, func() { l.free(lost) }, true, nil
}

func (l *locks) free(lost chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == lost {
		l.held = nil
	}
}

// lose is the end of the connection that has the lock.
func (l *locks) lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.held)
	l.held = nil
}

// One server at a time does the work of all: one that loses its lock stops, and another one
// takes over, also after the database was away.
func TestOneServerAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(locks)
		ctx, stop := context.WithCancel(t.Context())
		var mu sync.Mutex
		working, begun := 0, 0
		var causes []error
		var servers sync.WaitGroup
		for range 3 {
			servers.Go(func() {
				withLock(ctx, l, "work", zap.NewNop(), func(ctx context.Context) {
					mu.Lock()
					working++
					begun++
					mu.Unlock()
					<-ctx.Done()
					mu.Lock()
					working--
					causes = append(causes, context.Cause(ctx))
					mu.Unlock()
				})
			})
		}
		expect := func(when string, nowWorking, begunInAll int) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if working != nowWorking || begun != begunInAll {
				t.Fatalf("%s: %d work, and %d have begun", when, working, begun)
			}
		}
		expect("at first", 1, 1)
		time.Sleep(3 * lockEvery)
		expect("later", 1, 1)
		l.lose()
		expect("after the lock was lost", 0, 1)
		time.Sleep(lockEvery)
		expect("soon after", 1, 2)
		l.mu.Lock()
		l.fails = true
		l.mu.Unlock()
		l.lose()
		time.Sleep(3 * lockEvery)
		expect("while the database is away", 0, 2)
		l.mu.Lock()
		l.fails = false
		l.mu.Unlock()
		time.Sleep(lockEvery)
		expect("when it is back", 1, 3)
		stop()
		servers.Wait()
		if l.held != nil {
			t.Error("a server that has ended has the lock")
		}
		for i, want := range []error{errLockLost, errLockLost, context.Canceled} {
			if !errors.Is(causes[i], want) {
				t.Errorf("work %d ended by %v", i, causes[i])
			}
		}
	})
}
