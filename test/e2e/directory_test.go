//go:build unix

package e2e

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A --dir that cannot be used is told of, with what to do, and nothing is made.
func TestDirectoriesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "file"), []byte("x"))
	if err := os.Symlink("nowhere", filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	for name, why := range map[string]string{
		"new": "does not exist", "new/below": "does not exist", "dangling": "link to nowhere, which does not exist",
		"file": "want a folder", "file/below": "not a directory",
	} {
		for _, command := range [][]string{{}, {"serve"}, {"clients"}, {"files"}, {"verify"}, {"backup", "--to", "copy"}, {"take-strays"}, {"forget-missing"}} {
			r := run(t, dir, sealiftd, append(command, "--dir", name)...).failed(t, why)
			if why == "does not exist" && !strings.Contains(r.stderr, "Hint: ") {
				t.Errorf("%v --dir %s: no hint: %s", command, name, r.stderr)
			}
		}
	}
	for _, name := range []string{"new", "nowhere", "copy", "copy.partial"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s was made: %v", name, err)
		}
	}
}
