package server

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"sealift/internal/infofile"
	"sealift/storage/files"
	"sealift/storage/s3"
)

// openBucket takes the directory, and opens the bucket with the files.
func (s *Server) openBucket(ctx context.Context) error {
	o := &s.o
	waiting, stop := context.WithTimeout(ctx, storeWait)
	defer stop()
	unlock, err := infofile.Lock(waiting, filepath.Join(o.Dir, dirLockName))
	if errors.Is(err, infofile.ErrBusy) {
		err = fmt.Errorf("%s: %w", o.Dir, files.ErrLocked)
	}
	if err != nil {
		return err
	}
	s.unlock = unlock
	store, err := s3.Open(ctx, o.Storage.Files, s3.Options{
		Scratch: filepath.Join(o.Dir, "scratch"), Lease: s.leaseUpload, Release: s.endLease, Log: o.Log.Named("bucket"),
		Observed: s.watched.requested(),
	})
	if err != nil {
		return fmt.Errorf("--files %w", err)
	}
	s.store = store
	return nil
}

// dirLockName is the file whose lock a server has that keeps no files in its directory.
const dirLockName = "sealiftd"

// requested is s3.Options.Observed.
func (w *watched) requested() func(request string, took time.Duration, err error) {
	if w == nil {
		return nil
	}
	return w.metrics.Requested
}
