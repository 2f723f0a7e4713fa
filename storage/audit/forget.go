package audit

import (
	"context"
	"errors"

	"sealift/storage"
)

// ForgetMissing forgets the verified files that are marked as missing, and those
// whose content is not in its place now, and calls each with every one of them;
// with dryRun it changes nothing. It may run beside a server: a version that is
// verified meanwhile stays. Files that were taken or deleted are passed over.
//
// A file that is marked and in its place again is forgotten, too: it is a stray
// from then on. The error is one of the registry or of the files, or wraps
// [storage.ErrBadRows]; then all that can be understood was done.
func ForgetMissing(ctx context.Context, reg storage.Registry, files storage.Files, dryRun bool, each func(storage.File)) error {
	var gone []storage.File
	listing := reg.Files(ctx, func(f storage.File) error {
		missing, err := isMissing(ctx, files, &f)
		if missing {
			gone = append(gone, f)
		}
		return err
	})
	if listing != nil && !errors.Is(listing, storage.ErrBadRows) {
		return listing
	}
	for i := range gone {
		f := &gone[i]
		if !dryRun {
			forgotten, err := forget(ctx, reg, f)
			if err != nil {
				return err
			}
			if !forgotten {
				continue
			}
		}
		each(*f)
	}
	return listing
}

// isMissing reports whether f is verified, stays, and is marked as missing or not in its
// place.
func isMissing(ctx context.Context, files storage.Files, f *storage.File) (bool, error) {
	if !f.Verified || !f.Stays() {
		return false, nil
	}
	if f.Missing {
		return true, nil
	}
	_, err := files.Size(ctx, f.Stored())
	if errors.Is(err, storage.ErrNotStored) {
		return true, nil
	}
	if errors.Is(err, storage.ErrObstructed) || errors.Is(err, storage.ErrPath) {
		err = nil // something is there, and whose it is a person has to find out
	}
	return false, err
}

// forget forgets f, unless another version is there now, or it was taken meanwhile, after
// which its content is gone, too. The mark goes to this version only, and only what is
// marked is forgotten.
func forget(ctx context.Context, reg storage.Registry, f *storage.File) (forgotten bool, err error) {
	get, err := getFile(ctx, reg, f)
	if err != nil || get.Verified == nil || !get.Verified.Stays() {
		return false, err
	}
	mark := &storage.MarkFile{ID: f.ID, Path: f.Path, Incoming: f.Incoming, Missing: true}
	drop := &storage.ForgetFile{ID: f.ID, Path: f.Path, Incoming: f.Incoming}
	batch := []storage.Operation{mark, drop}
	if err := reg.Apply(ctx, batch); err != nil {
		return false, err
	}
	for _, op := range batch {
		if err := op.Result().Err; err != nil && !errors.Is(err, storage.ErrNoFile) {
			return false, err
		}
	}
	return mark.Err == nil && drop.Err == nil, nil
}
