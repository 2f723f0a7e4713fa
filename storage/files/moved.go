package files

import (
	"errors"
	"fmt"
	"io/fs"
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
	dir  entry
}

// findHome looks at a directory that was opened at path.
func findHome(path string, dir *directory) (home, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return home{}, err
	}
	found, err := dir.look(".")
	return home{path, found}, err
}

// check returns ErrMoved unless the path still leads to the directory. It costs
// one stat.
func (h *home) check() error {
	now, err := lookAtPath(h.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && !now.same(h.dir):
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
