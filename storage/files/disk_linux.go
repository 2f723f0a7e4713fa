package files

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// reserveFrom is how many bytes a file must have got before it pays to reserve
// blocks for the next ones: writing 1 GiB costs a quarter less CPU time.
const reserveFrom = 256 << 10

// SpreadFolders has ext4 put each folder in dir into a part of the disk of its own, as
// if it were in the top directory. ext4 does not use the number of a removed file
// again for up to six minutes, and whoever makes a file near many of those
// searches past them all: where clients send the same names again and again, and
// each file takes the place of one before, that would cost nine tenths of the
// server's speed. Other file systems do not know the flag, nor need it: that it
// cannot be set is no error. Any goroutine may call it.
func SpreadFolders(dir string) {
	const topDir = 0x20000 // FS_TOPDIR_FL, see chattr(1) on +T
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	if flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS); err == nil {
		_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags|topDir))
	}
}

// reserve allocates blocks for n bytes at off and leaves the length of f alone:
// what is there after a crash is what was written. The error is
// errors.ErrUnsupported where the file system cannot do that.
func reserve(f *os.File, off, n int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, off, n)
		switch {
		case err == unix.EINTR:
		case err == nil:
			return nil
		default:
			return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
		}
	}
}

// startFlush begins to write what is in f from off on to the disk, and does not wait. The
// Sync at the end then has little left to do: of a file of 1 GiB, 30 ms instead
// of 350, for no more CPU time.
//
// It does not take an error away from that Sync. The kernel keeps the error of a
// write-back with the file, and tells each descriptor once: in fsync, and in a
// sync_file_range that waits. This one does not wait. What it returns itself is an
// error of beginning to write, and as final as one of writing.
func startFlush(f *os.File, off int64) error {
	const toTheEnd = 0
	err := unix.SyncFileRange(int(f.Fd()), off, toTheEnd, unix.SYNC_FILE_RANGE_WRITE)
	if err == nil || errors.Is(err, errors.ErrUnsupported) { // ENOSYS
		return nil
	}
	return &os.PathError{Op: "sync_file_range", Path: f.Name(), Err: err}
}

// awaitFlush waits until the bytes between two offsets, which startFlush sent, are on the disk.
// Its error is final: the kernel need not repeat it, neither to this descriptor nor to a later one.
func awaitFlush(f *os.File, from, to int64) error {
	for {
		err := unix.SyncFileRange(int(f.Fd()), from, to-from, unix.SYNC_FILE_RANGE_WAIT_BEFORE)
		switch {
		case err == unix.EINTR:
		case err == nil || errors.Is(err, errors.ErrUnsupported):
			return nil
		default:
			return &os.PathError{Op: "sync_file_range", Path: f.Name(), Err: err}
		}
	}
}

// dropCache has the next read of f come from the disk, but for what was not
// written yet. After a write-back that failed, memory still holds what the disk
// does not.
func dropCache(f *os.File) {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// lookAt says what stands at a path below files/, with one call whatever the depth.
func (s *Store) lookAt(path string) (standing, error) {
	var st unix.Statx_t
	for {
		err := unix.Statx(s.top.number(), path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ENOSYS || err == unix.EPERM: // an old kernel, or a filter of system calls
			return look(s.root, path)
		case err != nil:
			return standing{}, &os.PathError{Op: "statx", Path: path, Err: err}
		}
		found := standing{device: unix.Mkdev(st.Dev_major, st.Dev_minor), mount: st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
		case unix.S_IFDIR:
			found.mode = fs.ModeDir
		case unix.S_IFLNK:
			found.mode = fs.ModeSymlink
		default:
			found.mode = fs.ModeIrregular
		}
		return found, nil
	}
}

// diskSpace returns how many bytes of f's file system are free for this process,
// and how many it has.
func diskSpace(f *os.File) (free, total int64, err error) {
	var st unix.Statfs_t
	for {
		err := unix.Fstatfs(int(f.Fd()), &st)
		if err != unix.EINTR {
			size := int64(st.Frsize) // 32 bits on some machines
			return blocks(uint64(max(0, st.Bavail)), size), blocks(st.Blocks, size), err
		}
	}
}
