package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"sealift/codec"
	"sealift/storage"
)

// target is the place of a file.
type target struct {
	store  *Store
	dir    *os.Root    // its folder
	folder string      // the folder's path below files/
	name   string      // within dir
	info   fs.FileInfo // set by check: what is in the place
	made   []string    // folders that did not exist before, as folder; outermost first
}

func (t *target) close() { _ = t.dir.Close() }

// abandon closes a target into which nothing was moved, and removes the folders
// that were made for it, unless something is in them by now.
func (t *target) abandon() {
	if t.dir != t.store.root {
		_ = t.dir.Close()
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
	info, err := t.dir.Lstat(t.name)
	if err != nil {
		return notStored(err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %q is a %s", ErrObstructed, t.name, kind(info.Mode()))
	}
	t.info = info
	return nil
}

// find returns the place of a file that is stored. The caller closes it.
func (s *Store) find(id codec.ClientID, path string) (*target, error) {
	at, err := s.enterAll(id, path, false)
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
func (s *Store) enterAll(id codec.ClientID, path string, create bool) (*target, error) {
	if !storable(path) {
		return nil, storage.ErrPath
	}
	elements := strings.Split(path, "/")
	t := &target{store: s, dir: s.root, name: elements[len(elements)-1]}
	elements = append([]string{id.String()}, elements[:len(elements)-1]...)
	if create && s.fsync && !s.isDurable(strings.Join(elements, "/")) {
		if err := s.makeMissing(t, elements); err != nil {
			t.abandon()
			return nil, err
		}
	}
	for _, element := range elements {
		next, err := s.enterNext(t, element, create)
		if err != nil {
			t.abandon()
			return nil, err
		}
		if t.dir != s.root {
			_ = t.dir.Close()
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
	dir, whole := s.root, ""
	defer func() {
		if dir != s.root {
			_ = dir.Close()
		}
	}()
	for _, element := range elements {
		whole = join(whole, element)
		if s.isDoubtful(whole) {
			return nil // it has to be empty to be made anew, see makeFolder
		}
		next, err := enter(dir, element)
		if errors.Is(err, fs.ErrNotExist) {
			if err = s.mkdir(t, dir, element, whole); err == nil {
				next, err = enter(dir, element)
			}
		}
		if err != nil {
			return err
		}
		if dir != s.root {
			_ = dir.Close()
		}
		dir = next
	}
	return nil
}

// mkdir makes the folder name in dir, whole below files/, unless it is there.
func (s *Store) mkdir(t *target, dir *os.Root, name, whole string) error {
	defer s.locks.lock(whole)()
	return s.mkdirLocked(t, dir, name, whole)
}

// mkdirLocked is mkdir for who has the lock of the folder's path.
func (s *Store) mkdirLocked(t *target, dir *os.Root, name, whole string) error {
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
func (s *Store) mkdirMode(dir *os.Root, name, whole string) error {
	err := dir.Mkdir(name, s.dirMode)
	if err != nil || !s.chmodDirs {
		return err
	}
	info, err := dir.Lstat(name)
	if err == nil {
		err = s.step(Chmod, s.below(whole), "", func() error { return dir.Chmod(name, s.dirMode|special(info)) })
	}
	if err != nil {
		return errors.Join(err, rmdir(dir, name))
	}
	return nil
}

// enterNext opens the folder name in that of t.
func (s *Store) enterNext(t *target, name string, create bool) (*os.Root, error) {
	next, err := enter(t.dir, name)
	if !create {
		return next, notStored(err)
	}
	whole := join(t.folder, name)
	if err == nil {
		if !s.fsync || s.isDurable(whole) {
			return next, nil
		}
		_ = next.Close()
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
func (s *Store) makeFolder(t *target, name, whole string) (*os.Root, error) {
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
	next, err := enter(t.dir, name)
	if err != nil || !s.fsync || s.isDurable(whole) {
		return next, err
	}
	if err := s.syncFolder(t.dir, t.folder); err != nil {
		_ = next.Close()
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

// removeFolder removes an empty folder, whole below files/.
func (s *Store) removeFolder(whole string) error {
	defer s.locks.lock(whole)()
	dir, err := s.root.OpenRoot(path.Dir(whole))
	if err != nil {
		return err
	}
	defer dir.Close()
	return s.rmdir(dir, path.Base(whole), whole)
}

// rmdir removes the empty folder name in dir, whole below files/. The caller has
// its lock.
func (s *Store) rmdir(dir *os.Root, name, whole string) error {
	err := s.step(Remove, s.below(whole), "", func() error { return rmdir(dir, name) })
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

// enter opens a folder that is no symbolic link.
func enter(dir *os.Root, name string) (*os.Root, error) {
	info, err := dir.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%w: %q is a %s", ErrObstructed, name, kind(info.Mode()))
	}
	return dir.OpenRoot(name)
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
