package sqlite

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"sealift/storage/storagetest/power"
)

// asUser has do run as somebody whom the modes of files hold back, also where the
// tests run as root.
func asUser(t *testing.T, do func()) {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and the thread ends with this goroutine
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		err := unix.Capget(&head, &caps[0])
		if err == nil {
			caps[0].Effective &^= 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH
			err = unix.Capset(&head, &caps[0])
		}
		if err == nil {
			do()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// mode gives a file or folder a mode until the test ends.
func mode(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(path, 0o700) })
}

// A database that nobody has open can be read where nothing can be written, as on a
// medium that is for reading only.
func TestReadOnlyMedium(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "defensive.db")
	r := open(t, path)
	apply(t, r, add(1, "anna"))
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	power.Watch(dir, nil).Freeze()
	ro, err := OpenReadOnly(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer ro.Close()
	wantNames(t, ro, "anna")
	if left, err := os.ReadDir(dir); len(left) != 1 || err != nil {
		t.Errorf("beside it: %v, %v", left, err)
	}
}

// Who may not read a database is told what is missing. Beside a server, and with all
// that it left, the right to read is enough.
func TestReadingWithoutRights(t *testing.T) {
	for _, tc := range []struct {
		name         string
		folder, file fs.FileMode
		left         []string // besides the database
		want         error
	}{
		{"the folder cannot be written to", 0o500, 0o600, nil, ErrFolder},
		{"nor can it be, and there is a WAL", 0o500, 0o600, []string{"-wal"}, ErrFolder},
		{"all files are there", 0o500, 0o400, []string{"-wal", "-shm"}, nil},
		{"the folder can be written to", 0o700, 0o400, nil, nil},
		{"the database cannot be read", 0o700, 0, nil, fs.ErrPermission},
		{"nothing can be read", 0o700, 0, []string{"-wal", "-shm"}, fs.ErrPermission},
		{"the folder cannot be entered", 0, 0o600, nil, fs.ErrPermission},
	} {
		t.Run(tc.name, func(t *testing.T) {
			from, dir := filepath.Join(t.TempDir(), "defensive.db"), t.TempDir()
			r := open(t, from)
			apply(t, r, add(1, "anna"))
			if tc.left == nil {
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
			}
			path := filepath.Join(dir, "defensive.db")
			for _, suffix := range append(tc.left, "") {
				content, err := os.ReadFile(from + suffix)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path+suffix, content, 0o600); err != nil {
					t.Fatal(err)
				}
				mode(t, path+suffix, tc.file)
			}
			mode(t, dir, tc.folder)
			asUser(t, func() {
				ro, err := OpenReadOnly(t.Context(), path)
				if err == nil {
					wantNames(t, ro, "anna")
					err = ro.Close()
				}
				if !errors.Is(err, tc.want) {
					t.Errorf("%v, want %v", err, tc.want)
				}
			})
			mode(t, dir, 0o700)
		})
	}
}

// A database whose entry in its folder cannot be made durable is not made, however
// often that is tried.
func TestFolderThatCannotBeSynced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "defensive.db")
	mode(t, dir, 0o300) // files can be made in it, and it cannot be opened
	asUser(t, func() {
		for range 2 {
			if r, err := Open(t.Context(), path, Options{Fsync: true}); !errors.Is(err, fs.ErrPermission) {
				t.Errorf("Open: %v, %v, want ErrPermission", r, err)
			}
		}
	})
	mode(t, dir, 0o700)
	apply(t, open(t, path), add(1, "anna"))
}
