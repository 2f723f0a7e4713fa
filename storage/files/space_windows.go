package files

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"
)

// diskSpace returns how many bytes of f's file system are free for this process,
// and how many it has.
func diskSpace(f *os.File) (free, total int64, err error) {
	dir, err := windows.UTF16PtrFromString(filepath.Dir(f.Name()))
	if err != nil {
		return 0, 0, err
	}
	var avail, size, all uint64
	err = windows.GetDiskFreeSpaceEx(dir, &avail, &size, &all)
	return int64(avail), int64(size), err
}
