//go:build unix

package sqlite

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lookAtFolder looks at the folder at a path.
func lookAtFolder(path string) (folder, error) {
	var st unix.Stat_t
	for {
		switch err := unix.Stat(path, &st); err {
		case nil:
			return folder{uint64(st.Dev), st.Ino, time.Unix(st.Ctim.Unix())}, nil
		case unix.EINTR:
		default:
			return folder{}, &os.PathError{Op: "stat", Path: path, Err: err}
		}
	}
}
