package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"

	"sealift/storage"
)

// finishOthers brings to their end the batches that a run which was killed has left.
func (t *take) finishOthers(ctx context.Context) error {
	u, err := t.alone(ctx)
	if err != nil {
		return err
	}
	u.unlock()
	entries, err := fs.ReadDir(t.out.taking.FS(), ".")
	if err != nil {
		return t.out.fault(err)
	}
	for _, e := range entries {
		name, part := strings.CutSuffix(e.Name(), ".part")
		ms, err := strconv.ParseInt(name, 10, 64)
		if err != nil || !e.IsDir() {
			continue
		}
		if !part {
			err = t.finish(ctx, name, time.UnixMilli(ms))
		} else if err = t.out.taking.RemoveAll(e.Name()); err != nil { // nothing of it is recorded
			err = t.out.fault(err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// finish brings a batch to its end: what it has recorded as taken goes to its place.
func (t *take) finish(ctx context.Context, batch string, at time.Time) error {
	if _, err := t.out.taking.Lstat(batch); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	p := &publishing{take: t, batch: batch}
	err := fs.WalkDir(t.out.taking.FS(), batch, func(from string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		f, err := leftOver(from, e)
		if err != nil {
			t.Each(Taken{File: File{Path: from}, To: t.out.join(takingFolder + "/" + from), LeftOver: true, Err: err})
			return nil
		}
		get, err := getFile(ctx, t.reg, &f)
		if err != nil {
			return err
		}
		if v := get.Verified; v != nil && v.Incoming == f.Incoming && !v.Taken.Equal(at) {
			return t.out.taking.Remove(from) // it is in the store, or another command's
		}
		return p.publish(&f, true)
	})
	return errors.Join(err, p.end())
}

// leftOver reads what the path of a file below takingFolder says.
func leftOver(from string, e fs.DirEntry) (f File, err error) {
	parts := strings.SplitN(from, "/", 4)
	if len(parts) == 4 {
		f = File{Path: parts[3], Incoming: parts[1], Verified: true}
		if f.Incoming == noKey {
			f.Incoming = ""
		}
		if f.ID, err = parseID(parts[2]); err == nil {
			if clean, e := storage.CleanPath(f.Path); e != nil || clean != f.Path {
				err = storage.ErrPath
			}
		}
	}
	if len(parts) != 4 || err != nil || !e.Type().IsRegular() {
		return f, fmt.Errorf("it is not from Sealift: remove it")
	}
	info, err := e.Info()
	if err != nil {
		return f, err
	}
	f.Size = info.Size()
	return f, nil
}

// removeFolders removes a folder, and those in it, unless there is a file.
func removeFolders(at *os.Root, folder string) error {
	entries, err := fs.ReadDir(at.FS(), folder)
	if err != nil {
		return err
	}
	left := 0
	for _, e := range entries {
		if !e.IsDir() {
			left++
			continue
		}
		inner := folder + "/" + e.Name()
		if err := removeFolders(at, inner); err != nil {
			return err
		}
		if _, err := at.Lstat(inner); err == nil {
			left++
		}
	}
	if left > 0 {
		return nil
	}
	return at.Remove(folder)
}

// getFile reads what the registry has where f is, or was.
func getFile(ctx context.Context, reg storage.Registry, f *File) (*storage.GetFile, error) {
	get := &storage.GetFile{ID: f.ID, Path: f.Path}
	if err := applyOwn(ctx, reg, get); err != nil && !errors.Is(err, storage.ErrNoFile) {
		return nil, err
	}
	return get, nil
}

func randomMillis(n int64) time.Duration { return time.Duration(rand.Int64N(n)) * time.Millisecond }

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
