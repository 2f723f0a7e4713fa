package server

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sealift/storage/sqlite"
)

// descriptors is how many this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// A Run that fails ends what it began, and Close gives back the rest.
func TestCloseAfterAFailedRun(t *testing.T) {
	o := options(t.TempDir())
	before := descriptors(t)
	s := open(t, o)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 3 // each number beyond is taken, or may not be
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	err := s.Run(context.Background())
	if e := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); e != nil {
		t.Fatal(e)
	}
	if err == nil || !strings.Contains(err.Error(), "starting the event loops") {
		t.Errorf("Run: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are open, %d before", after, before)
	}
	stop := run(t, open(t, o))
	stop()
}

// Who may not read a server's directory is told which right is missing, and as whom
// to try again.
func TestReadOnlyWithoutRights(t *testing.T) {
	for _, tc := range []struct {
		name         string
		folder, file fs.FileMode
		want         error
	}{
		{"folder for reading", 0o500, 0o600, sqlite.ErrFolder},
		{"no right to the database", 0o700, 0, fs.ErrPermission},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			record(t, dir, 1)
			database := dir + "/" + DatabaseName
			if err := errors.Join(os.Chmod(database, tc.file), os.Chmod(dir, tc.folder)); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
			asUser(t, func() {
				r, err := OpenReadOnly(t.Context(), Stores{Dir: dir})
				if r != nil || !errors.Is(err, tc.want) || !strings.Contains(Hint(err), "as the user that the server runs as") {
					t.Errorf("%v, %v with hint %q", r, err, Hint(err))
				}
			})
		})
	}
}

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

// Who may not read the server's key is told as whom to try again, and a server that
// may not does not start with another one.
func TestTLSKeyWithoutRights(t *testing.T) {
	o, _ := tlsOptions(t.TempDir())
	protect(t, o)
	_, key := ownPair(o.Dir)
	if err := os.Chmod(key, 0); err != nil {
		t.Fatal(err)
	}
	asUser(t, func() {
		_, err := Fingerprint(o.Dir)
		s, failed := Open(t.Context(), o)
		for _, err := range []error{err, failed} {
			if s != nil || !errors.Is(err, fs.ErrPermission) || !strings.Contains(Hint(err), "as the user that the server runs as") {
				t.Errorf("%v with hint %q", err, Hint(err))
			}
		}
	})
}
