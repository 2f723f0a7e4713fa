package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"sealift/internal/infofile"
	"sealift/storage"
	"sealift/storage/files"
	"sealift/storage/postgres"
	"sealift/storage/s3"
	"sealift/storage/sqlite"
)

// Stores say where a server has its records and its files, for commands that work beside
// it or without it.
type Stores struct {
	Dir      string // the server's directory
	Registry string // "" or "sqlite": the database in Dir. Else a URL, postgres://…
	Files    string // "": files/ in Dir. Else a URL, s3://…
}

// database reports whether the records are in the directory.
func (at Stores) database() bool { return cmp.Or(at.Registry, registrySQLite) == registrySQLite }

// folder reports whether the files are in the directory.
func (at Stores) folder() bool { return at.Files == "" }

// check returns what is wrong with at.
func (at Stores) check() error {
	s := Storage{Registry: at.Registry, Files: at.Files}
	if at.Registry != registryMemory {
		return s.complete()
	}
	return &Hinted{
		Err:  errors.New("--registry memory: want a registry that lasts, this one is in the memory of its server"),
		Hint: "Ask the server itself: --api URL, the address that it has with --admin.",
	}
}

// openReadOnly opens the records for reading, and changes nothing. The error says what is
// missing, with a [Hint] where that helps.
func (at Stores) openReadOnly(ctx context.Context) (storage.Registry, error) {
	if err := at.check(); err != nil {
		return nil, err
	}
	if !at.database() {
		return openSharedReadOnly(ctx, at.Registry)
	}
	if err := checkMovedToRead(at.Dir, true, at.folder()); err != nil {
		return nil, err
	}
	reg, err := openDatabaseReadOnly(ctx, at.Dir)
	if err != nil {
		return nil, err
	}
	return reg, nil
}

// openToChange opens the records, which a server may have open. Those of an older schema
// are left alone: a server of that version would take no notice of the new one.
func (at Stores) openToChange(ctx context.Context) (storage.Registry, error) {
	if err := at.check(); err != nil {
		return nil, err
	}
	if !at.database() {
		return openSharedToChange(ctx, at.Registry)
	}
	if err := checkMoved(at.Dir, true, at.folder()); err != nil {
		return nil, err
	}
	err := checkRecords(ctx, at.Dir)
	if errors.Is(err, sqlite.ErrOlder) {
		return nil, &Hinted{Err: err, Hint: "Nothing was changed. Start the server of this version first."}
	}
	if err != nil {
		return nil, err
	}
	reg, err := openRecords(ctx, at.Dir)
	if err != nil {
		return nil, err
	}
	return reg, nil
}

// openContent opens the files of reg for reading, beside a server or without one.
func (at Stores) openContent(ctx context.Context, reg storage.Registry) (fileStore, error) {
	if err := at.checkTogether(ctx, reg); err != nil {
		return nil, err
	}
	if !at.folder() {
		return openBucket(ctx, at.Files)
	}
	if err := checkMovedToRead(at.Dir, false, true); err != nil {
		return nil, err
	}
	store, err := files.OpenReadOnly(at.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Hinted{Err: err, Hint: "Is the right disk mounted?"}
	}
	if err != nil {
		return nil, err
	}
	return store, nil
}

// openAlone opens the files of reg to do what a server does beside its loops. It returns nil if
// there is a server, which does so itself.
func (at Stores) openAlone(ctx context.Context, reg storage.Registry) (fileStore, error) {
	if err := at.checkTogether(ctx, reg); err != nil {
		return nil, err
	}
	if at.folder() {
		store, err := files.Open(at.Dir, files.Options{Fsync: true})
		if errors.Is(err, files.ErrLocked) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return store, nil
	}
	return at.openBucketAlone(ctx, reg)
}

// checkRecords opens the database in dir for reading: that makes none, and can tell what
// is wrong where there is none.
func checkRecords(ctx context.Context, dir string) error {
	look, err := openDatabaseReadOnly(ctx, dir)
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

// openDatabaseReadOnly opens the database in dir for reading.
func openDatabaseReadOnly(ctx context.Context, dir string) (*sqlite.Registry, error) {
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	reg, err := sqlite.OpenReadOnly(ctx, filepath.Join(dir, DatabaseName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, explainNoDatabase(ctx, dir, err)
	case errors.Is(err, sqlite.ErrFolder) || errors.Is(err, fs.ErrPermission):
		return nil, &Hinted{Err: err, Hint: "Run this as the user that the server runs as."}
	}
	return reg, err
}

// explainNoDatabase returns err, or a better error if the database alone is
// missing.
func explainNoDatabase(ctx context.Context, dir string, err error) error {
	store, e := files.OpenReadOnly(dir)
	if e != nil {
		return err
	}
	defer store.Close()
	if stored, e := hasStored(ctx, store); e == nil && stored {
		return noRecords(dir)
	}
	return err
}

// openSharedReadOnly opens the records in a PostgreSQL for reading.
func openSharedReadOnly(ctx context.Context, url string) (storage.Registry, error) {
	reg, err := postgres.OpenReadOnly(ctx, url, commandOptions)
	if err != nil {
		return nil, explainPostgres("--registry", err)
	}
	return reg, nil
}

// openSharedToChange opens the records in a PostgreSQL, which servers may have open.
func openSharedToChange(ctx context.Context, url string) (storage.Registry, error) {
	look, err := openSharedReadOnly(ctx, url) // makes no tables where there are none
	if err != nil {
		return nil, err
	}
	if err := look.Close(); err != nil {
		return nil, err
	}
	reg, err := postgres.Open(ctx, url, commandOptions)
	if err != nil {
		return nil, explainPostgres("--registry", err)
	}
	return reg, nil
}

// commandOptions are for commands, which ask for little at a time.
var commandOptions = postgres.Options{Connections: 4}

// explainPostgres says of which setting err is, which opened no PostgreSQL, and what can be done.
func explainPostgres(flag string, err error) error {
	err = fmt.Errorf("%s: %w", flag, err)
	if advice := postgres.Advice(err); advice != "" {
		return &Hinted{Err: err, Hint: advice}
	}
	if errors.Is(err, postgres.ErrOlder) {
		return &Hinted{Err: err, Hint: "Nothing was changed. Is this the right database, and schema? Start a server of this version on it first."}
	}
	return err
}

// openBucket opens the files in a bucket, to read and to remove them.
func openBucket(ctx context.Context, url string) (fileStore, error) {
	store, err := s3.Open(ctx, url, s3.Options{})
	if err != nil {
		return nil, fmt.Errorf("--files: %w", err)
	}
	return store, nil
}

// lockedStore is a store that is locked otherwise than by being open.
type lockedStore struct {
	fileStore
	unlock func()
}

func (s *lockedStore) Close() error {
	err := s.fileStore.Close()
	s.unlock()
	return err
}

// openBucketAlone is openAlone for files in a bucket. What servers that share their stores do
// one at a time, they do under a lock of the registry; one that has a database of its own locks
// its directory.
func (at Stores) openBucketAlone(ctx context.Context, reg storage.Registry) (fileStore, error) {
	unlock, err := at.lockAlone(ctx, reg)
	if unlock == nil {
		return nil, err
	}
	store, err := openBucket(ctx, at.Files)
	if err != nil {
		unlock()
		return nil, err
	}
	return &lockedStore{store, unlock}, nil
}

// lockAlone takes that lock. unlock is nil if a server has it.
func (at Stores) lockAlone(ctx context.Context, reg storage.Registry) (unlock func(), err error) {
	if locker, ok := reg.(storage.Locker); ok {
		_, unlock, ok, err := locker.TryLock(ctx, lockMaintenance)
		if !ok {
			return nil, err
		}
		return unlock, nil
	}
	f, err := os.OpenFile(filepath.Join(at.Dir, dirLockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := infofile.TryLock(f); err != nil {
		_ = f.Close()
		if errors.Is(err, infofile.ErrBusy) {
			err = nil
		}
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}
