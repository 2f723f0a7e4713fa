//go:build unix

package load

import (
	"os"
	"runtime"
	"syscall"
)

type usage struct {
	cpu  float64 // seconds
	peak int64   // bytes
}

// processorTime is what this process has used so far.
func processorTime() (usage, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return usage{}, os.NewSyscallError("getrusage", err)
	}
	peak := int64(u.Maxrss) // kilobytes, but bytes on macOS
	if runtime.GOOS != "darwin" {
		peak <<= 10
	}
	return usage{float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9, peak}, nil
}
