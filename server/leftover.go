package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
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
			err = t.finish(ctx, name, time.UnixMilli(ms), false)
		} else {
			err = t.abandon(ctx, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// abandon removes a batch that was not complete: nothing of it is recorded as taken.
func (t *take) abandon(ctx context.Context, batch string) error {
	part := batch + ".part"
	if !t.at.database() {
		// Without a list that can be read there are no leases yet.
		if files, of, err := t.leftOver(part); err == nil && !t.owner.isAnothers(of) {
			if err := t.forgetBatch(ctx, batch, files); err != nil {
				return err
			}
		}
	}
	if err := t.out.taking.RemoveAll(part); err != nil {
		return t.out.fault(err)
	}
	return nil
}

// finish brings a batch to its end: what it has recorded as taken goes to its place. Unless
// it is known to be ours, it may be another server's, and then it stays.
func (t *take) finish(ctx context.Context, batch string, at time.Time, ours bool) error {
	files, of, err := t.leftOver(batch)
	if err != nil || !ours && t.owner.isAnothers(of) {
		return err
	}
	p := &publishing{take: t, batch: batch}
	for i := range files {
		f := &files[i]
		get, err := t.settled(ctx, f, at)
		if err != nil {
			return errors.Join(err, p.end())
		}
		if v := get.Verified; v == nil || v.Incoming != f.Incoming || v.Taken.Equal(at) {
			err = p.publish(f, true)
		} else {
			err = t.giveBack(ctx, v, fmt.Sprint(batch, "/", f.number))
		}
		if err != nil {
			return err
		}
	}
	if err := t.forgetBatch(ctx, batch, files); err != nil {
		return err
	}
	return p.end()
}

// giveBack removes what was fetched of f, which is not recorded as taken: it stays in the
// store.
func (t *take) giveBack(ctx context.Context, f *storage.File, fetched string) error {
	// Where a write to the database failed, and said so, it may still be in the log that a
	// crash has SQLite read, until another transaction takes its place. So there is one, which
	// changes nothing, before the only other copy goes.
	same := &storage.MarkFile{ID: f.ID, Path: f.Path, Incoming: f.Incoming, Missing: f.Missing}
	if err := applyOwn(ctx, t.reg, same); err != nil && !errors.Is(err, storage.ErrNoFile) {
		return err
	}
	if err := t.out.taking.Remove(fetched); err != nil {
		return t.out.fault(err)
	}
	return nil
}

// listName is the file with the list of a batch, in its folder.
const listName = "list"

// owner is whose files a batch has: the server with that directory, or the servers with
// that registry.
type owner struct {
	Dir      string `json:"dir,omitempty"`
	Registry string `json:"registry,omitempty"` // the name that it has given itself
}

// owner returns whose files those in at are.
func (at Stores) owner(ctx context.Context, reg storage.Registry) (owner, error) {
	if at.database() {
		dir, err := filepath.Abs(at.Dir)
		return owner{Dir: dir}, err
	}
	name, err := registryName(ctx, reg)
	return owner{Registry: name}, err
}

// isAnothers reports whether files of other are none of o's. A directory that is not there
// any more was o's, and was moved, or nobody knows of its files.
func (o owner) isAnothers(other owner) bool {
	if o.Registry != "" && other.Dir != "" {
		return movedTo(other.Dir) != o.Registry
	}
	if o.Registry != "" || other.Registry != "" {
		return o != other
	}
	theirs, err := os.Stat(filepath.Join(other.Dir, DatabaseName))
	if err != nil {
		return false
	}
	own, err := os.Stat(filepath.Join(o.Dir, DatabaseName))
	return err == nil && !os.SameFile(own, theirs)
}

// listed is a line of that list.
type listed struct {
	owner
	Number int    `json:"number"`
	Client string `json:"client"`
	Path   string `json:"path"`
	Key    string `json:"key"`
}

// writeList writes the list of a batch, durably but for the folder.
func (t *take) writeList(b *taking) error {
	w, err := b.part.OpenFile(listName, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	out := json.NewEncoder(&text)
	for i := range b.files {
		f := &b.files[i]
		err = errors.Join(err, out.Encode(listed{t.owner, f.number, f.ID.String(), f.Path, f.Incoming}))
	}
	_, e := w.Write(text.Bytes())
	return errors.Join(err, e, w.Sync(), w.Close())
}

// leftOver returns the files of a batch that are still in its folder, and whose they are.
func (t *take) leftOver(batch string) (files []fetched, of owner, err error) {
	in, err := enter(t.out.taking, batch)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, owner{}, nil
	}
	if err != nil {
		return nil, owner{}, t.out.fault(err)
	}
	defer in.Close()
	text, err := in.ReadFile(listName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, owner{}, t.out.taking.Remove(batch) // all but the folder itself was removed
	}
	if err != nil {
		return nil, owner{}, t.out.fault(err)
	}
	for dec := json.NewDecoder(bytes.NewReader(text)); ; {
		var l listed
		err := dec.Decode(&l)
		if errors.Is(err, io.EOF) {
			return files, of, nil
		}
		of = l.owner
		f := fetched{File: File{Path: l.Path, Incoming: l.Key, Verified: true}, number: l.Number}
		if err == nil {
			f.ID, err = parseID(l.Client)
		}
		if clean, e := storage.CleanPath(f.Path); err == nil && (e != nil || clean != f.Path) {
			err = storage.ErrPath
		}
		if err != nil {
			return nil, owner{}, fmt.Errorf("%s: %w", t.out.join(takingFolder+"/"+batch+"/"+listName), err)
		}
		info, err := in.Lstat(fmt.Sprint(l.Number))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // it was moved
		case err != nil:
			return nil, owner{}, t.out.fault(err)
		}
		f.Size = info.Size()
		files = append(files, f)
	}
}

// settled is getFile for a file of a batch that a killed run has left, once it is certain what
// is recorded of it. A registry that others share may still be doing what that run has asked
// of it: so the file is recorded as taken again, which makes no difference if it was.
func (t *take) settled(ctx context.Context, f *fetched, at time.Time) (*storage.GetFile, error) {
	if !t.at.database() {
		err := applyOwn(ctx, t.reg, &storage.TakeFile{ID: f.ID, Path: f.Path, Incoming: f.Incoming, Taken: at})
		if err != nil && !errors.Is(err, storage.ErrNoFile) {
			return nil, err
		}
	}
	return getFile(ctx, t.reg, &f.File)
}

// getFile reads what the registry has where f is, or was.
func getFile(ctx context.Context, reg storage.Registry, f *File) (*storage.GetFile, error) {
	get := &storage.GetFile{ID: f.ID, Path: f.Path}
	if err := applyOwn(ctx, reg, get); err != nil && !errors.Is(err, storage.ErrNoFile) {
		return nil, err
	}
	return get, nil
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
