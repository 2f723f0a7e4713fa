//go:build unix

package infofile

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// The mode is the one that is asked for, less the umask, whatever the old file had.
func TestReplaceMode(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o027))
	path := filepath.Join(t.TempDir(), "file")
	for _, tc := range []struct{ perm, want fs.FileMode }{{0o600, 0o600}, {0o644, 0o640}, {0o666, 0o640}, {0o600, 0o600}} {
		if err := Replace(path, nil, tc.perm); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != tc.want {
			t.Errorf("asked for %v: %v, %v, want %v", tc.perm, info.Mode(), err, tc.want)
		}
	}
}

// A pipe, or a link to one, stays and is not waited for: the file that is asked
// for might be /dev/stdout, and the user root.
func TestReplaceNoPipe(t *testing.T) {
	dir := t.TempDir()
	pipe, link := filepath.Join(dir, "pipe"), filepath.Join(dir, "link")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(pipe, link); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{pipe: fs.ModeNamedPipe, link: fs.ModeSymlink} {
		if err := Replace(path, []byte("content"), 0o600); err == nil {
			t.Errorf("%s was replaced", path)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode().Type() != want {
			t.Errorf("%s is now %v, %v", path, info, err)
		}
	}
}

// A link to a file is replaced, and the file stays as it is: who can make links in
// a folder must not choose what is written to elsewhere.
func TestReplaceLink(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if err := Replace(link, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{file: "old", link: "new"} {
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			t.Errorf("%s holds %q, %v, want %q", path, b, err, want)
		}
	}
}
