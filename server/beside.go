package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"sealift/storage"
	"sealift/storage/files"
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

// openContent opens the files for reading, beside a server or without one.
func (at Stores) openContent(ctx context.Context) (fileStore, error) {
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

// openAlone opens the files to do what a server does beside its loops. It returns nil if
// there is a server, which does so itself.
func (at Stores) openAlone(ctx context.Context, reg storage.Registry) (fileStore, error) {
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
	return openBucketAlone(ctx, at, reg)
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

// Until the stores that several servers share are there.

func openSharedReadOnly(context.Context, string) (storage.Registry, error) {
	return nil, fmt.Errorf("no such registry")
}

func openSharedToChange(context.Context, string) (storage.Registry, error) {
	return nil, fmt.Errorf("no such registry")
}

func openBucket(context.Context, string) (fileStore, error) { return nil, fmt.Errorf("no such store") }

func openBucketAlone(context.Context, Stores, storage.Registry) (fileStore, error) {
	return nil, fmt.Errorf("no such store")
}
