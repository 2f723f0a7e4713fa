package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"sealift/storage"
	"sealift/storage/audit"
)

// removeLeaving removes the content of files that are taken or deleted, each time that
// clearDue says so, until ctx ends.
func (s *Server) removeLeaving(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.clearDue:
		}
		o := s.auditOptions(time.Now())
		o.Exclusive = s.service.Exclusive
		if _, err := audit.Clear(ctx, s.registry, s.store, o); err != nil && ctx.Err() == nil {
			s.o.Log.Error("removing files that are taken or deleted failed", zap.Error(err))
		}
	}
}

// lookForLeaving has removeLeaving look. It does not wait for it.
func (s *Server) lookForLeaving() {
	select {
	case s.clearDue <- struct{}{}:
	default: // it will look anyway
	}
}

// clearAlone removes the content of files that are taken or deleted, partial ones too, unless there is a server,
// which does so itself. alone reports whether there was none. A server that is
// started meanwhile has the files after a moment, and the rest to remove.
func clearAlone(ctx context.Context, at Stores, reg storage.Registry) (alone bool, err error) {
	for more := true; more; {
		if alone, more, err = clearSome(ctx, at, reg); err == nil && more {
			err = clearPause(ctx)
		}
		if err != nil {
			return alone, err
		}
	}
	return alone, nil
}

// For how long clearAlone has the files at a time, and how long it leaves it to a server
// that waits at its start, which looks every storeWait/100.
var (
	clearTurn  = storeWait / 3
	clearPause = func(ctx context.Context) error { return pause(ctx, storeWait/20) }
)

// clearSome is clearAlone for as many files as there is time for. more: there are others.
func clearSome(ctx context.Context, at Stores, reg storage.Registry) (alone, more bool, err error) {
	store, err := at.openAlone(ctx, reg)
	if err != nil || store == nil {
		return false, false, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	var failed error
	began := time.Now()
	log := func(f audit.Finding) {
		if f.Event == audit.Failed {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", f.File.PathName(), f.Err))
		}
	}
	if _, err = audit.SweepPartials(ctx, reg, store, audit.PartialOptions{Now: began, Log: log}); err != nil {
		return true, false, err
	}
	_, err = audit.Clear(ctx, reg, store, audit.Options{
		Now: began, Log: log,
		Enough: func() bool {
			more = time.Since(began) > clearTurn
			return more
		},
	})
	return true, more, errors.Join(err, failed)
}

// departPatience is for how long a command waits without seeing a file go.
var departPatience = 30 * time.Second

// How often a command looks whether a running server has removed files, and whether there
// still is a server.
const (
	departEvery = 50 * time.Millisecond
	departAlone = 2 * time.Second
)

// depart waits until left, which counts the files that are still to be removed, returns 0:
// a running server removes them, or the command itself if there is none.
func depart(ctx context.Context, at Stores, reg storage.Registry, left func() (int, error)) error {
	var alone time.Time // when to try to do it alone
	return waitToDepart(ctx, left, func() error {
		if now := time.Now(); now.After(alone) {
			done, err := clearAlone(ctx, at, reg)
			if err != nil {
				return err
			}
			alone = now.Add(departAlone)
			if done {
				alone = now // the rest is what came meanwhile
			}
		}
		return nil
	})
}

// waitToDepart waits until left returns 0, and calls help before each wait.
func waitToDepart(ctx context.Context, left func() (int, error), help func() error) error {
	began, last := time.Now(), -1
	for {
		n, err := left()
		if n == 0 || err != nil {
			return err
		}
		now := time.Now()
		if n != last {
			began, last = now, n
		}
		if err := help(); err != nil {
			return err
		}
		if now.Sub(began) > departPatience {
			return &Hinted{
				Err:  fmt.Errorf("the server has not removed %s, which it is told to remove", countFiles(n)),
				Hint: "Look at its log. It goes on when it can, also after a restart; running this again is safe.",
			}
		}
		if err := pause(ctx, departEvery); err != nil {
			return err
		}
	}
}

func countFiles(n int) string {
	if n == 1 {
		return "1 file"
	}
	return fmt.Sprintf("%d files", n)
}
