package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"sealift/codec"
	"sealift/storage"
)

// TakeStrays records as verified what lies in the clients' folders unknown to the
// registry: files without a record, and files whose record is about another
// size, or marked as missing. Each is read, summed and written anew, and gets its
// path as its name. What is in the place of a file that was taken or deleted is passed
// over. It calls each with every one, with nil or with the reason for
// which it was left alone; with dryRun it changes nothing. No server may run
// meanwhile.
//
// The error is one of the registry or of the files.
func TakeStrays(ctx context.Context, reg storage.Registry, files Files, now time.Time, dryRun bool, each func(storage.File, error)) error {
	strays, err := findStrays(ctx, reg, files)
	if err != nil {
		return err
	}
	c := newChecker(files)
	for i := range strays {
		f := &strays[i]
		f.FileName, f.Received, f.Verified = f.Path, now, true
		switch err := c.takeStray(ctx, reg, f, dryRun); {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errStore):
			return err
		default:
			each(*f, err)
		}
	}
	return nil
}

// findStrays returns ID and Path of each stray.
func findStrays(ctx context.Context, reg storage.Registry, files Files) ([]storage.File, error) {
	var strays []storage.File
	var batch []storage.Operation
	look := func() error {
		if err := reg.Apply(ctx, batch); err != nil {
			return err
		}
		for _, op := range batch {
			get := op.(*storage.GetFile)
			if get.Verified == nil {
				// On record a folder may be spelt otherwise than on the disk.
				like, err := findAlike(ctx, reg, files, get.ID, get.Path)
				if err != nil {
					return err
				}
				if like != "" {
					if get, err = getFile(ctx, reg, &storage.File{ID: get.ID, Path: like}); err != nil {
						return err
					}
				}
			}
			stray, err := isStray(ctx, files, get)
			if err != nil {
				return err
			}
			if stray {
				strays = append(strays, storage.File{ID: get.ID, Path: op.(*storage.GetFile).Path})
			}
		}
		batch = batch[:0]
		return nil
	}
	err := files.EachStored(ctx, func(id codec.ClientID, path string) error {
		batch = append(batch, &storage.GetFile{Outcome: own, ID: id, Path: path})
		if len(batch) < batchSize {
			return nil
		}
		return look()
	})
	if err == nil {
		err = look()
	}
	return strays, err
}

func isStray(ctx context.Context, files storage.Files, get *storage.GetFile) (bool, error) {
	if get.Verified == nil {
		return true, nil
	}
	if !get.Verified.Stays() {
		return false, nil // it is to be removed, or may be what was removed
	}
	if get.Verified.Missing {
		return true, nil
	}
	size, err := files.Size(ctx, get.Verified.Stored())
	switch {
	case errors.Is(err, storage.ErrNotStored) || errors.Is(err, storage.ErrObstructed) || errors.Is(err, storage.ErrPath):
		return false, nil
	case err != nil:
		return false, err
	}
	return size != get.Verified.Size, nil
}

// Why a stray is left alone.
var (
	errUnknownClient = errors.New("the registry has no client with that id")
	errAwaited       = errors.New("an upload of that name awaits its 1029; start the server first")
	errNoName        = errors.New("no client can send a file of that name")
	errStore         = errors.New("registry")
)

// takeStray sets Size, Cksum and Incoming of f, and records it. It takes the
// steps of an upload, so a crash leaves nothing that Recover does not know. An
// error that wraps errStore is one of the registry.
func (c *checker) takeStray(ctx context.Context, reg storage.Registry, f *storage.File, dryRun bool) error {
	if err := c.mayTake(ctx, reg, f); err != nil {
		return err
	}
	if dryRun {
		return c.sum(ctx, f)
	}
	copied, err := c.writeAnew(ctx, c.files, f, math.MaxInt64-1)
	if err != nil {
		return err
	}
	*f = copied
	if err := applyOne(ctx, reg, &storage.PutFile{Outcome: own, File: *f}); err != nil {
		return errors.Join(err, c.files.Discard(ctx, f.Uploaded()))
	}
	if err := c.files.Commit(ctx, f); err != nil {
		drop := &storage.DropFile{Outcome: own, ID: f.ID, Path: f.Path, Incoming: f.Incoming, Why: storage.WhySpoilt}
		return errors.Join(err, applyOne(ctx, reg, drop), c.files.Discard(ctx, f.Uploaded()))
	}
	return applyOne(ctx, reg, &storage.VerifyFile{Outcome: own, ID: f.ID, Path: f.Path, Incoming: f.Incoming})
}

// mayTake returns why f is to be left alone, or nil.
func (c *checker) mayTake(ctx context.Context, reg storage.Registry, f *storage.File) error {
	if clean, err := storage.CleanPath(f.Path); err != nil || clean != f.Path || len(f.Path) > codec.MaxName {
		return errNoName
	}
	client := &storage.GetClient{Outcome: own, ID: f.ID}
	file := &storage.GetFile{Outcome: own, ID: f.ID, Path: f.Path}
	if err := reg.Apply(ctx, []storage.Operation{client, file}); err != nil {
		return fmt.Errorf("%w: %w", errStore, err)
	}
	switch {
	case errors.Is(client.Err, storage.ErrNoClient):
		return errUnknownClient
	case client.Err != nil:
		return client.Err
	case file.Err != nil && !errors.Is(file.Err, storage.ErrNoFile):
		return file.Err
	case file.Unverified != nil:
		return errAwaited
	}
	like, err := findAlike(ctx, reg, c.files, f.ID, f.Path)
	if err != nil {
		return fmt.Errorf("%w: %w", errStore, err)
	}
	if like != "" {
		return fmt.Errorf("%w: %q", storage.ErrAlike, like)
	}
	return nil
}

// sum sets Size and Cksum of f to what is stored.
func (c *checker) sum(ctx context.Context, f *storage.File) error {
	r, err := c.files.Open(ctx, f.Stored())
	if err != nil {
		return err
	}
	f.Size, f.Cksum, err = c.copy(ctx, io.Discard, r, math.MaxInt64-1)
	return errors.Join(err, r.Close())
}

// applyOne does op. An error of the registry as a whole wraps errStore.
func applyOne(ctx context.Context, reg storage.Registry, op storage.Operation) error {
	if err := reg.Apply(ctx, []storage.Operation{op}); err != nil {
		return fmt.Errorf("%w: %w", errStore, err)
	}
	return op.Result().Err
}
