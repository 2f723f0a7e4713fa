package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"sealift/internal/infofile"
	"sealift/storage/files"
	"sealift/storage/s3"
)

// bucketPatience is how long a request to a bucket is repeated: a client waits for a reply for a
// minute, and one that has none does not learn why.
const bucketPatience = 30 * time.Second

// bucketWorkers is how many workers a server has at least, unless it is told: one that stores a
// small file waits for the bucket, 5 to 50 ms, and does nothing else.
const bucketWorkers = 32

// openBucket takes the directory, and opens the bucket with the files.
func (s *Server) openBucket(ctx context.Context) error {
	o := &s.o
	if err := s.lockDir(ctx); err != nil {
		return err
	}
	defer s.waitFor(o.Storage.Files)()
	store, err := s3.Open(ctx, o.Storage.Files, s3.Options{
		Scratch: filepath.Join(o.Dir, scratchFolder), Lease: s.leaseUpload, Release: s.endLease, Log: o.Log.Named("bucket"),
		Observed: s.watched.requested(), Patience: cmp.Or(o.Testing.Patience, bucketPatience),
	})
	if err != nil {
		return fmt.Errorf("--files: %w", err)
	}
	s.store = store
	return nil
}

// dirLockName is the file whose lock a server has that keeps no files in its directory.
const dirLockName = "sealiftd.lock"

// lockDir takes that lock. A command that finds no server has it for a moment.
func (s *Server) lockDir(ctx context.Context) error {
	f, err := os.OpenFile(filepath.Join(s.o.Dir, dirLockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	for began := time.Now(); ; {
		err := infofile.TryLock(f)
		if err == nil {
			s.unlock = func() { _ = f.Close() }
			return nil
		}
		if errors.Is(err, infofile.ErrBusy) && time.Since(began) < storeWait {
			if err = pause(ctx, storeWait/100); err == nil {
				continue
			}
		}
		if errors.Is(err, infofile.ErrBusy) {
			err = fmt.Errorf("%s: %w", s.o.Dir, files.ErrLocked)
		}
		return errors.Join(err, f.Close())
	}
}

// requested is s3.Options.Observed.
func (w *watched) requested() func(request string, took time.Duration, err error) {
	if w == nil {
		return nil
	}
	return w.metrics.Requested
}
