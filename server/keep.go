package server

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"sealift/storage"
	"sealift/storage/audit"
	"sealift/storage/files"
	"sealift/storage/sqlite"
)

// ForgetMissing forgets the files on record that are not in their place, and calls each
// with every one; see [audit.ForgetMissing]. The server may run.
func ForgetMissing(ctx context.Context, at Stores, dryRun bool, each func(File)) (err error) {
	reg, err := at.openToChange(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	store, err := at.openContent(ctx, reg)
	if errors.Is(err, fs.ErrNotExist) {
		return &Hinted{Err: err, Hint: "Is the right disk mounted? To forget all files, make that folder."}
	}
	if err != nil {
		return err
	}
	defer store.Close()
	if contents, ok := store.(audit.Contents); ok {
		// What is forgotten here would be swept in the right bucket.
		if err := refuseStrangers(ctx, &Options{Storage: Storage{Files: at.Files}}, reg, contents); err != nil {
			return err
		}
	}
	return audit.ForgetMissing(ctx, reg, store, dryRun, each)
}

// TakeStrays records the files in clients' folders that are not on record, and calls each
// with every one, and with nil or the reason for which it was left alone; see
// [audit.TakeStrays]. No server may run.
func TakeStrays(ctx context.Context, at Stores, dryRun bool, each func(File, error)) (err error) {
	if !at.folder() {
		return &Hinted{
			Err:  errors.New("--files: strays are taken from a directory, not from a bucket"),
			Hint: "The server's sweep removes what is in the bucket and not on record. To have a file there, have its client send it.",
		}
	}
	if at.database() {
		if err := checkRecords(ctx, at.Dir); err != nil && !errors.Is(err, sqlite.ErrOlder) {
			return err
		}
	}
	store, err := files.Open(at.Dir, files.Options{Fsync: true})
	if errors.Is(err, files.ErrLocked) {
		return &Hinted{Err: err, Hint: "Stop the server first: strays cannot be told from its uploads."}
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	var reg storage.Registry
	if at.database() {
		// No server has the database open: one of an older schema may be brought up to date.
		reg, err = openRecords(ctx, at.Dir)
	} else {
		reg, err = at.openToChange(ctx)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	return audit.TakeStrays(ctx, reg, store, time.Now(), dryRun, each)
}
