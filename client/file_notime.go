//go:build !linux && !darwin

package client

import (
	"io/fs"
	"time"
)

// statusTime is the time of modification: the system has no other, or keeps it
// elsewhere.
func statusTime(info fs.FileInfo) time.Time { return info.ModTime() }
