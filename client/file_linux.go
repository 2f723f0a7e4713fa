package client

import (
	"io/fs"
	"syscall"
	"time"
)

// statusTime is when the file or what is known of it last changed: unlike the
// time of modification, no program can set it. Where the system has no such
// time, it is that of the modification.
func statusTime(info fs.FileInfo) time.Time {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(s.Ctim.Unix())
	}
	return info.ModTime()
}
