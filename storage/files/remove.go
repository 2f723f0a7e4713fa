package files

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"strings"

	"sealift/storage"
)

// Remove implements storage.Files.
//
// The file is moved to the incoming ones, where no record names it, its folder is
// synced, and then it is unlinked. A sync that failed is final, see makeFolder: the
// move is undone then, and the next Remove changes the folder anew. What a process
// that was killed leaves among the incoming files goes at the next start.
func (s *Store) Remove(ctx context.Context, f storage.Stored) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.incoming == nil {
		return errReadOnly
	}
	defer s.locks.lock(f.ID.String() + "/" + f.Path)()
	if err := s.incomingHome.check(); err != nil {
		return err
	}
	at, err := s.find(f.Place)
	switch {
	case errors.Is(err, storage.ErrNotStored):
		err = s.syncAbove(f.Place)
	case err == nil:
		err = s.removeFrom(at)
		at.close()
	}
	if err != nil {
		return err
	}
	s.removeFolders(path.Dir(f.ID.String() + "/" + f.Path))
	return s.rootHome.check()
}

// removeFrom removes the file that is in at, durably.
func (s *Store) removeFrom(at *target) error {
	name := inFolder(newKey())
	if err := s.makeIncomingFolder(name); err != nil {
		return err
	}
	aside, err := s.inIncoming(name)
	if err != nil {
		return err
	}
	defer aside.dir.close()
	if err := s.rename(at.location, aside); err != nil {
		return err
	}
	if s.fsync {
		if err := s.syncFolder(at.dir, at.folder); err != nil {
			return errors.Join(err, s.rename(aside, at.location))
		}
	}
	return s.remove(name)
}

// syncAbove makes durable that there is nothing in a place: a process that was killed
// may have removed it. It syncs the folder, or the nearest one above that is there.
func (s *Store) syncAbove(place storage.Place) error {
	if !s.fsync {
		return nil
	}
	dir, whole := s.top, ""
	defer func() {
		if dir != s.top {
			dir.close()
		}
	}()
	elements := strings.Split(place.ID.String()+"/"+place.Path, "/")
	for _, element := range elements[:len(elements)-1] {
		next, err := dir.enter(element)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return err
		}
		if dir != s.top {
			dir.close()
		}
		dir, whole = next, join(whole, element)
	}
	return s.syncFolder(dir, whole)
}

// removeFolders removes the folder whole below files/ if it is empty, and those above
// it. They need not be durably gone.
func (s *Store) removeFolders(whole string) {
	for ; whole != "."; whole = path.Dir(whole) {
		if err := s.removeFolder(whole); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return // something is in it
		}
	}
}
