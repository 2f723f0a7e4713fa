//go:build unix

package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sealift/storage"
)

// What is seen to be in the way of a file is told when it begins, with the name of
// what is in the way; the folders that are missing are no obstacle, and none is
// made.
func TestWayIsLookedAt(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{Fsync: true})
	commit(t, s, waiting(receive(t, s, newer), "docs/sub/file", newer))
	home := filepath.Join(dir, "files", alice.String())
	outside := t.TempDir()
	for _, link := range []string{"link", "docs/link"} {
		if err := os.Symlink(outside, filepath.Join(home, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("nowhere", filepath.Join(home, "dangling")); err != nil {
		t.Fatal(err)
	}
	for path, what := range map[string]string{
		"docs/sub/file": "", "docs/other": "", "new/one/two": "", "link2": "",
		"link":               `link" is a symbolic link`,
		"link/a":             `link" is a symbolic link`,
		"docs/link/a/b":      `docs/link" is a symbolic link`,
		"dangling/a":         `dangling" is a symbolic link`,
		"docs":               `docs" is a folder`,
		"docs/sub":           `docs/sub" is a folder`,
		"docs/sub/file/a":    `docs/sub/file" is a file`,
		"docs/sub/file/a/b/": "-", // no clean path
	} {
		_, err := s.Create(t.Context(), placeOf(path), storage.Announce(1))
		switch {
		case what == "":
			if err != nil {
				t.Errorf("%q: %v", path, err)
			}
		case what == "-":
			if !errors.Is(err, storage.ErrPath) {
				t.Errorf("%q: %v, want ErrPath", path, err)
			}
		case !errors.Is(err, ErrObstructed) || !strings.Contains(err.Error(), "files/"+alice.String()+"/"+what):
			t.Errorf("%q: %v, want %s", path, err, what)
		}
	}
	if _, err := os.Lstat(filepath.Join(home, "new")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder for what only began: %v", err)
	}
	for _, path := range []string{".", alice.String() + "/docs", alice.String() + "/link"} {
		general, err := look(s.root, path)
		direct, err2 := s.lookAt(path)
		if err != nil || err2 != nil || general.mode != direct.mode {
			t.Errorf("%q: %+v, %v and %+v, %v", path, general, err, direct, err2)
		}
	}
}

// A folder that is another file system is found when a file begins, and at a
// Commit no later than at the rename.
func TestFolderOfAnotherFileSystem(t *testing.T) {
	dir := t.TempDir()
	elsewhere := error(nil)
	s := open(t, dir, Options{Fsync: true, Faults: &Faults{Before: func(step Step) error {
		if step.Op == Rename {
			return elsewhere
		}
		return nil
	}}})
	commit(t, s, waiting(receive(t, s, newer), "docs/file", newer))
	key := receive(t, s, newer)

	home := s.device
	s.device++ // as if files/ were on another than all below it
	for _, path := range []string{"file", "docs/file", "docs/new/file"} {
		_, err := s.Create(t.Context(), placeOf(path), storage.Announce(1))
		if !errors.Is(err, ErrObstructed) || !strings.Contains(err.Error(), `files/`+alice.String()+`" is another file system`) {
			t.Errorf("%q: %v", path, err)
		}
	}
	s.device = home

	elsewhere = &os.LinkError{Op: "rename", Err: syscall.EXDEV}
	wantCommit(t, s, waiting(key, "docs/other", newer), ErrObstructed)
	elsewhere = nil
	commit(t, s, waiting(key, "docs/other", newer))
}

// umask sets that of the process until the test ends.
func umask(t *testing.T, mask int) {
	was := syscall.Umask(mask)
	t.Cleanup(func() { syscall.Umask(was) })
}

// Files and folders have the modes that were asked for, whatever the umask is. The
// file has its own before it is in its place. What is under way stays private, and
// what exists stays as it is.
func TestModes(t *testing.T) {
	for _, mask := range []int{0, 0o022, 0o027, 0o077} {
		for _, tt := range []struct{ file, dir, wantFile, wantDir, wantTop fs.FileMode }{
			{0, 0, 0o600, 0o700, 0o700},
			{0o640, 0o750, 0o640, 0o750, 0o750},
			{0o666, 0o777, 0o666, 0o777, 0o755},
			{0o604, 0o711, 0o604, 0o711, 0o711},
		} {
			dir := t.TempDir()
			umask(t, mask)
			s := open(t, dir, Options{Fsync: true, FileMode: tt.file, DirMode: tt.dir})
			mode := func(path string, want fs.FileMode) {
				t.Helper()
				info, err := os.Lstat(filepath.Join(dir, "files", path))
				if err != nil || info.Mode().Perm() != want {
					t.Errorf("umask %03o, %+v: %s: %v, %v", mask, tt, path, info.Mode(), err)
				}
			}
			key := receive(t, s, newer)
			mode(".incoming", 0o700)
			mode(".incoming/"+key[:2], 0o700)
			mode(".incoming/"+inFolder(key), tt.wantFile)
			commit(t, s, waiting(key, "a/b", newer))
			mode("", tt.wantTop)
			mode(alice.String(), tt.wantDir)
			mode(alice.String()+"/a", tt.wantDir)
			mode(alice.String()+"/a/b", tt.wantFile)

			scratch, err := s.Scratch(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := scratch.WriteAt([]byte("x"), 0); err != nil {
				t.Fatal(err)
			}
			found, _ := filepath.Glob(filepath.Join(dir, "files", ".incoming", "*", "*"+scratchSuffix))
			for _, path := range found {
				rel, _ := filepath.Rel(filepath.Join(dir, "files"), path)
				mode(rel, 0o600)
			}
			if len(found) != 1 {
				t.Errorf("scratch files %q", found)
			}
			_ = scratch.Close()

			if err := os.Chmod(filepath.Join(dir, "files", alice.String(), "a"), 0o500|0o040); err != nil {
				t.Fatal(err)
			}
			_ = s.Close()
			s = open(t, dir, Options{FileMode: 0o660, DirMode: 0o770})
			mode("", tt.wantTop)
			mode(alice.String()+"/a", 0o540)
			mode(alice.String()+"/a/b", tt.wantFile)
			_ = s.Close()
			if err := os.Chmod(filepath.Join(dir, "files", alice.String(), "a"), 0o700); err != nil { // so that it can be removed
				t.Fatal(err)
			}
		}
	}
}

// Open fails on a disk without modes, such as FAT, if a mode was asked for, and only
// then. A file or folder whose mode cannot be set is removed again.
func TestDiskWithoutModes(t *testing.T) {
	denied := ""
	faults := &Faults{Before: func(step Step) error {
		if step.Op == Chmod && strings.HasSuffix(step.Path, denied) {
			return syscall.EPERM
		}
		return nil
	}}
	umask(t, 0o077)
	for path, o := range map[string]Options{"/.probe/Probe": {FileMode: 0o640}, "/.probe": {DirMode: 0o750}} {
		denied, o.Faults = path, faults
		if _, err := Open(t.TempDir(), o); !errors.Is(err, syscall.EPERM) || !strings.Contains(err.Error(), "does not take the mode") {
			t.Errorf("%s: %v, want that the disk does not take the mode", path, err)
		}
	}

	dir := t.TempDir()
	denied = "no path"
	s := open(t, dir, Options{FileMode: 0o640, DirMode: 0o750, Faults: faults})
	denied = lockName
	if chmod, err := s.tryMode(lockName, 0o640, false); chmod || err != nil {
		t.Errorf("no mode was asked for: %v, %v", chmod, err)
	}
	in, err := s.Create(t.Context(), placeOf("docs/a"), storage.Announce(1))
	if err != nil {
		t.Fatal(err)
	}
	denied = in.Key()
	if _, err := in.Write(t.Context(), []byte("x")); !errors.Is(err, syscall.EPERM) {
		t.Errorf("Write: %v, want EPERM", err)
	}
	if left := leftIncoming(t, dir); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	key := receive(t, s, newer)
	denied = "/docs"
	wantCommit(t, s, waiting(key, "docs/a", newer), syscall.EPERM)
	if left, err := os.ReadDir(filepath.Join(dir, "files", alice.String())); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left %v, %v", left, err)
	}
	denied = "no path"
	commit(t, s, waiting(key, "docs/a", newer))
}

// If the folder of an incoming file is no folder, Commit fails, and does not say that
// the file is not there.
func TestIncomingFolderIsNone(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{Fsync: true})
	f := waiting(receive(t, s, newer), "a", newer)
	at := filepath.Join(dir, "files", ".incoming", f.Incoming[:2])
	if err := errors.Join(os.Rename(at, at+" away"), os.WriteFile(at, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(t.Context(), f); err == nil || errors.Is(err, storage.ErrNotStored) {
		t.Errorf("Commit: %v, want an error after which Commit may be called again", err)
	}
	if err := errors.Join(os.Remove(at), os.Rename(at+" away", at)); err != nil {
		t.Fatal(err)
	}
	commit(t, s, f)
}

// A folder that was set to give its group on goes on doing so.
func TestModesKeepTheGroup(t *testing.T) {
	dir := t.TempDir()
	umask(t, 0o077)
	s := open(t, dir, Options{DirMode: 0o770})
	if err := os.Chmod(filepath.Join(dir, "files"), 0o700|fs.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "files", "try"), 0o700); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(filepath.Join(dir, "files", "try"))
	if err != nil {
		t.Fatal(err)
	}
	commit(t, s, waiting(receive(t, s, newer), "a/b", newer))
	got, err := os.Lstat(filepath.Join(dir, "files", alice.String(), "a"))
	if want := info.Mode()&fs.ModeSetgid | 0o770; err != nil || got.Mode()&(fs.ModePerm|fs.ModeSetgid) != want {
		t.Errorf("the folder is %v, %v, want %v", got.Mode(), err, want)
	}
}
