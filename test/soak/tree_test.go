//go:build linux

package soak

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"sealift/crypto/cksum"
)

// tree is all that is below a directory: content and links, by path.
func (r *run) tree(dir string) map[string]string {
	r.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Type().IsRegular():
			b, err := os.ReadFile(path)
			all[path] = fmt.Sprintf("%d bytes, cksum %d", len(b), cksum.Checksum(b))
			return err
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			all[path] = "link to " + to
			return err
		}
		all[path] = "folder"
		return nil
	})
	if err != nil {
		r.Errorf("%v", err)
	}
	return all
}

// unchanged asserts that a directory is what it was.
func (r *run) unchanged(dir string, before map[string]string) {
	r.Helper()
	now := r.tree(dir)
	for path, what := range before {
		if now[path] != what {
			r.Errorf("%s was: %s; is: %s", path, what, now[path])
		}
	}
	for path, what := range now {
		if before[path] == "" {
			r.Errorf("%s has come: %s", path, what)
		}
	}
}
