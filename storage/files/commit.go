package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"sealift/codec"
	"sealift/session"
)

// Commit implements session.Files: the content is flushed to the disk first,
// then renamed into its place, then the directory is flushed.
func (s *Store) Commit(ctx context.Context, file *session.File) error {
	key, id, path := file.Incoming, file.ID, file.Path
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.incoming == nil {
		return errReadOnly
	}
	if !isKey(key) {
		return session.ErrNotStored
	}
	f, err := s.incoming.OpenFile(inFolder(key), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return s.commitAgain(id, path)
	}
	if err != nil {
		return err
	}
	at, err := s.enterAll(id, path, true)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	defer at.close()
	if err := at.check(); err != nil && !errors.Is(err, session.ErrNotStored) {
		return errors.Join(err, f.Close())
	}
	if s.fsync {
		err = f.Sync()
	}
	// Closed before the rename, which Windows wants so.
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	err = s.root.Rename(incomingFolder+"/"+inFolder(key), id.String()+"/"+path)
	if errors.Is(err, fs.ErrNotExist) {
		return s.commitAgain(id, path) // another Commit of the key was faster
	}
	if err != nil || !s.fsync {
		return err
	}
	return syncDir(at.dir)
}

// commitAgain is Commit where the incoming file is gone: if the place is taken,
// an earlier Commit renamed it there, but it may not have come to the end.
func (s *Store) commitAgain(id codec.ClientID, path string) error {
	at, err := s.enterAll(id, path, false)
	if err != nil {
		return err
	}
	defer at.close()
	if err := at.check(); err != nil || !s.fsync {
		return err
	}
	f, err := at.dir.OpenFile(at.name, os.O_RDWR, 0)
	if err != nil {
		return notStored(err)
	}
	return errors.Join(f.Sync(), f.Close(), syncDir(at.dir))
}

// target is the place of a file.
type target struct {
	dir  *os.Root // its folder
	name string   // within dir
	size int64    // set by check
}

func (t *target) close() { _ = t.dir.Close() }

// check looks at what is in the place: nil for a regular file, whose size it
// takes down, ErrNotStored for nothing, ErrObstructed for anything else.
func (t *target) check() error {
	info, err := t.dir.Lstat(t.name)
	if err != nil {
		return notStored(err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %q is a %s", ErrObstructed, t.name, kind(info.Mode()))
	}
	t.size = info.Size()
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
// missing, durably; otherwise a missing one is ErrNotStored. The caller closes
// the target.
func (s *Store) enterAll(id codec.ClientID, path string, create bool) (*target, error) {
	if clean, err := session.CleanPath(path); err != nil || clean != path || !portable(path) {
		return nil, session.ErrPath
	}
	elements := strings.Split(path, "/")
	name := elements[len(elements)-1]
	dir := s.root
	whole := ""
	for _, element := range append([]string{id.String()}, elements[:len(elements)-1]...) {
		whole += "/" + element
		next, err := s.enterNext(dir, element, whole, create)
		if dir != s.root {
			_ = dir.Close()
		}
		if err != nil {
			return nil, err
		}
		dir = next
	}
	return &target{dir: dir, name: name}, nil
}

// enterNext opens the folder name in dir; whole is its path below files/.
//
// A file survives a power cut only if all the folders above it do. That a
// folder exists does not say that its entry is on the disk: another Commit may
// have made it a moment ago. Hence the store remembers whose entries it has
// flushed itself.
func (s *Store) enterNext(dir *os.Root, name, whole string, create bool) (*os.Root, error) {
	next, err := enter(dir, name)
	if !create || !s.fsync && err == nil {
		return next, notStored(err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = dir.Mkdir(name, dirMode)
		switch {
		case err == nil:
			s.forgetDurable(whole) // somebody removed the one that was
		case !errors.Is(err, fs.ErrExist):
			return nil, err
		}
		next, err = enter(dir, name)
	}
	if err != nil || !s.fsync || s.isDurable(whole) {
		return next, err
	}
	if err := syncDir(dir); err != nil {
		_ = next.Close()
		return nil, err
	}
	s.setDurable(whole)
	return next, nil
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

func (s *Store) forgetDurable(whole string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.durable, whole)
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

// portable reports whether path means on this system what it says: on Windows,
// a colon begins the name of a stream within a file.
func portable(path string) bool {
	return runtime.GOOS != "windows" || !strings.Contains(path, ":")
}
