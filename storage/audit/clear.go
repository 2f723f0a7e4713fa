package audit

import (
	"context"
	"errors"
	"fmt"

	"sealift/storage"
)

// Clear removes the content of files that were taken and of such that were deleted, see
// [storage.Registry.Leaving]. A file that was taken stays on record, marked as missing;
// one that was deleted is forgotten. It may run beside a server, with
// Options.Exclusive. Where nothing leaves it costs next to nothing.
//
// It takes these steps for a file, and a crash between any two is made good by the next
// Clear or Recover, which begin again:
//
//  1. a newer version whose commit went unrecorded is settled first: what is in the
//     place may be its content;
//  2. Files.Remove removes the content, durably;
//  3. MarkFile or ForgetFile records that.
//
// The error is one of the registry. What is wrong with single files goes to Options.Log,
// and they are tried again the next time.
func Clear(ctx context.Context, reg storage.Registry, files storage.Files, o Options) (Report, error) {
	var leaving []storage.File
	err := reg.Leaving(ctx, func(f storage.File) error {
		leaving = append(leaving, f)
		return nil
	})
	if err != nil && !errors.Is(err, storage.ErrBadRows) || len(leaving) == 0 {
		return nil, notBadRows(err)
	}
	r := newRecovery(reg, files, o)
	return r.report, r.clearAll(ctx, leaving)
}

// notBadRows is err, unless it says that there are rows which cannot be understood: each
// start tells of those.
func notBadRows(err error) error {
	if errors.Is(err, storage.ErrBadRows) {
		return nil
	}
	return err
}

// clearAll does what Clear does with some files.
func (r *recovery) clearAll(ctx context.Context, leaving []storage.File) error {
	for i := range leaving {
		f := &leaving[i]
		if err := r.o.exclusively(f, func() error { return r.clear(ctx, f) }); err != nil {
			return err
		}
		if err := r.flushIfFull(ctx); err != nil {
			return err
		}
		if r.o.Enough != nil && i < len(leaving)-1 && r.o.Enough() {
			break
		}
	}
	return r.flush(ctx)
}

// clear does what leaves where f is. The row of a file that was taken is marked with the
// next flush, which may come after others have had the place: the mark names the
// version.
func (r *recovery) clear(ctx context.Context, f *storage.File) error {
	get, err := getFile(ctx, r.reg, f)
	if err == nil && get.Unverified != nil {
		get, err = r.settleFirst(ctx, get)
	}
	if err != nil || get == nil || get.Verified == nil || !get.Verified.Leaves() {
		return err
	}
	f = get.Verified
	if err := r.removeContent(ctx, f); err != nil {
		r.found(Finding{Failed, *f, err})
		return ctx.Err()
	}
	if f.Deleted {
		r.forget(f, Finding{Deleted, *f, nil})
		return r.flush(ctx)
	}
	r.mark(f, true, Finding{Taken, *f, nil})
	return nil
}

// settleFirst decides about the unverified file of get if it was deleted, or if its
// content may be in the place. It returns what there is then; nil if that cannot be
// decided.
func (r *recovery) settleFirst(ctx context.Context, get *storage.GetFile) (*storage.GetFile, error) {
	f := get.Unverified
	if _, err := r.files.Size(ctx, f.Uploaded()); err == nil && !f.Deleted {
		return get, nil
	}
	r.settle(ctx, f)
	if err := r.flush(ctx); err != nil {
		return nil, err
	}
	get, err := getFile(ctx, r.reg, f)
	if err != nil || get.Unverified != nil {
		return nil, err
	}
	return get, nil
}

// removeContent removes what is in the place of f. If f was taken and something else is
// there, somebody has put that there since, and it stays.
func (r *recovery) removeContent(ctx context.Context, f *storage.File) error {
	if !f.Taken.IsZero() {
		if f.Missing {
			return nil // it was removed before, and its place is free for others
		}
		size, err := r.files.Size(ctx, f.Stored())
		switch {
		case err == nil && size != f.Size:
			r.found(Finding{Damaged, *f, fmt.Errorf("%w: %d, not %d bytes; it was taken before, and what is there now stays", ErrSize, size, f.Size)})
			return nil
		case err != nil && !errors.Is(err, storage.ErrNotStored):
			return err
		}
	}
	return r.files.Remove(ctx, f.Stored())
}
