//go:build unix

package files

import (
	"os"

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
