package files

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// lockFile locks f for as long as it is open, or fails with ErrLocked.
func lockFile(f *os.File) error {
	err := windows.LockFileEx(windows.Handle(f.Fd()),
		windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, new(windows.Overlapped))
	if err == windows.ERROR_LOCK_VIOLATION {
		return ErrLocked
	}
	return err
}

// syncDir would make the entries of a directory durable: NTFS journals them, and
// there is no call to wait for that.
func syncDir(*directory) error { return nil }

// deviceOf would tell the file system of a file from others. What is mounted in a
// folder is no folder here.
func deviceOf(fs.FileInfo) uint64 { return 0 }

// isElsewhere reports whether err says that a file cannot be renamed into another
// file system.
func isElsewhere(err error) bool { return errors.Is(err, windows.ERROR_NOT_SAME_DEVICE) }

// lacksSpace reports whether err says that the disk, or the share of it that the
// user may have, is full.
func lacksSpace(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) ||
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}
