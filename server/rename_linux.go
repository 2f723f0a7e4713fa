package server

import (
	"errors"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// renameNew moves a file to a place that must be free: fs.ErrExist if it is not.
func renameNew(m move) error {
	from, err := m.source.Open(".")
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := m.target.Open(".")
	if err != nil {
		return err
	}
	defer to.Close()
	for {
		err := unix.Renameat2(int(from.Fd()), path.Base(m.from), int(to.Fd()), path.Base(m.to), unix.RENAME_NOREPLACE)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS): // not every file system can
			return renameByPath(m)
		case err != nil:
			return &os.LinkError{Op: "rename", Old: m.from, New: m.to, Err: err}
		default:
			return nil
		}
	}
}
