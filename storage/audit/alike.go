package audit

import (
	"context"
	"errors"
	"fmt"

	"sealift/codec"
	"sealift/storage"
)

// AlikeError is a registry with files of one client that have one place on the
// disk that they are, or shall be, on: it does not tell case, or forms of accented
// letters, apart. A directory that was moved from another disk may be so.
type AlikeError struct {
	Client     codec.ClientID
	Path, Like string // of two such files
	Count      int    // files whose place is another's
}

func (e *AlikeError) Error() string {
	return fmt.Sprintf("the disk takes names of different files for one: %d on record, %q and %q of client %s among them",
		e.Count, e.Path, e.Like, e.Client)
}

// checkAlike returns an *AlikeError if reg has files whose paths are one place in
// files. Its memory is that of the paths of one client.
func checkAlike(ctx context.Context, reg storage.Registry, files storage.Files) error {
	folds := files.Folds()
	if folds == nil {
		return nil
	}
	var bad *AlikeError
	var client codec.ClientID
	paths := make(map[string]string) // of client, by what folds makes of them
	err := reg.Files(ctx, func(f storage.File) error {
		if f.ID != client {
			client = f.ID
			clear(paths)
		}
		if !f.Taken.IsZero() && f.Missing {
			return nil // its place is free
		}
		key := folds(f.Path)
		switch first, ok := paths[key]; {
		case !ok:
			paths[key] = f.Path
		case first == f.Path: // a verified and an unverified version
		case bad == nil:
			bad = &AlikeError{Client: f.ID, Path: first, Like: f.Path, Count: 1}
		default:
			bad.Count++
		}
		return nil
	})
	if err != nil && !errors.Is(err, storage.ErrBadRows) {
		return err
	}
	if bad != nil {
		return bad
	}
	return nil
}

// findAlike returns the path of a file on record that is the same place in files as
// path, and spelt otherwise; "" if there is none.
func findAlike(ctx context.Context, reg storage.Registry, files storage.Files, id codec.ClientID, path string) (string, error) {
	folds := files.Folds()
	if folds == nil {
		return "", nil
	}
	op := &storage.FindAlike{Outcome: own, ID: id, Path: path, Folds: folds}
	if err := reg.Apply(ctx, []storage.Operation{op}); err != nil {
		return "", err
	}
	if op.Err != nil && !errors.Is(op.Err, storage.ErrNoFile) {
		return "", op.Err
	}
	return op.Found, nil
}
