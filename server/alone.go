package server

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"sealift/storage"
)

// What one of the servers that share their stores does at a time, by the names of the locks:
// removing what nobody needs any more, looking for content that no record names, and telling
// events.
const (
	lockMaintenance = "maintenance"
	lockSweep       = "sweep"
	lockEvents      = "events"
)

// lockEvery is how often a server tries to take a lock that another one has: so long nobody
// does the work of one that was killed.
const lockEvery = 5 * time.Second

// alone calls do while this server alone is to do what the lock of that name is about, with a
// context that ends when that is over, or ctx ends; and again, each time that it has the lock,
// until ctx ends. A server that has its stores for itself needs no lock.
func (s *Server) alone(ctx context.Context, name string, do func(context.Context)) {
	if locker, ok := s.registry.(storage.Locker); ok && s.o.Storage.shared() {
		withLock(ctx, locker, name, s.o.Log, do)
	} else {
		do(ctx)
	}
}

// withLock is alone where there are locks.
func withLock(ctx context.Context, locks storage.Locker, name string, log *zap.Logger, do func(context.Context)) {
	log = log.With(zap.String("lock", name))
	for failed := false; ctx.Err() == nil; {
		lost, unlock, ok, err := locks.TryLock(ctx, name)
		if ok {
			log.Info("this server does the work of all")
			if held(ctx, lost, do) && ctx.Err() == nil {
				log.Warn("this server leaves the work of all to others, since its lock was lost")
			}
			unlock()
		}
		if err != nil && !failed && ctx.Err() == nil { // once, until it goes well again
			log.Error("taking a lock failed", zap.Error(err))
		}
		failed = err != nil
		_ = pause(ctx, lockEvery)
	}
}

// eventsLock is the lock of telling events. Servers that are told of no target leave that to
// those that are.
func (s *Server) eventsLock() string {
	if !s.o.Events.any() {
		return lockEvents + " of no target"
	}
	return lockEvents
}

// errLockLost is the cause of the end of what needs a lock.
var errLockLost = errors.New("another server may have the lock now")

// held calls do with a context that ends when lost is closed, and reports whether it was.
func held(ctx context.Context, lost <-chan struct{}, do func(context.Context)) bool {
	ctx, stop := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-lost:
			stop(errLockLost)
		case <-ctx.Done():
		}
	}()
	do(ctx)
	stop(nil)
	<-watched
	return errors.Is(context.Cause(ctx), errLockLost)
}
