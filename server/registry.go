package server

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
	"sealift/storage"
	"sealift/storage/audit"
	"sealift/storage/files"
	"sealift/storage/memory"
	"sealift/storage/postgres"
	"sealift/storage/sqlite"
)

// ErrNoRecords is a directory with stored files of which there are no records:
// its database was lost.
var ErrNoRecords = errors.New("there are stored files, and no record of any client")

// openDatabase opens the database, unless it is empty beside stored files.
func openDatabase(ctx context.Context, o *Options, store fileStore) (storage.Registry, error) {
	path := filepath.Join(o.Dir, DatabaseName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		// Looked at before the database is made: nothing of it is to stay.
		if err := refuseStored(ctx, o, store); err != nil {
			return nil, err
		}
	}
	reg, err := sqlite.Open(ctx, path, sqlite.Options{Fsync: o.Storage.Fsync})
	if err != nil {
		return nil, err
	}
	if err := refuseUnknown(ctx, o, reg, store); err != nil {
		return nil, errors.Join(err, reg.Close())
	}
	return reg, nil
}

// refuseUnknown returns an error if there are stored files and reg is empty. Of a bucket it must
// know some client, or it is another registry's: what it does not know would be swept.
func refuseUnknown(ctx context.Context, o *Options, reg storage.Registry, store fileStore) error {
	empty, err := isEmpty(ctx, reg)
	if contents, ok := store.(audit.Contents); ok && err == nil && !empty {
		return refuseStrangers(ctx, o, reg, contents)
	}
	if err != nil || !empty {
		return err
	}
	if r, ok := reg.(interface {
		Emptied(ctx context.Context) (bool, error)
	}); ok { // the last client was deleted, beside a file that somebody else has put there
		if emptied, err := r.Emptied(ctx); err != nil || emptied {
			return err
		}
	}
	stored := refuseStored(ctx, o, store)
	if stored == nil {
		return nil
	}
	// Where others share the stores, a client may have come meanwhile: it was on record before
	// its file was there.
	if empty, err = isEmpty(ctx, reg); err != nil || !empty {
		return err
	}
	return stored
}

// sampleSize is how much content of a bucket is looked at for a client that is on record.
const sampleSize = 10_000

// errFilesElsewhere is a bucket that has nothing of what is on record.
var errFilesElsewhere = errors.New("there are files on record, and nothing is in the bucket")

// refuseStrangers returns an error if there is content in a bucket, and none of it is of a client
// on record; or if there is none, and files are on record.
func refuseStrangers(ctx context.Context, o *Options, reg storage.Registry, store audit.Contents) error {
	some, known, err := lookForClients(ctx, reg, store)
	if err != nil || known {
		return err
	}
	if some {
		return anothersBucket(o)
	}
	recorded, err := hasRecorded(ctx, reg)
	if err != nil || !recorded {
		return err
	}
	// Where others share the stores, it may be a file that has come meanwhile.
	if some, _, err = lookForClients(ctx, reg, store); err != nil || some {
		return err
	}
	return &Hinted{
		Err:  fmt.Errorf("%s: %w", storeTold(o.Storage.Files), errFilesElsewhere),
		Hint: "Is this the right bucket, and prefix? To move what is in the directory of a server there: sealiftd migrate",
	}
}

// hasRecorded reports whether reg has a verified file that should be there.
func hasRecorded(ctx context.Context, reg storage.Registry) (bool, error) {
	err := reg.Files(ctx, func(f storage.File) error {
		if f.Verified && f.Stays() && !f.Missing {
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		return true, nil
	}
	return false, passedOver(err)
}

// lookForClients reports whether there is content in a bucket, and whether some is of a client on
// record.
func lookForClients(ctx context.Context, reg storage.Registry, store audit.Contents) (some, known bool, err error) {
	looked, last := 0, codec.ClientID{}
	err = store.EachContent(ctx, func(up storage.Uploaded, _ time.Time) error {
		if looked++; looked > sampleSize {
			return errFound
		}
		if up.ID == last { // it is no client's either
			return nil
		}
		last = up.ID
		switch err := applyOwn(ctx, reg, &storage.GetClient{ID: up.ID}); {
		case err == nil:
			known = true
			return errFound
		case !errors.Is(err, storage.ErrNoClient):
			return err
		}
		return nil
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return looked > 0, known, err
}

// anothersBucket is ErrNoRecords about a bucket, with what can be done.
func anothersBucket(o *Options) error {
	return &Hinted{
		Err: fmt.Errorf("%s: %w", storeTold(o.Storage.Files), ErrNoRecords),
		Hint: "Is this the registry that goes with the bucket? What no record names would be removed there. " +
			"To start anew, name another prefix, or empty this one.",
	}
}

// openPostgres opens the registry in a PostgreSQL.
func (s *Server) openPostgres(ctx context.Context) error {
	o := &s.o
	answered := s.waitFor(o.Storage.Registry)
	reg, err := postgres.Open(ctx, o.Storage.Registry, postgres.Options{
		Log: func(err error) { o.Log.Debug("a batch for the registry is repeated", zap.Error(err)) },
	})
	answered()
	if err != nil {
		return explainPostgres("--registry", err)
	}
	s.registry = reg
	if !o.Storage.inBucket() {
		if err := s.hold(ctx, reg); err != nil {
			return err
		}
	}
	if err := refuseUnknown(ctx, o, reg, s.store); err != nil {
		return err
	}
	return keepTogether(ctx, reg, o.Storage.Files)
}

// hold takes the registry for this server alone: nobody else can get at the content in its
// directory.
func (s *Server) hold(ctx context.Context, reg *postgres.Registry) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	lost, release, err := reg.Hold(ctx, s.name, host, s.o.Dir)
	if err != nil {
		return &Hinted{
			Err:  fmt.Errorf("--registry: %w", err),
			Hint: "Content in a directory is one server's. Stop the other one, and wait for a minute if it was killed; or give both a bucket: --files s3://…",
		}
	}
	s.lost, s.release = lost, release
	return nil
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

// errReplaced ends a server whose registry another one has.
var errReplaced = errors.New("the registry belongs to another server now")

// endIfReplaced ends the server at once if another one has its registry, until ctx ends: what
// it recorded would be in a directory that the other one does not have.
func (s *Server) endIfReplaced(ctx context.Context, end func(cause error)) {
	select {
	case <-s.lost: // nil: never
		s.o.Log.Error("the server was replaced by another one")
		limits := loopLimits(&s.o.Network, s.connections(&s.o.Network))
		limits.DrainTimeout = time.Nanosecond
		s.loops.Limit(limits)
		end(errReplaced)
	case <-ctx.Done():
	}
}

// refuseStored returns an error if there are stored files.
func refuseStored(ctx context.Context, o *Options, store fileStore) error {
	stored, err := hasContent(ctx, store)
	switch {
	case err != nil || !stored:
		return err
	case o.Storage.inBucket():
		return anothersBucket(o)
	case o.Storage.inPostgres():
		return &Hinted{
			Err:  fmt.Errorf("%s: %w", o.Dir, ErrNoRecords),
			Hint: "Is this the registry that goes with the directory? To start anew, move " + filepath.Join(o.Dir, "files") + " away.",
		}
	}
	return noRecords(o.Dir)
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

// hasContent reports whether there is a file in any client's folder, or anything in a bucket.
func hasContent(ctx context.Context, store fileStore) (bool, error) {
	var err error
	switch store := store.(type) {
	case *files.Store:
		return hasStored(ctx, store)
	case audit.Contents:
		err = store.EachContent(ctx, func(storage.Uploaded, time.Time) error { return errFound })
	}
	if errors.Is(err, errFound) {
		return true, nil
	}
	return false, err
}

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
