package server

import (
	"context"
	"errors"
	"io/fs"
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
	if err := checkRecords(ctx, dir); err != nil && !errors.Is(err, sqlite.ErrOlder) {
		return err
	}
	store, err := files.Open(dir, files.Options{Fsync: true})
	if errors.Is(err, files.ErrLocked) {
		return &Hinted{Err: err, Hint: "Stop the server first: strays cannot be told from its uploads."}
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	// No server has the database open: one of an older schema may be brought up to date.
	reg, err := openRecords(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	return audit.TakeStrays(ctx, reg, store, time.Now(), dryRun, each)
}

// openToChange opens the database in dir, which a server may have open. One of an older
// schema is left alone: a server of that version would take no notice of the new one.
func openToChange(ctx context.Context, dir string) (*sqlite.Registry, error) {
	err := checkRecords(ctx, dir)
	if errors.Is(err, sqlite.ErrOlder) {
		return nil, &Hinted{Err: err, Hint: "Nothing was changed. Start the server of this version first."}
	}
	if err != nil {
		return nil, err
	}
	return openRecords(ctx, dir)
}

// checkRecords opens the database in dir for reading: that makes none, and can tell what
// is wrong where there is none.
func checkRecords(ctx context.Context, dir string) error {
	look, err := openReadOnly(ctx, dir)
	if err != nil {
		return err
	}
	return look.Close()
}

// openRecords opens the database in dir, and brings one of an older schema up to date.
func openRecords(ctx context.Context, dir string) (*sqlite.Registry, error) {
	return sqlite.Open(ctx, filepath.Join(dir, DatabaseName), sqlite.Options{Fsync: true, Beside: true, BusyTimeout: besideTimeout})
}

// besideTimeout is how long a command waits for its turn to write beside a server that
// writes without a pause: SQLite has no line. Of twenty tries one took 3 s.
const besideTimeout = 30 * time.Second
