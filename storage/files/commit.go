package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"sealift/crypto/cksum"
	"sealift/storage"
)

// maxTries is how often Commit enters the folder of a file, if somebody removes
// it each time.
const maxTries = 10

// errFolderGoes is a folder that was removed as often as Commit made it.
var errFolderGoes = errors.New("the file's folder is removed again and again")

// Commit implements storage.Files: the content is synced first, then renamed into
// its place, then the folder is synced.
func (s *Store) Commit(ctx context.Context, f *storage.File) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.incoming == nil {
		return errReadOnly
	}
	if !isKey(f.Incoming) {
		return storage.ErrNotStored
	}
	defer s.locks.lock(f.ID.String() + "/" + f.Path)()
	if err := s.incomingHome.check(); err != nil {
		return err
	}
	if s.fsync && f.Size <= smallSize {
		s.small.mark()
		defer s.small.mark()
	}
	err := s.move(f, !s.fsync)
	if errors.Is(err, errGone) {
		err = s.commitAgain(ctx, f)
	}
	if err != nil {
		return err
	}
	return s.rootHome.check()
}

// errGone says that there is no incoming file: there never was, or it was moved or removed.
var errGone = errors.New("the incoming file is gone")

// move moves an incoming file to its place. synced says that its content is durable
// already. errGone if there is none.
func (s *Store) move(f *storage.File, synced bool) error {
	from, err := s.inIncoming(inFolder(f.Incoming))
	if errors.Is(err, fs.ErrNotExist) {
		return errGone
	}
	if err != nil {
		return err
	}
	defer from.dir.close()
	for range maxTries {
		found, err := complete(from, f)
		if err != nil {
			return err
		}
		at, err := s.enterMaking(f.Place(), true, func() error { return s.syncOnce(f.Incoming, &synced) })
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		moved, err := s.moveInto(at, from, f, found, &synced)
		if moved {
			at.close()
			return err
		}
		at.abandon()
		if err != nil {
			return err
		}
	}
	return errFolderGoes
}

// moveInto moves an incoming file, which found describes, into at. If it was not moved and there is no
// error, the folder went, and the caller tries again. It sets synced once the
// content is durable.
func (s *Store) moveInto(at *target, from location, f *storage.File, found entry, synced *bool) (moved bool, err error) {
	if err := at.check(); err != nil && !errors.Is(err, storage.ErrNotStored) {
		return false, err
	}
	if !*synced {
		if err := s.syncOnce(f.Incoming, synced); err != nil {
			return false, err
		}
		// That may have taken long, and whoever took the folder away has the file in it.
		if !at.isInPlace() {
			at.forgetFolders()
			return false, nil
		}
	}
	err = s.rename(from, at.location)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if isElsewhere(err) {
		if why := s.mayHold(f.Place()); why != nil {
			return false, why
		}
		return false, fmt.Errorf("%w: %w", ErrObstructed, err)
	}
	if err != nil {
		return false, err
	}
	// Somebody may have moved one of the folders meanwhile, and the file went with it.
	if there, err := s.lookBelow(at.path()); err != nil || !there.same(found) {
		at.forgetFolders()
		if err := s.rename(at.location, from); err != nil {
			return true, errors.Join(errGone, err)
		}
		return false, nil
	}
	if !s.fsync {
		return true, nil
	}
	if err := s.syncFolder(at.dir, at.folder); err != nil {
		return true, fmt.Errorf("%w: %w", storage.ErrPlaceNotDurable, err)
	}
	return true, nil
}

// syncOnce is syncIncoming unless synced says that it was done; it sets synced.
func (s *Store) syncOnce(key string, synced *bool) error {
	if *synced {
		return nil
	}
	err := s.syncIncoming(key)
	*synced = err == nil
	return err
}

// complete looks at an incoming file: errGone if there is none, ErrNotStored if it
// is not what f says.
func complete(from location, f *storage.File) (entry, error) {
	found, err := from.dir.look(from.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return entry{}, errGone
	case err != nil:
		return entry{}, err
	case !found.mode.IsRegular():
		return entry{}, fmt.Errorf("%w: the incoming file is a %s", storage.ErrNotStored, kind(found.mode))
	case found.size != f.Size:
		return entry{}, fmt.Errorf("%w: the incoming file has %d bytes instead of %d", storage.ErrNotStored, found.size, f.Size)
	}
	return found, nil
}

// syncIncoming makes the content of an incoming file durable, through the
// descriptor that wrote it if it is still open, and closes it, which Windows
// wants before a rename. If that fails, it removes the file.
func (s *Store) syncIncoming(key string) error {
	f := s.takeKept(key)
	if f == nil {
		if cause := s.isSpoilt(key); cause != nil { // when it gave way
			return s.spoil(key, cause)
		}
		opened := newFile(s, inFolder(key))
		opened.made = true
		f = &opened
		if _, err := f.use(); errors.Is(err, fs.ErrNotExist) {
			return errGone
		} else if err != nil {
			return err
		}
	}
	err := s.step(SyncFile, f.path, "", f.f.Sync)
	if err = errors.Join(err, f.release()); err != nil {
		return s.spoil(key, err)
	}
	return nil
}

// commitAgain is Commit where the incoming file is gone: an earlier one may have
// moved it, but not have come to its end. ErrNotStored if what is in the place is
// not the content that f says.
//
// The sync of the folder may have failed, and only an entry that is made anew is
// certain to be written by the next one. So the file is moved back first.
func (s *Store) commitAgain(ctx context.Context, f *storage.File) error {
	if err := s.moveBack(ctx, f); err != nil || !s.fsync {
		return err
	}
	err := s.move(f, true)
	if errors.Is(err, errGone) {
		return storage.ErrNotStored
	}
	return err
}

// moveBack compares the content in its place with f. With fsync it makes that durable, and
// moves it back to the incoming files.
func (s *Store) moveBack(ctx context.Context, f *storage.File) error {
	at, err := s.find(f.Place())
	if errors.Is(err, ErrObstructed) {
		return fmt.Errorf("%w: %w", storage.ErrNotStored, err)
	}
	if err != nil {
		return err
	}
	defer at.close()
	if at.found.size != f.Size {
		return fmt.Errorf("%w: in its place are %d bytes instead of %d", storage.ErrNotStored, at.found.size, f.Size)
	}
	if err := s.verify(ctx, at, f); err != nil || !s.fsync {
		return err
	}
	name := inFolder(f.Incoming)
	if err := s.makeIncomingFolder(name); err != nil {
		return err
	}
	back, err := s.inIncoming(name)
	if err != nil {
		return err
	}
	defer back.dir.close()
	return notStored(s.rename(at.location, back))
}

// verify makes the content in a place durable and compares it with f.
func (s *Store) verify(ctx context.Context, at *target, f *storage.File) error {
	r, err := at.dir.open(at.name, os.O_RDWR, 0)
	if err != nil {
		return notStored(err)
	}
	defer r.Close()
	if s.fsync {
		if err := s.step(SyncFile, s.below(at.folder+"/"+at.name), "", r.Sync); err != nil {
			return fmt.Errorf("%w: %w", storage.ErrPlaceNotDurable, err)
		}
		dropCache(r)
	}
	var sum cksum.Hash
	if _, err := io.Copy(&sum, &reader{ctx, r}); err != nil {
		return err
	}
	if sum.Sum32() != f.Cksum {
		return fmt.Errorf("%w: in its place is content of another checksum", storage.ErrNotStored)
	}
	return nil
}

// reader reads until its context ends.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
