package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/storage"
	"sealift/storage/files"
	"sealift/storage/memory"
	"sealift/storage/sqlite"
)

// ErrNoRecords is a directory with stored files of which there are no records:
// its database was lost.
var ErrNoRecords = errors.New("there are stored files, and no record of any client")

// openRegistry opens the registry that goes with store.
func openRegistry(ctx context.Context, o *Options, store *files.Store) (storage.Registry, error) {
	if o.Storage.Registry == registryMemory {
		return openMemory(ctx, o, store)
	}
	return openDatabase(ctx, o, store)
}

// openDatabase opens the database, unless it is empty beside stored files.
func openDatabase(ctx context.Context, o *Options, store *files.Store) (storage.Registry, error) {
	path := filepath.Join(o.Dir, DatabaseName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		// Looked at before the database is made: nothing of it is to stay.
		if err := refuseStored(ctx, o.Dir, store); err != nil {
			return nil, err
		}
	}
	reg, err := sqlite.Open(ctx, path, sqlite.Options{Fsync: o.Storage.Fsync})
	if err != nil {
		return nil, err
	}
	empty, err := isEmpty(ctx, reg)
	emptied := false // the last client was deleted, beside a file that somebody else has put there
	if err == nil && empty {
		emptied, err = reg.Emptied(ctx)
	}
	if err == nil && empty && !emptied {
		err = refuseStored(ctx, o.Dir, store)
	}
	if err != nil {
		return nil, errors.Join(err, reg.Close())
	}
	return reg, nil
}

// openMemory makes a registry in memory, unless there is a database: what that
// waits for would be removed as something that no record knows.
func openMemory(ctx context.Context, o *Options, store *files.Store) (storage.Registry, error) {
	path := filepath.Join(o.Dir, DatabaseName)
	if _, err := os.Lstat(path); err == nil {
		return nil, &Hinted{
			Err:  fmt.Errorf("--registry memory beside %s: want a directory without a database", path),
			Hint: "The files here belong to that database. Give a registry in memory another --dir.",
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	stored, err := hasStored(ctx, store)
	if err != nil {
		return nil, err
	}
	if stored {
		o.Log.Warn("stored files of earlier clients were found; no client gets the id of one of them", zap.String("dir", o.Dir))
	}
	return memory.New(), nil
}

// refuseStored returns an error if there are stored files.
func refuseStored(ctx context.Context, dir string, store *files.Store) error {
	stored, err := hasStored(ctx, store)
	if err == nil && stored {
		err = noRecords(dir)
	}
	return err
}

// noRecords is ErrNoRecords about dir, with what can be done.
func noRecords(dir string) error {
	return &Hinted{
		Err: fmt.Errorf("%s: %w", dir, ErrNoRecords),
		Hint: fmt.Sprintf("Was %[1]s lost? Put it back from a backup. To start anew without it, move %[2]s away.",
			filepath.Join(dir, DatabaseName), filepath.Join(dir, "files")),
	}
}

// errFound ends a walk over files, or clients, that found what it looked for.
var errFound = errors.New("found")

// hasStored reports whether there is a file in any client's folder.
func hasStored(ctx context.Context, store *files.Store) (bool, error) {
	err := store.EachStored(ctx, func(codec.ClientID, string) error { return errFound })
	if errors.Is(err, errFound) {
		return true, nil
	}
	return false, err
}

// isEmpty reports whether reg has no client.
func isEmpty(ctx context.Context, reg storage.Registry) (bool, error) {
	err := reg.Clients(ctx, func(storage.Client) error { return errFound })
	if errors.Is(err, errFound) || errors.Is(err, storage.ErrBadRows) {
		return false, nil
	}
	return err == nil, err
}
