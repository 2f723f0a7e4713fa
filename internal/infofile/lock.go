package infofile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// ErrBusy says that another process holds the lock of a file for too long.
var ErrBusy = errors.New("another process is writing it")

// How often a process that waits for a lock looks: at first, and at most.
const (
	lockInterval    = 5 * time.Millisecond
	maxLockInterval = 100 * time.Millisecond
)

// Lock takes the lock of the file at path: a file of its own, path.lock, that
// stays. It waits until ctx ends, and returns an ErrBusy then. The system takes
// the lock back when the process ends, however it ends.
func Lock(ctx context.Context, path string) (unlock func(), err error) {
	path += ".lock"
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrPermission) {
		if old, openErr := os.Open(path); openErr == nil {
			f, err = old, nil // to take a lock, reading is enough
		}
	}
	if err != nil {
		return nil, err
	}
	for wait := lockInterval; ; wait = min(2*wait, maxLockInterval) {
		err := tryLock(f)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if errors.Is(err, ErrBusy) && ctx.Err() == nil {
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
			}
			continue
		}
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
}

// TryLock takes the lock of f, until f is closed, or returns ErrBusy at once. On a file
// system without locks it does nothing.
func TryLock(f *os.File) error { return tryLock(f) }
