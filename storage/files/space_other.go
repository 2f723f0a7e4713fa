//go:build !linux && !darwin && !dragonfly && !freebsd && !windows

package files

import (
	"errors"
	"os"
)

// diskSpace would return how many bytes of f's file system are free, and how many
// it has.
func diskSpace(*os.File) (free, total int64, err error) { return 0, 0, errors.ErrUnsupported }
