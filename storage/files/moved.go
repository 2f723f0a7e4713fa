package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrMoved is a directory files/ that is not where it was opened any more: it was
// renamed, removed or replaced, or another disk was mounted over it. What is
// written to it would be nowhere after a restart. Nothing is acknowledged until
// it is back in its place.
var ErrMoved = errors.New("the directory files/ was moved or replaced while in use")

// home says where a directory was opened, and which one it was.
type home struct {
	path string
	info os.FileInfo
}

// findHome looks at a directory that was opened at path.
func findHome(path string, dir *os.Root) (home, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return home{}, err
	}
	f, err := dir.Open(".")
	if err != nil {
		return home{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	return home{path, info}, err
}

// check returns ErrMoved unless the path still leads to the directory. It costs
// one stat.
func (h *home) check() error {
	now, err := os.Stat(h.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(now, h.info):
		return fmt.Errorf("%w: %s", ErrMoved, h.path)
	case err != nil:
		return err
	}
	return nil
}

// atHome returns ErrMoved unless the paths of the store lead to what it has open.
func (s *Store) atHome() error {
	if err := s.rootHome.check(); err != nil {
		return err
	}
	return s.incomingHome.check()
}
