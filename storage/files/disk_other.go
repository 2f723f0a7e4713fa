//go:build !linux

package files

import (
	"math"
	"os"
)

// reserveFrom is how many bytes a file must have got before blocks are reserved
// for the next ones: only Linux does that without changing the file's length.
const reserveFrom = math.MaxInt64

func reserve(*os.File, int64, int64) error { return nil }

// startFlush would begin to write to the disk; only Linux can without waiting.
func startFlush(*os.File, int64) error { return nil }

// awaitFlush would wait for that.
func awaitFlush(*os.File, int64, int64) error { return nil }

// dropCache would have the next read come from the disk.
func dropCache(*os.File) {}

// lookAt says what stands at a path below files/.
func (s *Store) lookAt(path string) (standing, error) { return look(s.root, path) }

// SpreadFolders is for ext4.
func SpreadFolders(string) {}
