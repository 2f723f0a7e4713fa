package files

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"sealift/storage"
)

// location is a name in an open folder.
type location struct {
	dir    *directory
	folder string // its path below files/
	name   string // within dir
}

func (l location) path() string { return join(l.folder, l.name) }

// target is the place of a file.
type target struct {
	store *Store
	location
	found entry    // set by check: what is in the place
	made  []string // folders that did not exist before, as folder; outermost first
}

func (t *target) close() { t.dir.close() }

// abandon closes a target into which nothing was moved, and removes the folders
// that were made for it, unless something is in them by now.
func (t *target) abandon() {
	if t.dir != t.store.top {
		t.dir.close()
	}
	for len(t.made) > 0 {
		last := len(t.made) - 1
		if err := t.store.removeFolder(t.made[last]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return // nor can those above it be removed
		}
		t.made = t.made[:last]
	}
}

// check looks at what is in the place: nil for a regular file, ErrNotStored for
// nothing, ErrObstructed for anything else.
func (t *target) check() error {
	found, err := t.dir.look(t.name)
	if err != nil {
		return notStored(err)
	}
	if !found.mode.IsRegular() {
		return obstructed(t.name, found.mode)
	}
	t.found = found
	return nil
}

// isInPlace reports whether the path of the folder still leads to it.
func (t *target) isInPlace() bool {
	there, err := t.store.lookBelow(t.folder)
	if err != nil {
		return false
	}
	open, err := t.dir.look(".")
	return err == nil && open.same(there)
}

// forgetFolders has the folders on the way count as new: they may be others than they were.
func (t *target) forgetFolders() {
	for whole := t.folder; whole != "."; whole = path.Dir(whole) {
		t.store.forgetFolder(whole)
	}
}

// find returns the place of a file that is stored. The caller closes it.
func (s *Store) find(place storage.Place) (*target, error) {
	at, err := s.enterAll(place, false)
	if err != nil {
		return nil, err
	}
	if err := at.check(); err != nil {
		at.close()
		return nil, err
	}
	return at, nil
}

// enterAll goes down to the folder of a file, one element of the path at a time,
// and through no symbolic link. With create it makes the folders that are
// missing, durably; otherwise a missing one is ErrNotStored. With create,
// fs.ErrNotExist says that somebody removed a folder meanwhile. The caller closes
// or abandons the target.
func (s *Store) enterAll(place storage.Place, create bool) (*target, error) {
	return s.enterMaking(place, create, nil)
}

// enterMaking is enterAll that calls made before it syncs a folder, when all that were
// missing are there; nil is nothing. A Commit syncs its content there: the file system's
// journal then has the folders with it, and their own syncs find their work done.
func (s *Store) enterMaking(place storage.Place, create bool, made func() error) (*target, error) {
	if !storable(place.Path) {
		return nil, storage.ErrPath
	}
	elements := strings.Split(place.Path, "/")
	t := &target{store: s, location: location{dir: s.top, name: elements[len(elements)-1]}}
	elements = append([]string{place.ID.String()}, elements[:len(elements)-1]...)
	if create && s.fsync && !s.isDurable(strings.Join(elements, "/")) {
		if err := s.makeMissing(t, elements); err != nil {
			t.abandon()
			return nil, err
		}
		if made != nil {
			if err := made(); err != nil {
				t.abandon()
				return nil, err
			}
		}
	}
	for _, element := range elements {
		next, err := s.enterNext(t, element, create)
		if err != nil {
			t.abandon()
			return nil, err
		}
		if t.dir != s.top {
			t.dir.close()
		}
		t.dir = next
		t.folder = join(t.folder, element)
	}
	return t, nil
}

// makeMissing makes the folders that are missing, the outermost first, before any
// of them is synced: a file system with a journal writes them all with the first
// sync, and each of the others finds its work done. Made and synced one by one, 16
// folders cost 16 writes of the journal.
func (s *Store) makeMissing(t *target, elements []string) error {
	dir, whole := s.top, ""
	defer func() {
		if dir != s.top {
			dir.close()
		}
	}()
	for _, element := range elements {
		whole = join(whole, element)
		if s.isDoubtful(whole) {
			return nil // it has to be empty to be made anew, see makeFolder
		}
		next, err := dir.enter(element)
		if errors.Is(err, fs.ErrNotExist) {
			if err = s.mkdir(t, dir, element, whole); err == nil {
				next, err = dir.enter(element)
			}
		}
		if err != nil {
			return err
		}
		if dir != s.top {
			dir.close()
		}
		dir = next
	}
	return nil
}

// mkdir makes the folder name in dir, whole below files/, unless it is there.
func (s *Store) mkdir(t *target, dir *directory, name, whole string) error {
	defer s.locks.lock(whole)()
	return s.mkdirLocked(t, dir, name, whole)
}

// mkdirLocked is mkdir for a caller that has the lock of the folder's path.
func (s *Store) mkdirLocked(t *target, dir *directory, name, whole string) error {
	err := s.step(Mkdir, s.below(whole), "", func() error { return s.mkdirMode(dir, name, whole) })
	switch {
	case err == nil:
		s.forgetFolder(whole) // somebody removed the one that was
		t.made = append(t.made, whole)
	case errors.Is(err, fs.ErrExist):
		err = nil
	}
	return err
}

// mkdirMode makes a folder with the mode of all folders, whatever the umask is.
func (s *Store) mkdirMode(dir *directory, name, whole string) error {
	err := dir.mkdir(name, s.dirMode)
	if err != nil || !s.chmodDirs {
		return err
	}
	if err := s.chmodDir(dir, name, whole); err != nil {
		return errors.Join(err, dir.rmdir(name))
	}
	return nil
}

func (s *Store) chmodDir(dir *directory, name, whole string) error {
	made, err := dir.enter(name)
	if err != nil {
		return err
	}
	defer made.close()
	f, err := made.self()
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return s.step(Chmod, s.below(whole), "", func() error { return f.Chmod(s.dirMode | special(info)) })
}

// enterNext opens the folder name in that of t.
func (s *Store) enterNext(t *target, name string, create bool) (*directory, error) {
	next, err := t.dir.enter(name)
	if !create {
		return next, notStored(err)
	}
	whole := join(t.folder, name)
	if err == nil {
		if !s.fsync || s.isDurable(whole) {
			return next, nil
		}
		next.close()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return s.makeFolder(t, name, whole)
}

// makeFolder opens the folder name in that of t, whole below files/, which is made
// first if it does not exist, and makes its entry durable.
//
// A file survives a power cut only if all the folders above it do. That a folder
// exists does not say that its entry is on the disk: hence the store remembers
// whose entries it has synced itself. A sync that failed is final: the kernel
// reports it once, and the next sync succeeds without what was lost. So a folder
// whose entry could not be synced is removed again, for the next Commit to make
// it anew. One that cannot be removed, because something is in it, is of no use
// until the next start. Nobody goes into a folder meanwhile, because the lock of
// its path is held.
func (s *Store) makeFolder(t *target, name, whole string) (*directory, error) {
	defer s.locks.lock(whole)()
	if s.isDoubtful(whole) {
		if err := s.rmdir(t.dir, name, whole); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: the folder %q, and it cannot be made anew: %w", errFolderNotDurable, whole, err)
		}
	}
	if !slices.Contains(t.made, whole) {
		if err := s.mkdirLocked(t, t.dir, name, whole); err != nil {
			return nil, err
		}
	}
	next, err := t.dir.enter(name)
	if err != nil || !s.fsync || s.isDurable(whole) {
		return next, err
	}
	if err := s.syncFolder(t.dir, t.folder); err != nil {
		next.close()
		if s.rmdir(t.dir, name, whole) != nil {
			s.doubt(whole)
		}
		return nil, fmt.Errorf("%w: %w", errFolderNotDurable, err)
	}
	s.setDurable(whole)
	return next, nil
}

// errFolderNotDurable is a folder on the way to a file that could not be made
// durable, before the file was moved.
var errFolderNotDurable = errors.New("a folder could not be written to the disk")

// locate opens the folder that something at a path below files/ is in. The caller closes it,
// unless it is files/ itself.
func (s *Store) locate(whole string) (location, error) {
	at := location{dir: s.top}
	elements := strings.Split(whole, "/")
	for _, element := range elements[:len(elements)-1] {
		next, err := at.dir.enter(element)
		if at.dir != s.top {
			at.dir.close()
		}
		if err != nil {
			return location{}, err
		}
		at.dir, at.folder = next, join(at.folder, element)
	}
	at.name = elements[len(elements)-1]
	return at, nil
}

// lookBelow says what stands at a path below files/. ErrObstructed if a folder on the way
// is none, or a symbolic link. It opens none of them.
func (s *Store) lookBelow(whole string) (entry, error) {
	for i, c := range whole {
		if c != '/' {
			continue
		}
		found, err := s.top.look(whole[:i]) // those above it have been looked at
		if err != nil {
			return entry{}, err
		}
		if !found.mode.IsDir() {
			return entry{}, obstructed(whole[:i], found.mode)
		}
	}
	return s.top.look(whole)
}

// removeFolder removes an empty folder, whole below files/.
func (s *Store) removeFolder(whole string) error {
	defer s.locks.lock(whole)()
	at, err := s.locate(whole)
	if err != nil {
		return err
	}
	if at.dir != s.top {
		defer at.dir.close()
	}
	return s.rmdir(at.dir, at.name, whole)
}

// rmdir removes the empty folder name in dir, whole below files/. The caller has
// its lock.
func (s *Store) rmdir(dir *directory, name, whole string) error {
	err := s.step(Remove, s.below(whole), "", func() error { return dir.rmdir(name) })
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		s.forgetFolder(whole)
	}
	return err
}

// maxDurable bounds the folders remembered. Forgetting one costs a flush.
const maxDurable = 1 << 16

func (s *Store) isDurable(whole string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.durable[whole]
	return ok
}

func (s *Store) setDurable(whole string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.durable) >= maxDurable {
		clear(s.durable)
	}
	s.durable[whole] = struct{}{}
}

func (s *Store) isDoubtful(whole string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.doubtful[whole]
	return ok
}

func (s *Store) doubt(whole string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doubtful[whole] = struct{}{}
}

func (s *Store) forgetFolder(whole string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.durable, whole)
	delete(s.doubtful, whole)
}

func obstructed(name string, by fs.FileMode) error {
	return fmt.Errorf("%w: %q is a %s", ErrObstructed, name, kind(by))
}

func kind(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return "file"
	case mode.IsDir():
		return "folder"
	case mode&fs.ModeSymlink != 0:
		return "symbolic link"
	}
	return "special file"
}

// join adds a name to the path of a folder, which is empty for files/ itself.
func join(folder, name string) string {
	if folder == "" {
		return name
	}
	return folder + "/" + name
}
