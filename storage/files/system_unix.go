//go:build unix

package files

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// lockFile locks f for as long as it is open, or fails with ErrLocked.
func lockFile(f *os.File) error {
	for {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err {
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return ErrLocked
		default:
			return err
		}
	}
}

// syncDir makes the entries of a directory durable.
func syncDir(dir *directory) error {
	f, err := dir.self()
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// deviceOf tells the file system of a file from others.
func deviceOf(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Dev)
	}
	return 0
}

// isElsewhere reports whether err says that a file cannot be renamed into another
// file system.
func isElsewhere(err error) bool { return errors.Is(err, unix.EXDEV) }

// lacksSpace reports whether err says that the disk, or the share of it that the
// user may have, is full.
func lacksSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
