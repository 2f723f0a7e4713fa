package server

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"sealift/storage/audit"
	"sealift/storage/files"
	"sealift/storage/sqlite"
)

// ForgetMissing forgets the files on record in dir that are not in their place, and
// calls each with every one; see [audit.ForgetMissing]. The server may run.
func ForgetMissing(ctx context.Context, dir string, dryRun bool, each func(File)) (err error) {
	reg, err := openToChange(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	store, err := files.OpenReadOnly(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return &Hinted{Err: err, Hint: "Is the right disk mounted? To forget all files, make that folder."}
	}
	if err != nil {
		return err
	}
	defer store.Close()
	return audit.ForgetMissing(ctx, reg, store, dryRun, each)
}

// TakeStrays records the files in clients' folders in dir that are not on record,
// and calls each with every one, and with nil or the reason for which it was left
// alone; see [audit.TakeStrays]. No server may run.
func TakeStrays(ctx context.Context, dir string, dryRun bool, each func(File, error)) (err error) {
	reg, err := openToChange(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	store, err := files.Open(dir, files.Options{Fsync: true})
	if errors.Is(err, files.ErrLocked) {
		return &Hinted{Err: err, Hint: "Stop the server first: strays cannot be told from its uploads."}
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return audit.TakeStrays(ctx, reg, store, time.Now(), dryRun, each)
}

// openToChange opens the database in dir. It is opened for reading first: that
// makes no database, and can tell what is wrong where there is none.
func openToChange(ctx context.Context, dir string) (*sqlite.Registry, error) {
	look, err := openReadOnly(ctx, dir)
	switch {
	case err == nil:
		_ = look.Close()
	case !errors.Is(err, sqlite.ErrOlder):
		return nil, err
	case hasServer(dir):
		return nil, &Hinted{Err: err, Hint: "Nothing was changed: a server of that version is running. Stop it first, and start one of this version."}
	default: // the next Open brings it up to date
	}
	return sqlite.Open(ctx, filepath.Join(dir, DatabaseName), sqlite.Options{Fsync: true, Beside: true, BusyTimeout: besideTimeout})
}

// hasServer reports whether a server, or a command without one, has dir.
func hasServer(dir string) bool {
	if _, err := os.Lstat(filepath.Join(dir, "files")); err != nil {
		return false
	}
	store, err := files.Open(dir, files.Options{})
	if err == nil {
		_ = store.Close()
	}
	return errors.Is(err, files.ErrLocked)
}

// besideTimeout is how long a command waits for its turn to write beside a server that
// writes without a pause: SQLite has no line. Of twenty tries one took 3 s.
const besideTimeout = 30 * time.Second
