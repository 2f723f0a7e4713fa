package server

import (
	"context"
	"errors"

	"sealift/storage"
	"sealift/storage/audit"
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

// ReadOnly are a server's records and files, open for reading. The server may run.
type ReadOnly struct {
	at  Stores
	reg storage.Registry
}

// OpenReadOnly opens what a server has for reading, and changes nothing in it. The error
// says what is missing, with a [Hint] where that helps.
func OpenReadOnly(ctx context.Context, at Stores) (*ReadOnly, error) {
	reg, err := at.openReadOnly(ctx)
	if err != nil {
		return nil, err
	}
	return &ReadOnly{at: at, reg: reg}, nil
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

// Size returns how many bytes Verify reads.
func (r *ReadOnly) Size(ctx context.Context) (bytes int64, err error) {
	err = r.reg.Files(ctx, func(f File) error {
		if f.Verified && f.Stays() {
			bytes += f.Size
		}
		return nil
	})
	if errors.Is(err, ErrBadRows) {
		err = nil // Verify says so
	}
	return bytes, err
}

// Verify reads every verified file and calls progress with it, and with nil or
// what is wrong; see [audit.Verify].
func (r *ReadOnly) Verify(ctx context.Context, progress func(File, error)) error {
	store, err := r.at.openContent(ctx, r.reg)
	if err != nil {
		return err
	}
	defer store.Close()
	return audit.Verify(ctx, r.reg, store, progress)
}
