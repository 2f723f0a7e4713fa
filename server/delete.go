package server

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sealift/codec"
	"sealift/storage"
)

// DeleteOptions say which files to delete.
type DeleteOptions struct {
	Pattern    string // compared with the path below the client's folder; see parsePattern
	Clients    []Who  // none: all
	Unverified bool   // those that await their verdict, and partial ones, and not the verified ones
	DryRun     bool   // change nothing, and call Each as otherwise
	// Each is called with each file that was deleted, or with the reason why it was not.
	Each func(File, error)
	// Removed is called with how many bytes of how many are removed.
	Removed func(done, total int64)
	// marked is called with each file that is to go, once that is recorded; nil: it is not.
	marked func(*File)
}

// Why an unverified file stays that was to be deleted.
var (
	errVerifiedMeanwhile = errors.New("its client has confirmed it meanwhile, so it stays")
	errWholeMeanwhile    = errors.New("its client has sent the rest of it meanwhile, so it stays; run this again")
)

// DeleteFiles removes files of a server, and their records. The server may
// run: then it does the work, and DeleteFiles waits for it.
func DeleteFiles(ctx context.Context, at Stores, o DeleteOptions) error {
	if o.DryRun {
		reg, err := at.openReadOnly(ctx)
		if err != nil {
			return err
		}
		defer reg.Close()
		return o.rehearse(ctx, reg)
	}
	return steer(ctx, at, func(reg storage.Registry) error {
		if err := at.checkTogether(ctx, reg); err != nil { // before anything is marked
			return err
		}
		return o.delete(ctx, reg, func(look func() (int, error)) error { return depart(ctx, at, reg, look) })
	})
}

// rehearse calls Each with what delete would delete.
func (o *DeleteOptions) rehearse(ctx context.Context, reg storage.Registry) error {
	found, err := o.find(ctx, reg)
	partial, err2 := o.findPartials(ctx, reg)
	for _, f := range append(found, asFiles(partial)...) {
		o.Each(f, nil)
	}
	return errors.Join(err, err2)
}

// delete marks what is to be deleted, and has depart wait until look finds that all of it
// is removed.
func (o *DeleteOptions) delete(ctx context.Context, reg storage.Registry, depart func(look func() (int, error)) error) error {
	found, listing := o.find(ctx, reg)
	if listing != nil && !errors.Is(listing, storage.ErrBadRows) {
		return listing
	}
	partial, err := o.findPartials(ctx, reg)
	if err != nil && !errors.Is(err, storage.ErrBadRows) {
		return err
	}
	listing = errors.Join(listing, err)
	marked, err := markDeleted(ctx, reg, found)
	if err != nil {
		return err
	}
	markedPartials, err := markPartials(ctx, reg, partial)
	if err != nil {
		return err
	}
	d := &deletion{DeleteOptions: *o, reg: reg, left: make(map[uploadVersion]File)}
	for _, f := range append(marked, asFiles(markedPartials)...) {
		d.left[versionOf(&f)] = f
		if o.marked != nil {
			o.marked(&f)
		}
		d.total += f.Size
	}
	return errors.Join(listing, depart(func() (int, error) { return d.look(ctx) }))
}

func (o *DeleteOptions) find(ctx context.Context, reg storage.Registry) (found []File, err error) {
	err = eachMatch(ctx, reg, o.Pattern, o.Clients, func(f File) {
		if f.Verified != o.Unverified && f.Taken.IsZero() {
			found = append(found, f)
		}
	})
	return found, err
}

// markBatch is how many files are marked in one step.
const markBatch = 256

// markDeleted has the registry mark files as Deleted, and returns those that were there to
// be marked.
func markDeleted(ctx context.Context, reg storage.Registry, found []File) (marked []File, err error) {
	return mark(ctx, reg, found, func(f *File) storage.Operation {
		return &storage.DeleteFile{
			Outcome: storage.Outcome{By: storage.Server},
			ID:      f.ID, Path: f.Path, Incoming: f.Incoming, Verified: f.Verified,
		}
	})
}

// mark applies the operations about what was found, and returns those that it was there for.
func mark[T File | Partial](ctx context.Context, reg storage.Registry, found []T, op func(*T) storage.Operation) (marked []T, err error) {
	for part := range slices.Chunk(found, markBatch) {
		ops := make([]storage.Operation, len(part))
		for i := range part {
			ops[i] = op(&part[i])
		}
		if err := reg.Apply(ctx, ops); err != nil {
			return marked, err
		}
		for i, op := range ops {
			switch err := op.Result().Err; {
			case err == nil:
				marked = append(marked, part[i])
			case !errors.Is(err, storage.ErrNoFile):
				return marked, err
			}
		}
	}
	return marked, nil
}

// uploadVersion tells the versions of all files apart.
type uploadVersion struct {
	storage.Place
	key string
}

func versionOf(f *File) uploadVersion { return uploadVersion{f.Place(), f.Incoming} }

// deletion is one DeleteFiles.
type deletion struct {
	DeleteOptions
	reg  storage.Registry
	left map[uploadVersion]File

	done, total int64 // bytes
}

// look tells Each of the files that are not to be removed any more, and returns how many are.
func (d *deletion) look(ctx context.Context) (int, error) {
	leaving := make(map[uploadVersion]bool)
	err := d.reg.Leaving(ctx, func(f File) error {
		if f.Deleted {
			leaving[versionOf(&f)] = true
		}
		return nil
	})
	if err != nil && !errors.Is(err, storage.ErrBadRows) {
		return 0, err
	}
	if err := d.lookAtPartials(ctx, leaving); err != nil {
		return 0, err
	}
	var gone []File
	for v, f := range d.left {
		if !leaving[v] {
			gone = append(gone, f)
		}
	}
	slices.SortFunc(gone, func(a, b File) int { return compareFiles(&a, &b) })
	for i := range gone {
		f := &gone[i]
		get, err := getFile(ctx, d.reg, f)
		if err != nil {
			return 0, err
		}
		var why error
		if v := get.Verified; !f.Verified && v != nil && v.Incoming == f.Incoming {
			why = errVerifiedMeanwhile
		} else if u := get.Unverified; !f.Verified && u != nil && u.Incoming == f.Incoming && !u.Deleted {
			why = errWholeMeanwhile
		}
		delete(d.left, versionOf(f))
		d.done += f.Size
		d.Each(*f, why)
	}
	d.Removed(d.done, d.total)
	return len(d.left), nil
}

// DeleteClientOptions say what goes with a client.
type DeleteClientOptions struct {
	WithFiles bool
	// Removed is called with how many bytes of how many are removed.
	Removed func(done, total int64)
}

// Deleted is what DeleteClient has deleted.
type Deleted struct {
	Client
	Files     int  // of the client
	OnlyAdded bool // there was no client: the name had been added
}

// DeleteClient removes a client from the records, or a name that was added and has not
// registered. The server may run: it ends the client's connections, and removes its files.
// The client is disabled first, and stays so if DeleteClient does not come to its end.
func DeleteClient(ctx context.Context, at Stores, who Who, o DeleteClientOptions) (d Deleted, err error) {
	err = steer(ctx, at, func(reg storage.Registry) error {
		if err := at.checkTogether(ctx, reg); err != nil { // before anything is marked
			return err
		}
		d.Client, err = findClient(ctx, reg, who)
		if errors.Is(err, ErrNoClient) && who.ID == "" {
			if e := applyOwn(ctx, reg, &storage.DropName{Name: who.Name}); !errors.Is(e, ErrNoClient) {
				d.Name, d.OnlyAdded = who.Name, true
				return e
			}
		}
		if err != nil {
			return err
		}
		if !o.WithFiles {
			return dropWithoutFiles(ctx, at, reg, &d.Client, o.Removed)
		}
		d.Files, err = dropWithFiles(ctx, at, reg, &d.Client, o.Removed)
		return err
	})
	return d, err
}

// dropWithoutFiles forgets a client that has no files but such as are leaving anyway, and
// changes nothing otherwise.
func dropWithoutFiles(ctx context.Context, at Stores, reg storage.Registry, c *Client, progress func(done, total int64)) error {
	for {
		err := applyOwn(ctx, reg, &storage.DropClient{ID: c.ID})
		if !errors.Is(err, storage.ErrHasFiles) {
			return err
		}
		of, bad, err := filesOf(ctx, reg, c.ID)
		if err != nil {
			return err
		}
		partial, badPartials, err := partialsOf(ctx, reg, c.ID)
		if err != nil {
			return err
		}
		if bad = errors.Join(bad, badPartials); len(of)+len(partial) == 0 && bad != nil {
			return notUnderstood(c, bad)
		}
		of = slices.DeleteFunc(of, func(f File) bool { return f.Leaves() })
		partial = slices.DeleteFunc(partial, func(p Partial) bool { return p.Deleted })
		if n := len(of) + len(partial); n > 0 {
			return &Hinted{
				Err:  fmt.Errorf("%q has %s on record, and was not deleted", c.Name, countFiles(n)),
				Hint: "Take the files away first, or have them deleted: --with-files",
			}
		}
		if err := departOf(ctx, at, reg, c, progress); err != nil {
			return err
		}
	}
}

// departOf waits until the files of a client that are leaving are gone.
func departOf(ctx context.Context, at Stores, reg storage.Registry, c *Client, progress func(done, total int64)) error {
	total := int64(0)
	return depart(ctx, at, reg, func() (int, error) {
		n, bytes, err := leavingOf(ctx, reg, c.ID)
		total = max(total, bytes)
		progress(total-bytes, total)
		return n, err
	})
}

// dropWithFiles disables a client, removes its files and forgets it. It returns how many
// files there were.
func dropWithFiles(ctx context.Context, at Stores, reg storage.Registry, c *Client, progress func(done, total int64)) (removed int, err error) {
	if err := applyOwn(ctx, reg, &storage.DisableClient{ID: c.ID, Disabled: true}); err != nil {
		return 0, err
	}
	for {
		of, bad, err := filesOf(ctx, reg, c.ID)
		if err != nil {
			return removed, err
		}
		// What a request recorded that was under way is marked in the next turn.
		marked, err := markDeleted(ctx, reg, of)
		if err != nil {
			return removed, err
		}
		partial, badPartials, err := partialsOf(ctx, reg, c.ID)
		if err != nil {
			return removed, err
		}
		markedPartials, err := markPartials(ctx, reg, partial)
		if err != nil {
			return removed, err
		}
		removed += len(marked) + len(markedPartials)
		if err := departOf(ctx, at, reg, c, progress); err != nil {
			return removed, err
		}
		if err := applyOwn(ctx, reg, &storage.DropClient{ID: c.ID}); !errors.Is(err, storage.ErrHasFiles) {
			return removed, err
		}
		if bad = errors.Join(bad, badPartials); len(of)+len(partial) == 0 && bad != nil {
			return removed, notUnderstood(c, bad)
		}
	}
}

// notUnderstood is why a client stays that has files, and none that can be understood.
func notUnderstood(c *Client, bad error) error {
	return &Hinted{
		Err:  fmt.Errorf("%q has files on record that cannot be marked: %w", c.Name, bad),
		Hint: "Somebody has changed the database by hand. sealiftd files says what it cannot read; put that right, or restore a backup, then run this again.",
	}
}

// filesOf returns the files on record of a client, but for those that only wait for their
// record to be forgotten. bad wraps [storage.ErrBadRows] where there are records, of this
// client or another, that cannot be understood.
func filesOf(ctx context.Context, reg storage.Registry, id codec.ClientID) (of []File, bad, err error) {
	err = reg.Files(ctx, func(f File) error {
		if f.ID == id && (f.Taken.IsZero() || !f.Missing) {
			of = append(of, f)
		}
		return nil
	})
	if errors.Is(err, storage.ErrBadRows) {
		bad, err = err, nil
	}
	return of, bad, err
}

// leavingOf counts the files of a client that are to be removed, and their bytes.
func leavingOf(ctx context.Context, reg storage.Registry, id codec.ClientID) (n int, bytes int64, err error) {
	err = reg.Leaving(ctx, func(f File) error {
		if f.ID == id {
			n++
			bytes += f.Size
		}
		return nil
	})
	if err != nil && !errors.Is(err, storage.ErrBadRows) {
		return 0, 0, err
	}
	partial, _, err := partialsOf(ctx, reg, id)
	for _, p := range partial {
		if p.Deleted {
			n++
			bytes += p.Length
		}
	}
	return n, bytes, err
}

func compareFiles(a, b *File) int {
	return cmp.Or(bytes.Compare(a.ID[:], b.ID[:]), strings.Compare(a.Path, b.Path))
}
