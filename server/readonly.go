package server

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"sealift/storage"
	"sealift/storage/audit"
	"sealift/storage/files"
	"sealift/storage/sqlite"
)

// What a server has on record, as the commands that list it see it.
type (
	Client  = storage.Client
	File    = storage.File
	Partial = storage.Partial
)

// ErrBadRows is what lists end with where there are records that cannot be understood; all
// others were listed.
var ErrBadRows = storage.ErrBadRows

// ReadOnly is a server's directory, open for reading. The server may run.
type ReadOnly struct {
	dir string
	reg *sqlite.Registry
}

// OpenReadOnly opens the directory of a server for reading, and changes nothing
// in it. The error says what is missing, with a [Hint] where that helps.
func OpenReadOnly(ctx context.Context, dir string) (*ReadOnly, error) {
	reg, err := openReadOnly(ctx, dir)
	if err != nil {
		return nil, err
	}
	return &ReadOnly{dir: dir, reg: reg}, nil
}

// Close ends the reading.
func (r *ReadOnly) Close() error { return r.reg.Close() }

// Clients calls yield for each client, ordered by name, until yield returns an
// error, which it then returns.
func (r *ReadOnly) Clients(ctx context.Context, yield func(Client) error) error {
	return r.reg.Clients(ctx, yield)
}

// Files calls yield for each file, ordered by client and path, until yield returns
// an error, which it then returns.
func (r *ReadOnly) Files(ctx context.Context, yield func(File) error) error {
	return r.reg.Files(ctx, yield)
}

// Verify reads every verified file and calls progress with it, and with nil or
// what is wrong; see [audit.Verify].
func (r *ReadOnly) Verify(ctx context.Context, progress func(File, error)) error {
	store, err := files.OpenReadOnly(r.dir)
	if err != nil {
		return err
	}
	defer store.Close()
	return audit.Verify(ctx, r.reg, store, progress)
}

func openReadOnly(ctx context.Context, dir string) (*sqlite.Registry, error) {
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
