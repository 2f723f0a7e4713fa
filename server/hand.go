package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"

	"sealift/storage"
)

// hand has the registry record the files of a batch as taken, and moves them to their places.
// It does not end before that because ctx has.
func (t *take) hand(ctx context.Context, b *taking) error {
	err := t.makeDurable(b)
	b.close()
	if err != nil {
		return t.out.fault(err)
	}
	ctx = context.WithoutCancel(ctx)
	if err := t.record(ctx, b); err != nil {
		return err
	}
	t.did(stepRecorded)
	p := &publishing{take: t, batch: b.name()}
	for i := range b.files {
		if err := p.publish(&b.files[i], false); err != nil {
			return err
		}
	}
	return p.end()
}

// makeDurable makes a batch durable, and writes its list. One file after the other is synced
// when all are there: where they are links, only the first sync has something to do.
func (t *take) makeDurable(b *taking) error {
	synced := b.files[:0]
	for _, f := range b.files {
		if f.open != nil {
			err := f.open.Sync()
			_ = f.open.Close()
			f.open = nil
			if err != nil {
				t.left(&f.File, err)
				if err := b.drop(f.number); err != nil {
					return err
				}
				continue
			}
		}
		synced = append(synced, f)
	}
	b.files = synced
	if err := t.writeList(b); err != nil {
		return err
	}
	return syncRoot(b.part)
}

// record has the registry record the files of a batch as taken, and leaves those in it that
// are.
func (t *take) record(ctx context.Context, b *taking) error {
	u, err := t.alone(ctx)
	if err != nil {
		return err
	}
	defer u.unlock()
	if !t.out.is(t.out.path) { // where whoever finishes the batch would look for it
		return t.out.fault(errMoved)
	}
	others, err := u.others(ctx)
	if err == nil {
		err = t.stillThere(ctx, b, others)
	}
	if err != nil {
		return err
	}
	if err := u.set(ctx, b, t.out.path); err != nil {
		return err
	}
	if err := t.out.taking.Rename(b.name()+".part", b.name()); err != nil {
		return t.out.fault(err)
	}
	if err := syncRoot(t.out.taking); err != nil {
		return t.out.fault(err)
	}
	t.did(stepComplete)
	ops := make([]storage.Operation, len(b.files))
	for i := range b.files {
		f := &b.files[i]
		ops[i] = &storage.TakeFile{
			Outcome: storage.Outcome{By: storage.Server},
			ID:      f.ID, Path: f.Path, Incoming: f.Incoming, Taken: b.at,
		}
	}
	if len(ops) > 0 {
		if err := t.reg.Apply(ctx, ops); err != nil {
			return &Hinted{Err: err, Hint: goesOn}
		}
	}
	t.did(stepApplied)
	taken := b.files[:0]
	for i, op := range ops {
		err := op.Result().Err
		is := err == nil
		if errors.Is(err, storage.ErrNoFile) {
			var failed error
			if is, failed = t.isTaken(ctx, b, &b.files[i].File); failed != nil {
				return &Hinted{Err: failed, Hint: goesOn}
			}
		}
		if is {
			taken = append(taken, b.files[i])
			continue
		}
		if !errors.Is(err, storage.ErrNoFile) { // a newer version has come
			t.left(&b.files[i].File, err)
		}
		if err := t.out.taking.Remove(fmt.Sprint(b.name(), "/", b.files[i].number)); err != nil {
			return t.out.fault(err)
		}
	}
	b.files = taken
	return u.clear(ctx)
}

// isTaken reports whether f is recorded as taken with the batch: a registry may do twice what
// it was asked, if its answer was lost.
func (t *take) isTaken(ctx context.Context, b *taking, f *File) (bool, error) {
	get, err := getFile(ctx, t.reg, f)
	if err != nil || get.Verified == nil {
		return false, err
	}
	return get.Verified.Incoming == f.Incoming && get.Verified.Taken.Equal(b.at), nil
}

// goesOn is what to do about a command that ended in its middle.
const goesOn = "Run this again: it finishes what it has begun."

// errMoved is an outlet that is not at its path any more.
var errMoved = errors.New("it was moved, removed or replaced while files were taken to it")

// stillThere takes out of a batch what another command has taken, or a client has replaced,
// since it was fetched, and what others may have taken.
func (t *take) stillThere(ctx context.Context, b *taking, others map[string]string) error {
	still := b.files[:0]
	for _, f := range b.files {
		get, err := getFile(ctx, t.reg, &f.File)
		if err != nil {
			return err
		}
		if v := get.Verified; v != nil && v.Incoming == f.Incoming && v.Stays() {
			other, ok := others[f.Incoming]
			if !ok {
				still = append(still, f)
				continue
			}
			t.left(&f.File, fmt.Errorf("a command that was killed has begun to take it to %s; run it there again", other))
		}
		if err := t.out.taking.Remove(fmt.Sprint(b.name(), ".part/", f.number)); err != nil {
			return t.out.fault(err)
		}
	}
	if len(still) == len(b.files) {
		return nil
	}
	b.files = still
	part, err := enter(t.out.taking, b.name()+".part")
	if err == nil {
		err = errors.Join(syncRoot(part), part.Close())
	}
	if err != nil {
		return t.out.fault(err)
	}
	return nil
}

// publishing are the last steps for a batch.
type publishing struct {
	*take
	batch   string // its folder
	folders map[string]bool
	moved   []Taken
}

// publish moves a file of the batch to its place. One that something is in the way of stays
// for the next Take.
func (p *publishing) publish(f *fetched, leftOver bool) error {
	to := placeBelow(&f.File)
	taken := Taken{File: f.File, To: p.out.join(to), LeftOver: leftOver}
	if p.folders == nil {
		p.folders = make(map[string]bool)
	}
	err := p.out.publish(fmt.Sprint(p.batch, "/", f.number), to, func(folder string) { p.folders[folder] = true })
	var way *inTheWayError
	if errors.As(err, &way) {
		taken.Err, taken.LeftOver = way, true
		p.Each(taken)
		return nil
	}
	if err != nil {
		return errors.Join(p.out.fault(err), p.end())
	}
	p.moved = append(p.moved, taken)
	p.did(stepPublished)
	return nil
}

// end makes what was moved durable, tells of it, and removes the folder of the batch, unless
// a file waits there.
func (p *publishing) end() error {
	for folder := range p.folders {
		if err := p.out.sync(folder); err != nil {
			return err
		}
	}
	for _, f := range p.moved {
		p.Each(f)
	}
	p.moved, p.folders = nil, nil
	entries, err := fs.ReadDir(p.out.taking.FS(), p.batch)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && (len(entries) == 0 || len(entries) == 1 && entries[0].Name() == listName) {
		err = p.out.taking.RemoveAll(p.batch)
	}
	if err != nil {
		return p.out.fault(err)
	}
	return nil
}

// takenAt is a time of a few moments ago for File.Taken, to the millisecond, as registries keep
// it. It is a random one of the last ten seconds, so that what a killed run has left behind is
// not taken for the file of another run.
func takenAt() time.Time {
	return time.Now().UTC().Truncate(time.Millisecond).Add(-time.Duration(rand.IntN(10_000)) * time.Millisecond)
}
