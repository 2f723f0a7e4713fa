//go:build darwin || dragonfly || freebsd

package files

import (
	"os"

	"golang.org/x/sys/unix"
)

// diskSpace returns how many bytes of f's file system are free for this process,
// and how many it has.
func diskSpace(f *os.File) (free, total int64, err error) {
	var st unix.Statfs_t
	for {
		err := unix.Fstatfs(int(f.Fd()), &st)
		if err != unix.EINTR {
			return blocks(uint64(max(0, st.Bavail)), int64(st.Bsize)), blocks(st.Blocks, int64(st.Bsize)), err
		}
	}
}
