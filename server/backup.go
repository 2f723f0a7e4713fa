package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"sealift/storage"
	"sealift/storage/audit"
	"sealift/storage/files"
	"sealift/storage/sqlite"
)

// partialSuffix is what the folder of a backup has after its name until the
// backup is complete.
const partialSuffix = ".partial"

// Backup copies the directory of a server, which may be running, to dest, which
// must be an empty folder or not there. It is made as dest.partial and renamed
// when it is complete and on the disk. progress is called with how many bytes of
// how many are copied. wrong is called with each file that is not as it was
// uploaded, see [audit.Backup]; the copy is made without them.
//
// After an error there is no copy, unless the error wraps [storage.ErrBadRows]:
// then it was made of all but what cannot be understood.
func Backup(ctx context.Context, at Stores, dest string, progress func(done, total int64), wrong func(File, error)) (err error) {
	if !at.database() || !at.folder() {
		return &Hinted{
			Err:  errors.New("backup copies a directory, and not what several servers share"),
			Hint: "Use what copies a PostgreSQL (pg_dump, or its archive of WAL) and a bucket (versions, or a replica). docs/OPERATING.md says in which order.",
		}
	}
	dir := at.Dir
	if dest, err = checkDest(dir, dest); err != nil {
		return err
	}
	reg, err := openDatabaseReadOnly(ctx, dir)
	if err != nil {
		return err
	}
	defer reg.Close()
	store, err := files.OpenReadOnly(dir)
	if err != nil {
		return err
	}
	defer store.Close()

	partial := dest + partialSuffix
	err = os.Mkdir(partial, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return &Hinted{
			Err:  fmt.Errorf("%s exists: want no such folder", partial),
			Hint: "A backup that was interrupted left it, or one is being made. If none is, remove it.",
		}
	}
	if err != nil {
		return err
	}
	bad := removeEmpty(dest)
	if bad == nil {
		bad = fill(ctx, dir, partial, reg, store, progress, wrong)
	}
	if bad == nil || errors.Is(bad, storage.ErrBadRows) {
		if err = finish(partial, dest); err == nil {
			return bad
		}
	}
	return errors.Join(err, bad, os.RemoveAll(partial))
}

// checkDest returns dest as an absolute path, or why it cannot take a backup of
// dir.
func checkDest(dir, dest string) (string, error) {
	dest, err := filepath.Abs(dest)
	if err != nil {
		return "", err
	}
	entries, err := os.ReadDir(dest)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return "", err
	case len(entries) > 0:
		return "", fmt.Errorf("%s is not empty: want an empty folder, or none", dest)
	}
	inside, err := filepath.Abs(filepath.Join(dir, "files"))
	if err != nil {
		return "", err
	}
	if dest == inside || strings.HasPrefix(dest, inside+string(filepath.Separator)) {
		return "", fmt.Errorf("%s is among the files of the server: want a folder elsewhere", dest)
	}
	return dest, nil
}

// removeEmpty makes room for the name of the backup. A folder that cannot go, such
// as one that a disk is mounted on, is better found before the copy than after.
func removeEmpty(dest string) error {
	if err := os.Remove(dest); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &Hinted{Err: err, Hint: "Name a folder that is not there, such as " + filepath.Join(dest, "sealift") + "."}
	}
	return nil
}

// fill makes the backup in partial.
func fill(ctx context.Context, dir, partial string, reg *sqlite.Registry, store *files.Store,
	progress func(done, total int64), wrong func(File, error)) (err error) {
	database := filepath.Join(partial, DatabaseName)
	if err := reg.CopyTo(ctx, database); err != nil {
		return err
	}
	to, err := sqlite.Open(ctx, database, sqlite.Options{Fsync: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	toStore, err := files.Open(partial, files.Options{Fsync: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, toStore.Close()) }()
	var done, total int64
	err = to.Files(ctx, func(f File) error {
		if f.Verified {
			total += f.Size
		}
		return nil
	})
	if err != nil && !errors.Is(err, storage.ErrBadRows) {
		return err
	}
	if err := copySetting(dir, partial, "port.info", 0o644); err != nil {
		return err
	}
	if err := copyPair(dir, partial); err != nil {
		return err
	}
	return audit.Backup(ctx, reg, store, to, toStore, func(n int64) {
		done += n
		progress(done, total)
	}, wrong)
}

// copyPair copies the TLS key that the server made, and its certificate. The key is
// made first and copied last, so no copy has a certificate without its key.
func copyPair(dir, to string) error {
	from := filepath.Join(dir, pairFolder)
	if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	to = filepath.Join(to, pairFolder)
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	for _, name := range []string{pairCert, pairKey} {
		if err := copySetting(from, to, name, 0o600); err != nil {
			return err
		}
	}
	return syncFolder(to)
}

// copySetting copies the small file name, if there is one. The copy has mode perm, less
// the umask.
func copySetting(dir, to, name string, perm fs.FileMode) error {
	content, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(to, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

// finish gives the complete backup its name.
func finish(partial, dest string) error {
	if err := syncFolder(partial); err != nil {
		return err
	}
	if err := os.Rename(partial, dest); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(dest))
}

// syncFolder makes the entries of a folder durable.
func syncFolder(path string) error {
	if runtime.GOOS == "windows" {
		return nil // no such thing as syncing a folder
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
