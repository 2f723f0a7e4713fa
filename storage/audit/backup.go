package audit

import (
	"context"
	"errors"
	"slices"
	"time"

	"sealift/storage"
)

// Backup completes a copy of a server's storage, which may be serving meanwhile:
// reg and files are the server's, to has been made of a snapshot of reg, and
// toFiles is empty. It copies each verified file and compares it with what to
// says. Where the server has replaced a file since, to gets the record of the
// version that was copied. What to says of unverified files is dropped, and of such that
// were deleted. Files that were taken stay on record. A copy has no partial files: a server on it
// tells a client to begin anew.
//
// wrong is called with each file that is not as it was uploaded, and with an error
// as [Verify] has it: it is marked as missing in to. copied is called with the
// bytes of each file that is done, for a progress bar.
//
// The error is one of the registries or of the files, an *AlikeError if toFiles has
// one place for two of the files, or wraps [storage.ErrBadRows]; then all that can be understood was copied.
func Backup(ctx context.Context, reg storage.Registry, files storage.Files, to storage.Registry, toFiles storage.Files,
	copied func(bytes int64), wrong func(storage.File, error)) error {
	if err := checkAlike(ctx, to, toFiles); err != nil {
		return err
	}
	b := &backup{checker: newChecker(files), reg: reg, to: to, toFiles: toFiles, wrong: wrong}
	listing := to.Files(ctx, func(f storage.File) error {
		if !f.Verified {
			b.ops = append(b.ops, &storage.DropFile{Outcome: own, ID: f.ID, Path: f.Path, Incoming: f.Incoming})
			return nil
		}
		err := b.take(ctx, f)
		copied(f.Size)
		return err
	})
	if listing != nil && !errors.Is(listing, storage.ErrBadRows) {
		return listing
	}
	if err := b.record(ctx); err != nil {
		return err
	}
	return errors.Join(listing, dropPartials(ctx, to))
}

// dropPartials forgets the partial files of a copy.
func dropPartials(ctx context.Context, to storage.Registry) error {
	var ops []storage.Operation
	listing := to.Partials(ctx, func(p storage.Partial) error {
		ops = append(ops, &storage.DropPartial{Outcome: own, ID: p.ID, Path: p.Path, Incoming: p.Incoming})
		return nil
	})
	for part := range slices.Chunk(ops, batchSize) {
		if err := to.Apply(ctx, part); err != nil {
			return err
		}
	}
	return listing
}

// backup is one Backup.
type backup struct {
	*checker
	reg     storage.Registry
	to      storage.Registry
	toFiles storage.Files
	wrong   func(storage.File, error)
	ops     []storage.Operation // for to, which cannot be changed while it is listed
}

// A server that has just put a file into its place records it a moment later.
const (
	tries    = 5
	tryAfter = 50 * time.Millisecond // doubled from try to try
)

// take copies f, which the snapshot has, or the version that has replaced it, unless
// that was taken or deleted.
func (b *backup) take(ctx context.Context, f storage.File) error {
	snapshot := f
	for try := 0; ; try++ {
		var fault, err error
		if f.Stays() {
			if fault, err = b.copyFile(ctx, &f); err != nil {
				return err
			}
			if fault == nil {
				b.took(f, snapshot)
				return nil
			}
		}
		get, err := getFile(ctx, b.reg, &f)
		switch {
		case err != nil:
			return err
		case get.Verified == nil && f.Stays(): // forgotten meanwhile
			b.forget(snapshot)
			return nil
		case get.Verified != nil && *get.Verified != f: // replaced or taken meanwhile
			f, try = *get.Verified, 0
		case !f.Stays():
			b.left(f, snapshot)
			return nil
		case try == tries || get.Unverified == nil:
			b.wrong(f, fault)
			b.mark(snapshot, true)
			return nil
		default:
			if err := sleep(ctx, tryAfter<<try); err != nil {
				return err
			}
		}
	}
}

// copyFile copies the content of f if it is what f says. fault says that it is
// not; err, that it could not be written, or that ctx has ended.
func (b *backup) copyFile(ctx context.Context, f *storage.File) (fault, err error) {
	g, err := b.writeAnew(ctx, b.toFiles, f, f.Size)
	if err != nil {
		var w *writeError
		if ctx.Err() != nil || errors.As(err, &w) {
			return nil, err
		}
		return err, nil
	}
	if fault := compare(f, g.Size, g.Cksum); fault != nil {
		return fault, b.toFiles.Discard(ctx, g.Uploaded())
	}
	return nil, b.toFiles.Commit(ctx, &g)
}

// took records that the content of f was copied, which may have come after the
// snapshot.
func (b *backup) took(f, snapshot storage.File) {
	switch {
	case f.Incoming != snapshot.Incoming:
		b.replace(f)
	case snapshot.Missing: // it was found all the same
		b.mark(f, false)
	}
}

// replace records the verified file f in the place of the one that the snapshot has.
func (b *backup) replace(f storage.File) {
	b.ops = append(b.ops, &storage.PutFile{Outcome: own, File: f},
		&storage.VerifyFile{Outcome: own, ID: f.ID, Path: f.Path, Incoming: f.Incoming})
}

// left records that f was taken or deleted, which may have come after the snapshot. One
// that was deleted is forgotten. One that was taken is on record without content, as at
// the server: a 1029 for it is answered as there.
func (b *backup) left(f, snapshot storage.File) {
	if f.Deleted {
		b.forget(snapshot)
		return
	}
	if f.Incoming != snapshot.Incoming {
		b.replace(f)
	}
	if f.Incoming != snapshot.Incoming || snapshot.Taken.IsZero() {
		b.mark(f, false) // the snapshot may say that it was missing once
		b.ops = append(b.ops, &storage.TakeFile{ID: f.ID, Path: f.Path, Incoming: f.Incoming, Taken: f.Taken})
	}
	b.mark(f, true)
}

func (b *backup) mark(f storage.File, missing bool) {
	b.ops = append(b.ops, &storage.MarkFile{ID: f.ID, Path: f.Path, Incoming: f.Incoming, Missing: missing})
}

func (b *backup) forget(f storage.File) {
	b.mark(f, true)
	b.ops = append(b.ops, &storage.ForgetFile{ID: f.ID, Path: f.Path, Incoming: f.Incoming})
}

// record does what is to be done in the copy's registry.
func (b *backup) record(ctx context.Context) error {
	for len(b.ops) > 0 {
		batch := b.ops[:min(len(b.ops), batchSize)]
		if err := b.to.Apply(ctx, batch); err != nil {
			return err
		}
		for _, op := range batch {
			_, drop := op.(*storage.DropFile)
			if err := op.Result().Err; err != nil && !(drop && errors.Is(err, storage.ErrNoFile)) { // by PutFile already
				return err
			}
		}
		b.ops = b.ops[len(batch):]
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
