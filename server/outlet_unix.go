//go:build unix

package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// syncRoot makes the entries of a folder durable.
func syncRoot(r *os.Root) error {
	f, err := r.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// linkInto gives the file at the path from a second name, in the folder to.
func linkInto(from string, to *os.Root, name string) error {
	f, err := to.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		err := unix.Linkat(unix.AT_FDCWD, from, int(f.Fd()), name, 0)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// chownLike gives a copy the owner of its original, as mv does: where the user may.
func chownLike(f *os.File, original os.FileInfo) {
	if st, ok := original.Sys().(*syscall.Stat_t); ok {
		_ = f.Chown(int(st.Uid), int(st.Gid))
	}
}

// checkOwner returns an error unless takingFolder is the user's own: what is in it is
// believed.
func (o *outlet) checkOwner() error {
	info, err := o.taking.Stat(".")
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok && int(st.Uid) == os.Geteuid() && info.Mode()&0o022 == 0 {
		return nil
	}
	return &Hinted{
		Err:  fmt.Errorf("%s belongs to another user, or others may write to it", filepath.Join(o.path, takingFolder)),
		Hint: "Take files as the user that has begun with it, or to another folder.",
	}
}
