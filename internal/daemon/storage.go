package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/session"
	"sealift/storage"
	"sealift/storage/audit"
	"sealift/storage/files"
	"sealift/storage/memory"
	"sealift/storage/sqlite"
)

// ErrNoRecords is a directory with stored files of which there are no records:
// its database was lost.
var ErrNoRecords = errors.New("there are stored files, and no record of any client")

// openRegistry opens the registry that goes with store.
func openRegistry(ctx context.Context, cfg *Config, store *files.Store) (storage.Registry, error) {
	switch cfg.Registry {
	case "", "sqlite":
		return openDatabase(ctx, cfg, store)
	case "memory":
		return openMemory(ctx, cfg, store)
	}
	return nil, fmt.Errorf("--registry %q: want sqlite or memory", cfg.Registry)
}

// openDatabase opens the database, unless it is empty beside stored files.
func openDatabase(ctx context.Context, cfg *Config, store *files.Store) (storage.Registry, error) {
	path := filepath.Join(cfg.Dir, DatabaseName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		// Looked at before the database is made: nothing of it is to stay.
		if err := refuseStored(ctx, cfg.Dir, store); err != nil {
			return nil, err
		}
	}
	reg, err := sqlite.Open(ctx, path, sqlite.Options{Fsync: cfg.Fsync})
	if err != nil {
		return nil, err
	}
	empty, err := isEmpty(ctx, reg)
	if err == nil && empty {
		err = refuseStored(ctx, cfg.Dir, store)
	}
	if err != nil {
		return nil, errors.Join(err, reg.Close())
	}
	return reg, nil
}

// openMemory makes a registry in memory, unless there is a database: what that
// waits for would be removed as something that no record knows.
func openMemory(ctx context.Context, cfg *Config, store *files.Store) (storage.Registry, error) {
	path := filepath.Join(cfg.Dir, DatabaseName)
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
		cfg.Log.Warn("stored files of earlier clients were found; no client gets the id of one of them", zap.String("dir", cfg.Dir))
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

// OpenReadOnly opens the database of the server in dir for reading, which is
// possible beside it.
func OpenReadOnly(ctx context.Context, dir string) (*sqlite.Registry, error) {
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	reg, err := sqlite.OpenReadOnly(ctx, filepath.Join(dir, DatabaseName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, explainNoDatabase(ctx, dir, err)
	}
	return reg, err
}

// explainNoDatabase returns err, or something better to say where it is the
// database that is missing and nothing else.
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

// recoverStorage puts the storage in order. missing is how many stored files were
// not found.
func recoverStorage(ctx context.Context, cfg *Config, service *session.Service, reg storage.Registry, store *files.Store) (missing int, err error) {
	o := storageOptions(cfg, service, time.Now())
	var waiting []storage.File
	o.Waiting = func(f *storage.File) { waiting = append(waiting, *f) }
	report, err := audit.Recover(ctx, reg, store, o)
	var gone *audit.FilesGoneError
	if errors.As(err, &gone) {
		return 0, &Hinted{Err: err, Hint: "Is the right disk mounted? To start without them: sealiftd forget-missing --dir " + cfg.Dir}
	}
	var alike *audit.AlikeError
	if errors.As(err, &alike) {
		return 0, &Hinted{Err: err, Hint: "Move " + cfg.Dir + " to a disk that tells them apart: one of each two was lost when it came here. " +
			"Put the files back from a backup, then start the server there."}
	}
	if err != nil {
		return 0, fmt.Errorf("putting the storage in order: %w", err)
	}
	for _, f := range waiting {
		service.Waiting(f.ID, session.Occupies(f.Size))
	}
	missing = report[audit.Missing]
	if missing > 0 {
		cfg.Log.Error("stored files were not found; they are marked as missing", zap.Int("count", missing))
	}
	cfg.Log.Debug("storage is in order", zap.Any("findings", report))
	return missing, nil
}

func storageOptions(cfg *Config, service *session.Service, now time.Time) audit.Options {
	return audit.Options{
		UnverifiedTTL: cfg.UnverifiedTTL, Now: now,
		Dropped: service.Dropped,
		Log: func(f audit.Finding) {
			cfg.Log.Warn("storage", zap.String("finding", string(f.Event)), zap.String("client", f.File.ID.String()),
				zap.String("path", f.File.Path), zap.String("incoming", f.File.Incoming), zap.Error(f.Err))
		},
	}
}

// expireEvery is how often files that stay unverified are looked for.
const expireEvery = 10 * time.Minute

// maintain removes what nobody needs any more, beside the server, until ctx ends.
// missing is how many stored files were not found at the start.
func maintain(ctx context.Context, cfg *Config, missing int, service *session.Service, reg storage.Registry, store *files.Store) {
	// Where files are missing, an empty folder may be the place of a disk that is
	// not mounted.
	if missing == 0 {
		if err := store.RemoveEmptyFolders(ctx); err != nil && ctx.Err() == nil {
			cfg.Log.Error("removing empty folders failed", zap.Error(err))
		}
	}
	ticker := time.NewTicker(expireEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			o := storageOptions(cfg, service, now)
			o.Exclusive = service.Exclusive
			if _, err := audit.Expire(ctx, reg, store, o); err != nil && ctx.Err() == nil {
				cfg.Log.Error("removing what is unverified failed", zap.Error(err))
			}
		}
	}
}
