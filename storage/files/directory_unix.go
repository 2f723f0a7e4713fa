//go:build unix

package files

import (
	"errors"
	"io/fs"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// directory is an open folder. Its methods take names, which are single elements
// of a path, and follow no symbolic link: so nothing that they do leads out of the
// folder. Any goroutine may use one.
//
// An os.Root is as safe, and goes down a whole path with each call: a file that
// is made, and moved to its place, costs 21 system calls less this way.
//
// Once it is closed its methods fail: the number of its descriptor may be that of
// another store's folder by then, and a worker that a disk has kept still calls them.
type directory struct{ fd atomic.Int32 } // -1: closed

func newDirectory(fd int) *directory {
	d := new(directory)
	d.fd.Store(int32(fd))
	return d
}

func (d *directory) number() int { return int(d.fd.Load()) }

// entry is what a name in a folder stands for.
type entry struct {
	mode     fs.FileMode
	size     int64 // bytes
	dev, ino uint64
}

// same reports whether both are one file.
func (e entry) same(other entry) bool { return e.dev == other.dev && e.ino == other.ino }

// openDirectory opens the folder at a path, through symbolic links.
func openDirectory(path string) (*directory, error) {
	return openFolder("open", unix.AT_FDCWD, path, 0)
}

// enter opens the folder name. ErrObstructed if something else has that name.
func (d *directory) enter(name string) (*directory, error) {
	next, err := openFolder("openat", d.number(), name, unix.O_NOFOLLOW)
	if !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
		return next, err
	}
	e, err2 := d.look(name)
	if err2 != nil {
		return nil, err2
	}
	return nil, obstructed(name, e.mode)
}

func openFolder(op string, at int, name string, flag int) (*directory, error) {
	var fd int
	err := again(op, name, func() (err error) {
		fd, err = unix.Openat(at, name, flag|unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	return newDirectory(fd), nil
}

// self opens the folder once more, to read or sync it.
func (d *directory) self() (*os.File, error) { return d.open(".", os.O_RDONLY, 0) }

// open opens a file, with the flags of [os.OpenFile]. One that it makes has the
// permissions of perm that the umask leaves.
func (d *directory) open(name string, flag int, perm fs.FileMode) (*os.File, error) {
	var fd int
	err := again("openat", name, func() (err error) {
		fd, err = unix.Openat(d.number(), name, flag|unix.O_NOFOLLOW|unix.O_CLOEXEC, uint32(perm.Perm()))
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// look says what stands at a name, or at a path whose folders are known to be no symbolic links.
func (d *directory) look(name string) (entry, error) {
	return lookAtEntry("lstat", d.number(), name, unix.AT_SYMLINK_NOFOLLOW)
}

// lookAtPath says what is at a path, through symbolic links.
func lookAtPath(path string) (entry, error) { return lookAtEntry("stat", unix.AT_FDCWD, path, 0) }

func lookAtEntry(op string, at int, name string, flag int) (entry, error) {
	var st unix.Stat_t
	err := again(op, name, func() error { return unix.Fstatat(at, name, &st, flag) })
	if err != nil {
		return entry{}, err
	}
	return entry{modeOf(uint32(st.Mode)), st.Size, uint64(st.Dev), st.Ino}, nil
}

// modeOf is a mode as package fs has it, of what this package asks for: type and
// permissions.
func modeOf(mode uint32) fs.FileMode {
	perm := fs.FileMode(mode).Perm()
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return perm
	case unix.S_IFDIR:
		return perm | fs.ModeDir
	case unix.S_IFLNK:
		return perm | fs.ModeSymlink
	default:
		return perm | fs.ModeIrregular
	}
}

func (d *directory) mkdir(name string, perm fs.FileMode) error {
	return again("mkdirat", name, func() error { return unix.Mkdirat(d.number(), name, uint32(perm.Perm())) })
}

// remove removes a file.
func (d *directory) remove(name string) error {
	return again("unlinkat", name, func() error { return unix.Unlinkat(d.number(), name, 0) })
}

// rmdir removes an empty folder, and nothing but a folder.
func (d *directory) rmdir(name string) error {
	return again("rmdir", name, func() error { return unix.Unlinkat(d.number(), name, unix.AT_REMOVEDIR) })
}

func (d *directory) close() {
	if fd := d.fd.Swap(-1); fd >= 0 {
		_ = unix.Close(int(fd))
	}
}

// rename moves a file to a place that may be taken already.
func rename(_ *os.Root, from, to location) error {
	return again("renameat", from.name, func() error { return unix.Renameat(from.dir.number(), from.name, to.dir.number(), to.name) })
}

// again calls do until no signal interrupts it, and says in its error what failed.
func again(op, name string, do func() error) error {
	for {
		switch err := do(); err {
		case nil:
			return nil
		case unix.EINTR:
		default:
			return &os.PathError{Op: op, Path: name, Err: err}
		}
	}
}
