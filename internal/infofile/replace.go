package infofile

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxLinks is the longest chain of symbolic links that Follow goes along.
const maxLinks = 40

// Follow returns where path leads: path itself, or what the symbolic link at
// path points to, through any chain of them. The file at the end need not be
// there.
func Follow(path string) (string, error) {
	for at, n := path, 0; ; n++ {
		info, err := os.Lstat(at)
		if err != nil || info.Mode()&fs.ModeSymlink == 0 {
			return at, nil // what is wrong with it shows when it is opened
		}
		if n == maxLinks {
			return "", fmt.Errorf("%s: more than %d symbolic links, one leading to the next", path, maxLinks)
		}
		to, err := os.Readlink(at)
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(to) {
			to = folder(at) + string(filepath.Separator) + to
		}
		// A ".." behind a linked folder is about where that leads.
		if dir, err := filepath.EvalSymlinks(folder(to)); err == nil {
			to = filepath.Join(dir, filepath.Base(to))
		}
		at = to
	}
}

// folder is the folder of path, as it is written there.
func folder(path string) string {
	dir, _ := filepath.Split(path)
	if dir == "" {
		return "."
	}
	return dir
}

// Reservation is room on the disk for a file that is to take its place later: a
// temporary file beside it, of mode 0600, written and synced. It ends with
// Commit or Discard.
type Reservation struct {
	path    string
	content []byte // of the temporary file
	f       *os.File
}

// Reserve makes room for a file at path, by writing content, which is as long
// as what Commit will write or longer.
func Reserve(path string, content []byte) (*Reservation, error) {
	return reserve(path, content, 0o600)
}

func reserve(path string, content []byte, perm fs.FileMode) (*Reservation, error) {
	f, err := createTemp(path, perm)
	if err != nil {
		return nil, err
	}
	r := &Reservation{path: path, content: content, f: f}
	if err := r.write(content); err != nil {
		r.Discard()
		return nil, err
	}
	return r, nil
}

// createTemp makes a file beside path, of mode perm less the umask, which
// os.CreateTemp does not know. Recover finds it by its name.
func createTemp(path string, perm fs.FileMode) (f *os.File, err error) {
	dir, base := filepath.Split(path)
	for range maxTempNames {
		f, err = os.OpenFile(dir+"."+base+"."+rand.Text()[:8]+".tmp", os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	return f, err
}

// maxTempNames is how many random names are tried. That one is taken is unlikely.
const maxTempNames = 100

func (r *Reservation) write(content []byte) error {
	if _, err := r.f.WriteAt(content, 0); err != nil {
		return err
	}
	if err := r.f.Truncate(int64(len(content))); err != nil {
		return err
	}
	return r.f.Sync()
}

// Redirect makes path the file that Commit makes.
func (r *Reservation) Redirect(path string) { r.path = path }

// Commit puts a file with content in its place, atomically and durably. An
// error names the temporary file if that is left, with the content.
func (r *Reservation) Commit(content []byte) error {
	if !bytes.Equal(content, r.content) {
		if err := r.write(content); err != nil {
			r.Discard()
			return err
		}
	}
	if err := r.place(); err != nil {
		return fmt.Errorf("%w; it is in %s", err, r.f.Name())
	}
	return nil
}

// place gives the temporary file its name.
func (r *Reservation) place() error {
	if err := errors.Join(r.f.Close(), os.Rename(r.f.Name(), r.path)); err != nil {
		return err
	}
	syncFolder(r.path)
	return nil
}

// Discard gives the room back.
func (r *Reservation) Discard() {
	r.f.Close()
	os.Remove(r.f.Name())
}

// Replace puts a new file with content at path, atomically and durably: whoever
// reads path gets what was there or all of content, also after a power cut. The
// file has mode perm, less the umask. A symbolic link at path is replaced itself;
// Follow says where it leads. A folder, pipe or device at path, or behind the
// link, is an error and stays.
func Replace(path string, content []byte, perm fs.FileMode) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file", path)
	}
	r, err := reserve(path, content, perm)
	if err != nil {
		return err
	}
	if err := r.place(); err != nil {
		r.Discard()
		return err
	}
	return nil
}

// syncFolder makes the name of path durable. Where a folder cannot be synced
// (Windows), the system has its own ways.
func syncFolder(path string) {
	if dir, err := os.Open(folder(path)); err == nil {
		_ = dir.Sync()
		dir.Close()
	}
}

// maxKept is how many files of one kept name there may be.
const maxKept = 100

// Keep copies the file at path to path.suffix, durably, before another takes
// its place. It returns the name of the copy, and whether it was made now. A
// file that has that name and another content stays as it is, and the copy is
// called path.suffix.2, and so on. The caller holds the lock of path.
func Keep(path, suffix string) (kept string, made bool, err error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return "", false, err
	}
	for n := 1; n <= maxKept; n++ {
		kept = path + "." + suffix
		if n > 1 {
			kept = fmt.Sprintf("%s.%d", kept, n)
		}
		held, err := os.ReadFile(kept)
		switch {
		case err == nil && bytes.Equal(held, content):
			return kept, false, nil
		case errors.Is(err, fs.ErrNotExist):
			return kept, true, Replace(kept, content, 0o600)
		}
	}
	return "", false, fmt.Errorf("%s: there are %d others of that name", kept, maxKept)
}

// Recover looks after the temporary files that an end of the process at the
// wrong time has left beside the me.info at path. One with a whole identity
// becomes path, if there is none, or else path.<id>; the others are removed. The
// caller holds the lock of path.
func Recover(path string) {
	entries, err := os.ReadDir(folder(path))
	if err != nil {
		return
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "."+filepath.Base(path)+".") || !strings.HasSuffix(e.Name(), ".tmp") {
			continue
		}
		temp := filepath.Join(folder(path), e.Name())
		if me, err := ReadMe(temp); err == nil && !me.ID.IsZero() {
			to := path
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				to = path + "." + me.ID.String()
			}
			if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) && os.Rename(temp, to) == nil {
				syncFolder(to)
				continue
			}
		}
		os.Remove(temp)
	}
}
