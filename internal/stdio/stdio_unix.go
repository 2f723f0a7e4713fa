//go:build unix

// Package stdio tells of the standard streams what Go's runtime hides.
package stdio

import (
	"os"

	"golang.org/x/sys/unix"
)

// WasClosed reports whether a standard stream was closed when the process began.
// Go's runtime puts /dev/null in its place then, open for reading and writing.
// Who means /dev/null opens it for writing, or with O_CLOEXEC, which Linux shows
// among the flags.
func WasClosed(f *os.File) bool {
	info, err := f.Stat()
	if err != nil {
		return true
	}
	null, err := os.Stat(os.DevNull)
	if err != nil || !os.SameFile(info, null) {
		return false
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_ACCMODE == unix.O_RDWR && flags&unix.O_CLOEXEC == 0
}
